"""Who each process is: blocks of uids, and the uids of workers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.kernel.cgroups import Tree
from sandbox.types import ComponentId, Limits
from sandbox.wire import bridge_ops, packet
from sandbox.wire.supervisor_frames import Fork, StartWorker
from supervisor.parent import identities, workers
from supervisor.parent.children import Child
from supervisor.parent.errors import OutsideCheckFailed, RootError, SpawnFailed
from supervisor.parent.identities import BLOCK, BLOCKS, FIRST_ID, WORKERS, Identities, claim
from supervisor.parent.workers import Worker, Workers

pytestmark = pytest.mark.block7_lifecycle
bases = st.integers(0, BLOCKS - 1).map(lambda n: FIRST_ID + n * BLOCK)


@pytest.fixture
def locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A lock directory of the test's own, and root as the answer to who we are."""
    monkeypatch.setattr(identities, "LOCK_DIRECTORY", str(tmp_path / "locks"))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    yield tmp_path


def release(who: Identities) -> None:
    assert who.lock is not None
    os.close(who.lock)


def test_two_hosts(locks: Path) -> None:
    """Two live hosts never share an id, whatever their roots are called."""
    claimed = [claim("/a"), claim("/b"), claim("/a"), claim("/a")]
    found = [who.base for who in claimed]
    assert len(found) == len(set(found))
    assert all(base is not None and (base - FIRST_ID) % BLOCK == 0 for base in found)
    for who in claimed:
        release(who)


def test_the_same_root_again(locks: Path) -> None:
    """After a host's end its root gets the same ids again, so its files need no new owner."""
    first = claim("/srv/airssys")
    release(first)
    second = claim("/srv/airssys")
    assert first.base == second.base
    release(second)


