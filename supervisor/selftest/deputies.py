"""T29, T30, T49 to T52: a worker that has fallen plays with bridge and router, who act for it.

Native code in a sealed worker sends whatever bytes it likes on its two channels. Each must cost that worker its life,
be on record under its reason, and be noticed by nobody else (`neighbour.Siege`). What a worker's filter forbids it to
send, descriptors, is sent by the self-test, which takes the worker's own end of the channel for that (pidfd_getfd(2)).
The controls are bridges and routers that believe what they are told (`naive`).
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from sandbox.types import Outcome
from sandbox.wire.bridge_ops import Op
from sandbox.wire.packet import HEADER
from sandbox.wire.router_frames import ListComponents
from supervisor.cli.errors import RefusedError
from supervisor.selftest import naive
from supervisor.selftest.attack import CaseResult, Row, Shown, Verdict, describe
from supervisor.selftest.attacks import bridge_frames, router_frames, sockets
from supervisor.selftest.attacks.frames import FrameAttack, mutations, send_only
from supervisor.selftest.errors import SelftestError
from supervisor.selftest.host import HostileHost, HostileWorker
from supervisor.selftest.native import Result
from supervisor.selftest.neighbour import Siege, ask, descriptors, said
from supervisor.selftest.numbers import number
from supervisor.selftest.program import Program

TRIES = 3
"""How often something must have gone wrong for a neighbour to count as the attack's effect."""
_DEADLINE = {"deadline": '"2s"'}
_LONG_DEADLINE = {"deadline": '"10s"'}
_SHORT_DEADLINE = {"deadline": '"500ms"'}
_RECORD_SECONDS = 5.0
SEED = 20_260_101
MUTATIONS = 120
"""Mutated frames for each channel."""
_TOGETHER = 3
"""Frames that one program sends."""
ROUNDS = 3
"""Times that each number of descriptors is sent."""
_FLOOD = 800
"""Questions of one worker that floods."""
_CROWD = 3
"""Workers that attack together."""
_libc = ctypes.CDLL(None, use_errno=True)


class Deputies:
    """One siege of a host.

    Args:
        host: running, with nothing of the siege's in it.
        siege: the neighbour and the host's processes.
        shown: what `controls` gave.
        every: take one frame of so many, and as much less of the rest.
    """

    def __init__(self, host: HostileHost, siege: Siege, shown: dict[str, str], every: int = 1) -> None:
        self.host, self.siege, self._controls, self._every = host, siege, shown, every
        self.worker = host.worker("deputy", values=_DEADLINE)
        self.hasty = host.worker("hasty", values=_SHORT_DEADLINE)
        self.crowd = [host.worker("crowd", instance=str(number), values=_LONG_DEADLINE) for number in range(_CROWD)]

    def close(self) -> None:
        """Close the connections to the workers."""
        for worker in (self.worker, self.hasty, *self.crowd):
            worker.close()

    def _bridge_descriptors(self) -> int | None:
        """When every worker of ours is there, and so their channels."""
        for worker in (self.worker, self.hasty, *self.crowd):
            worker.living()
        return descriptors(self.siege.pid("bridge"))

    def shown(self, name: str) -> tuple[Shown, str]:
        """What the naive one did."""
        harm = self._controls[name]
        return (Shown.WORKS, f"a naive one {harm}") if harm else (Shown.FAILED, "a naive one comes to no harm")

    def case(self, name: str, stopped: bool, how: str, control: str = "") -> CaseResult:
        """One result."""
        verdict = Verdict.STOPPED if stopped else Verdict.SUCCEEDED
        return CaseResult(name, verdict, how, *self.shown(control or name))

    def unnoticed(self, attack: Callable[[], tuple[Verdict, str]]) -> tuple[Verdict, str]:
        """Attack, and look whether others noticed; again, if they did, because a busy machine is slow by itself."""
        trouble = ""
        for _ in range(TRIES):
            verdict, how = attack()
            trouble = self.siege.complaint()
            if not trouble or verdict is not Verdict.STOPPED:
                return verdict, how
        return Verdict.SUCCEEDED, trouble

    def row(self, id_: str) -> tuple[CaseResult, ...]:
        """All cases of one id."""
        if id_ in ("T50", "T51"):
            found = self.frames([attack for attack in frame_attacks() if attack.id == id_][:: self._every])
            if id_ == "T50":
                return found
            bent = [self.mutated(3, bridge_frames.SEEDS), self.mutated(4, router_frames.SEEDS)]
            return (*found, *bent, self.left())
        checks = {"T29": self.descriptors, "T30": self.exhaustion, "T49": self.identity, "T52": self.floods}
        return checks[id_]()

    # -- T50, T51: frames ---------------------------------------------------------------------------------------------

    def frames(self, attacks: Sequence[FrameAttack]) -> tuple[CaseResult, ...]:
        """Each frame from a sealed worker: it must end for the reason given, and the record must say so."""
        found = [self._frame(attack, _descriptor(attack), self.worker) for attack in attacks]
        records = self._records(len([case for case in found if case.verdict is Verdict.STOPPED]))
        cases = []
        for attack, case in zip(attacks, found, strict=True):
            if case.verdict is Verdict.STOPPED and not any(attack.why in record for record in records):
                cases.append(CaseResult(case.name, Verdict.ODD, "it is not on record", case.shown, case.control))
            else:
                cases.append(case)
        return tuple(cases)

    def _frame(self, attack: FrameAttack, fd: int, worker: HostileWorker) -> CaseResult:
        program = attack.program(fd)

        ends = {"policy": f"ended by the {attack.name.partition(':')[0]}", "deadline": "ended by its deadline"}

        def try_it() -> tuple[Verdict, str]:
            result = worker.run(program)
            if result.outcome == attack.outcome and attack.why in result.detail:
                return Verdict.STOPPED, ends[result.outcome]
            refused = result.outcome in (Outcome.POLICY, Outcome.INTERNAL_ERROR)
            return (Verdict.ODD if refused else Verdict.SUCCEEDED), describe_fully(result)

        return CaseResult(attack.name, *self.unnoticed(try_it), *self.shown(attack.name))

    def _records(self, wanted: int) -> list[str]:
        """The protocol violations on record, when there are as many as wanted or no more come."""
        end = time.monotonic() + _RECORD_SECONDS
        while True:
            found = records(self.host, self.worker.component, "protocol.violation")
            if len(found) >= wanted or time.monotonic() > end:
                return found
            time.sleep(0.02)

    def mutated(self, fd: int, seeds: Sequence[bytes], seed: int = SEED) -> CaseResult:
        """Many bent frames: whatever they are, nobody else notices."""
        channel = "bridge" if fd == 3 else "router"
        ends: dict[str, int] = {}
        count = MUTATIONS // self._every
        everything = list(mutations(seeds, count, seed))
        for start in range(0, count, _TOGETHER):
            result = self.hasty.run(send_only(fd, everything[start : start + _TOGETHER]))
            ends[result.outcome] = ends.get(result.outcome, 0) + 1
        name = f"{channel}: {count} mutated frames, seed {seed}"
        trouble = self.siege.complaint() and self.siege.complaint()  # a block lasts, a busy moment does not
        how = ", ".join(f"{count} {outcome}" for outcome, count in sorted(ends.items()))
        return self.case(name, not trouble, trouble or how, f"{channel}: mutated")

    def left(self) -> CaseResult:
        """After all frames: the same processes, as large as before."""
        damage = self.siege.damage()
        return self.case(
            "what is left of it in the host's processes", not damage, damage or "the same, and no larger", "any frame"
        )

    # -- T29, T30: descriptors ----------------------------------------------------------------------------------------

    def descriptors(self) -> tuple[CaseResult, ...]:
        """T29. The filter, then bridge and router themselves."""
        rounds = max(1, ROUNDS // self._every)
        sendmsg = next(case for case in sockets.channels().cases if case.name == "sendmsg with a descriptor")
        pid = self.worker.living()
        result = self.worker.run(sendmsg.program)
        self.worker.living(after=pid)
        stopped = result.outcome == Outcome.POLICY
        cases = [self.case("from native code, by sendmsg", stopped, describe(result), "bridge: 253 descriptors")]
        for fd, name, good in ((3, "bridge", bridge_frames.SEEDS[7]), (4, "router", router_frames.SEEDS[6])):
            before = descriptors(self.siege.pid(name))
            for count in (1, 253, 0):
                what = {0: "the channel itself", 1: "a descriptor"}.get(count, f"{count} descriptors")
                cases.append(self._sent(fd, good, count, rounds, f"{name}: {what}"))
            after = descriptors(self.siege.pid(name))
            if before is not None and after is not None and after > before:
                how = f"the {name} has {after - before} descriptors more"
                cases.append(self.case(f"{name}: afterwards", False, how, f"{name}: 253 descriptors"))
        return tuple(cases)

    def _sent(self, fd: int, message: bytes, count: int, rounds: int, name: str) -> CaseResult:
        """Send a pipe's end `count` times (0: the channel's own end), and see that nobody has it in the end."""
        kept = 0
        for _ in range(rounds):
            pid = self.worker.living()
            reader, writer = os.pipe()
            try:
                with taken(pid, fd) as channel:
                    sent = [writer] * count or [channel.fileno(), writer]
                    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", sent))
                    channel.sendmsg([message], [rights])
            finally:
                os.close(writer)
            poll = select.poll()
            poll.register(reader, select.POLLHUP)
            kept += not poll.poll(5000)
            os.close(reader)
            self.worker.living(after=pid)
        trouble = self.siege.complaint() and self.siege.complaint()
        how = f"kept {kept} of {rounds} times" if kept else trouble or "none kept; the worker ended"
        return self.case(name, not kept and not trouble, how, f"{name.partition(':')[0]}: 253 descriptors")

    def exhaustion(self) -> tuple[CaseResult, ...]:
        """T30. Every worker of several holds a request open while another asks for all it can."""
        before = self._bridge_descriptors()
        until = time.monotonic_ns() + 500_000_000
        programs = [ask(Op.SLEEP, until, until + 1_000_000_000)] * (_CROWD - 1)
        programs.append(ask(Op.STORAGE_GET, "key", times=_FLOOD // self._every))

        def attack() -> tuple[Verdict, str]:
            results = self.together(programs)
            served = [describe(result) for result in results if not result.answered]
            return (Verdict.ODD, ", ".join(served)) if served else (Verdict.STOPPED, "a neighbour is served in time")

        verdict, how = self.unnoticed(attack)
        after = self._bridge_descriptors()
        if before is not None and after is not None and after > before:
            verdict, how = Verdict.SUCCEEDED, f"the bridge has {after - before} descriptors more"
        name = "requests held open, and as many more as go through"
        return (CaseResult(name, verdict, how, *self.shown("bridge: a file for each request")),)

    def together(self, programs: Sequence[Program]) -> list[Result]:
        """Run programs at once, each in a worker of the crowd."""
        results: list[Result | None] = [None] * len(programs)

        def serve(index: int) -> None:
            with contextlib.suppress(RefusedError, SelftestError):
                results[index] = self.crowd[index].run(programs[index])

        threads = [threading.Thread(target=serve, args=(index,)) for index in range(len(programs))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return [result or Result("internal-error", "no answer") for result in results]

    # -- T49: what is another's ---------------------------------------------------------------------------------------

    def identity(self) -> tuple[CaseResult, ...]:
        """T49. The same key in another component's hands."""
        secret = os.urandom(8).hex()
        self.worker.run(ask(Op.STORAGE_SET, "key", secret.encode()))
        own = said(self.worker.run(ask(Op.STORAGE_GET, "key")), Op.STORAGE_GET)
        other = self.host.worker("thief", values=_DEADLINE)
        stolen = said(other.run(ask(Op.STORAGE_GET, "key")), Op.STORAGE_GET)
        listed = said(other.run(ask(Op.STORAGE_LIST_KEYS, None)), Op.STORAGE_LIST_KEYS)
        other.close()
        shown = (Shown.WORKS, "its owner reads it") if own == (0, secret.encode()) else (Shown.FAILED, str(own))

        def case(name: str, wanted: object, found: object) -> CaseResult:
            verdict = Verdict.STOPPED if wanted == found else Verdict.SUCCEEDED
            return CaseResult(name, verdict, "not there" if wanted == found else str(found), *shown)

        return (
            case("another component's value by its key", (0, None), stolen),
            case("another component's keys", (0, []), listed),
        )

    # -- T52: too much, too slow --------------------------------------------------------------------------------------

    def floods(self) -> tuple[CaseResult, ...]:
        """T52."""
        half = bridge_frames.request(Op.STORAGE_SET, "key", bytes(200_000))
        half_router = router_frames.message(ListComponents(1), bytes(100_000))[:50_000]
        unread = router_frames.message(ListComponents(1)) * 1000
        slow = (
            FrameAttack("T52", "bridge: half a message, then nothing", (half,), "", "deadline"),
            FrameAttack("T52", "router: half a message, then nothing", (half_router,), "", "deadline"),
            FrameAttack("T52", "router: asks and never reads", (unread,), "does not read its channel", times=200),
        )
        cases = [self._frame(attack, _descriptor(attack), self.hasty) for attack in slow]
        return (*cases, self._flood(), self.left())

    def _flood(self) -> CaseResult:
        asks = ask(Op.LOG, 2, "a line of a flood", None, times=_FLOOD // self._every)

        def attack() -> tuple[Verdict, str]:
            results = self.together([asks] * _CROWD)
            bad = [describe(result) for result in results if not result.answered]
            return (Verdict.ODD, ", ".join(bad)) if bad else (Verdict.STOPPED, "a neighbour is served in time")

        name = "bridge: three workers that ask without a pause"
        return CaseResult(name, *self.unnoticed(attack), *self.shown(name))


def describe_fully(result: Result) -> str:
    """A result with its detail."""
    return f"{result.outcome}: {result.detail}" if result.outcome == Outcome.POLICY else describe(result)


def records(host: HostileHost, component: str, event: str) -> list[str]:
    """The audit log's lines of one component and event, as they stand in the file."""
    with host.client() as client, client.lines("/v1/audit", component=component, limit=1000) as lines:
        return [line for line in lines if f'"event":"{event}"' in line]


@contextlib.contextmanager
def taken(pid: int, fd: int) -> Iterator[socket.socket]:
    """A worker's own end of a channel, in this process. Raises OSError where this user may not have it."""
    pidfd = os.pidfd_open(pid)
    try:
        found = int(_libc.syscall(number("pidfd_getfd"), pidfd, fd, 0))
        if found < 0:
            code = ctypes.get_errno()
            raise OSError(code, f"pidfd_getfd: {os.strerror(code)}")
    finally:
        os.close(pidfd)
    with socket.socket(fileno=found) as channel:
        yield channel


# -- controls -----------------------------------------------------------------------------------------------------


def _descriptor(attack: FrameAttack) -> int:
    return 3 if attack.name.startswith("bridge") else 4


def frame_attacks() -> list[FrameAttack]:
    """T50 and T51, both channels."""
    return [*bridge_frames.attacks(), *router_frames.attacks()]


def controls(wanted: Callable[[str], bool] = lambda _: True) -> dict[str, str]:
    """What naive ones do, by the case's name. Forks: made before there are threads."""
    if not any(wanted(id_) for id_ in TITLES):
        return {}
    found = {}
    for attack in frame_attacks():
        if not wanted(attack.id):
            continue
        found[attack.name] = naive.harm(_naive(attack.name), attack.packets)
    good = bridge_frames.SEEDS[7], router_frames.SEEDS[6]
    found["any frame"] = naive.harm(naive.bridge, [HEADER.pack(Op.FS_WRITE, 0, 0xFFFFFFFF)])
    for channel, seeds, one in (("bridge", bridge_frames.SEEDS, good[0]), ("router", router_frames.SEEDS, good[1])):
        found[f"{channel}: mutated"] = naive.harm(_naive(channel), list(mutations(seeds, 40, SEED)))
        found[f"{channel}: 253 descriptors"] = naive.harm(_naive(channel), [one], 200)
    read = bridge_frames.SEEDS[0]
    found["bridge: a file for each request"] = naive.harm(naive.bridge, [read] * 700)
    half = bridge_frames.request(Op.STORAGE_SET, "key", bytes(200_000))
    found["bridge: half a message, then nothing"] = naive.harm(naive.bridge, [half])
    found["router: half a message, then nothing"] = naive.harm(
        naive.router, [router_frames.message(ListComponents(1), bytes(100_000))[:50_000]]
    )
    found["router: asks and never reads"] = naive.harm(naive.generous, [good[1]] * 100, reads=False)
    found["bridge: three workers that ask without a pause"] = naive.harm(naive.one_by_one, [good[0]] * 20)
    return found


def _naive(name: str) -> naive.Serve:
    return naive.bridge if name.startswith("bridge") else naive.router


TITLES = {
    "T29": ("descriptors sent to bridge and router", ("seccomp", "no room for descriptors")),
    "T30": ("one worker that takes all the bridge has", ("one request at a time", "turns")),
    "T49": ("what belongs to another component", ("identity is the channel",)),
    "T50": ("frames that the moment does not allow: forged, replayed, too early, too late", ("table of requests",)),
    "T51": ("malformed frames, and mutated ones", ("strict parsing",)),
    "T52": ("floods, half messages, slow readers", ("turns", "bounded memory", "deadline")),
}


def run(
    host: HostileHost,
    shown: dict[str, str],
    wanted: Callable[[str], bool],
    progress: Callable[[str, int, int], None] = lambda *_: None,
) -> Iterator[Row]:
    """The rows that are wanted.

    Args:
        shown: what `controls` gave.
        progress: called with the row's title, its place and how many there are.
    """
    chosen = [id_ for id_ in TITLES if wanted(id_)]
    if not chosen:
        return
    with Siege(host) as siege:
        deputies = Deputies(host, siege, shown)
        try:
            for done, id_ in enumerate(chosen):
                title, walls = TITLES[id_]
                progress(title, done, len(chosen))
                yield Row(id_, title, walls, deputies.row(id_))
        finally:
            deputies.close()