def test_all_taken(locks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With no block left the start is refused; one block given back is found wherever it is."""
    monkeypatch.setattr(identities, "BLOCKS", 3)
    claimed = [claim(f"/{n}") for n in range(3)]
    with pytest.raises(RootError, match="every block"):
        claim("/x")
    release(claimed[1])
    again = claim("/x")
    assert claimed[1].base == again.base
    for who in (claimed[0], claimed[2], again):
        release(who)


def test_a_lock_that_is_a_link(locks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link in the lock directory is not followed."""
    monkeypatch.setattr(identities, "BLOCKS", 1)
    (locks / "locks").mkdir()
    (locks / "locks" / "0").symlink_to(locks / "victim")
    with pytest.raises(OSError, match="symbolic links"):
        claim("/x")
    assert not (locks / "victim").exists()


def test_ordinary_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without root there is one uid for all, no block and no lock."""
    monkeypatch.setattr(os, "geteuid", lambda: 1234)
    who = claim("/anything")
    assert (None, None, None) == (who.base, who.lock, who.worker_range)
    uids = {who.supervisor, who.control, who.router, who.bridge, who.auditor, who.compiler(3), who.worker(7)}
    assert {1234} == uids


@given(base=bases, compiler=st.integers(0, 10_000), inside=st.integers(1, WORKERS - 1))
def test_everybody_has_a_uid_of_its_own(base: int, compiler: int, inside: int) -> None:
    """Services, compilers and workers of one block never share an id, and all lie within the block."""
    who = Identities(base, 0)
    uids = [
        who.supervisor,
        who.control,
        who.router,
        who.bridge,
        who.auditor,
        who.compiler(compiler),
        who.worker(inside),
    ]
    assert 7 == len(set(uids))
    assert all(base <= uid < base + BLOCK for uid in uids)
    first, count = who.worker_range or (0, 0)
    assert first + inside - 1 == who.worker(inside), "as the zygote's id map says"
    assert first + count <= base + BLOCK


def test_the_range_is_no_distributions() -> None:
    """All blocks lie in the range systemd's document leaves unused, and below the sign bit."""
    assert 0x70000000 <= FIRST_ID
    assert FIRST_ID + BLOCKS * BLOCK <= 0x7FFF0000


@given(number=st.integers(0, 1 << 20))
def test_compilers_at_work_together(number: int) -> None:
    """As many compilers as could ever run at once have different uids."""
    who = Identities(FIRST_ID, 0)
    assert 200 == len({who.compiler(number + n) for n in range(200)})


# -- workers ------------------------------------------------------------------------------------------------------


class Begun:
    """Workers of a host whose zygote and router are written down, not asked."""

    def __init__(self, base: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
        self.workers = Workers(Identities(base, 4242), Tree("none", {}), 10.0)
        self.forks: list[Fork] = []
        self.number = 0
        self.zygote = Child("zygote", 0, lambda channel: 0)
        self.zygote.send = lambda frame, fds=(): self.forks.append(frame)  # type: ignore[method-assign]

    def begin(self) -> Worker:
        """One more."""
        worker = self.workers.make(self.zygote)
        self.workers.ask(worker)
        return worker

    def claimed(self) -> Worker:
        """One more, and a component for it."""
        worker = self.begin()
        self.number += 1
        request = StartWorker(self.number, ComponentId("a", "b"), self.number, Limits())
        self.workers.claim(worker, request, os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC), 0, 0.0)
        return worker

    def end(self, worker: Worker) -> None:
        """It is dead."""
        self.workers.forget(worker)

    def close(self) -> None:
        for worker in list(self.workers.by_number.values()):
            self.end(worker)


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> Iterator[Begun]:
    """Workers of a host started as root, five ids in all."""
    monkeypatch.setattr(workers, "WORKERS", 6)
    found = Begun(FIRST_ID, monkeypatch)
    yield found
    found.close()


def test_uids_in_turn(begun: Begun) -> None:
    """Each worker gets the next id; the zygote is asked for the inside number of that very uid."""
    made = [begun.begin() for _ in range(3)]
    assert [1, 2, 3] == [worker.inside for worker in made] == [fork.uid for fork in begun.forks]
    assert [begun.workers.identities.worker(n) for n in (1, 2, 3)] == [worker.uid for worker in made]


def test_a_uid_is_not_used_again_at_once(begun: Begun) -> None:
    """A dead worker's id comes last, because the kernel counts its namespaces a while longer."""
    first = begun.begin()
    begun.end(first)
    assert [2, 3, 4, 5, 1] == [begun.begin().inside for _ in range(5)]


def test_a_uid_of_the_living_is_never_given(begun: Begun) -> None:
    """Turn after turn ids of live workers are passed over; when all live, a start is refused and changes nothing."""
    made = [begun.begin() for _ in range(5)]
    with pytest.raises(SpawnFailed, match="every worker uid"):
        begun.begin()
    assert 5 == len(begun.workers.by_number)
    begun.end(made[2])
    assert 3 == begun.begin().inside
    begun.end(made[4])
    begun.end(made[0])
    assert {1, 5} == {begun.begin().inside for _ in range(2)}


def test_a_blank_becomes_a_components(begun: Begun) -> None:
    """Unclaimed it is a blank; claimed it is found by its incarnation, and no blank is left."""
    worker = begun.begin()
    assert [worker] == list(begun.workers.blanks())
    request = StartWorker(1, ComponentId("a", "b"), 77, Limits())
    begun.workers.claim(worker, request, os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC), 0, 0.0)
    assert [] == list(begun.workers.blanks())
    assert {77: worker} == begun.workers.by_incarnation
    begun.end(worker)
    assert {} == begun.workers.by_incarnation == begun.workers.by_number


def test_ordinary_users_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without root every worker is the user, 0 inside."""
    begun = Begun(None, monkeypatch)
    made = [begun.begin() for _ in range(3)]
    assert [(0, 4242)] * 3 == [(worker.inside, worker.uid) for worker in made]
    begun.close()


@pytest.mark.parametrize("held", [True, False])
def test_a_worker_outside_its_control_group_is_refused(
    begun: Begun, monkeypatch: pytest.MonkeyPatch, held: bool
) -> None:
    """A sealed worker goes live only when the kernel says that it is in its group."""
    import socket

    monkeypatch.setattr(workers.inspect, "check", lambda *_: None)
    monkeypatch.setattr(Tree, "holds", lambda self, name, pid: held and name == "w1")
    worker = begun.claimed()
    worker.bridge.close()
    worker.bridge, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with far:
        packet.send_message(far, bridge_ops.SEALED, b"\1")
        if held:
            begun.workers.reported(worker)
            assert "live" == worker.stage
        else:
            with pytest.raises(OutsideCheckFailed, match="control group"):
                begun.workers.reported(worker)
            assert "live" != worker.stage
