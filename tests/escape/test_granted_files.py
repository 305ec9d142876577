"""A fallen worker and the files of a granted directory: the self-test's rows that ask for them, on a real host."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sandbox.kernel import libc
from sandbox.wire.bridge_ops import Op
from supervisor.selftest import files
from supervisor.selftest.attack import Shown, Verdict
from supervisor.selftest.files import Grants
from supervisor.selftest.host import HostileHost
from supervisor.selftest.neighbour import ask, said

pytestmark = [
    pytest.mark.block4_security,
    pytest.mark.skipif(libc.MACHINE != "x86_64", reason="the attacks are x86-64 machine code"),
]
SHORT_SECONDS, LONG_SECONDS = 0.5, 10.0


@pytest.fixture(scope="module")
def grants(hostile_host: HostileHost) -> Iterator[Grants]:
    """Directories, and a worker that is granted them."""
    with Grants(hostile_host) as found:
        yield found


@pytest.mark.parametrize("name", [name for name in files.TITLES if name != "T41"])
def test_row(grants: Grants, name: str) -> None:
    """What leads outside is refused and changes nothing there; the control gets there."""
    assert [] == [case for case in files.cases(grants, name) if not case.good]


def test_objects(grants: Grants) -> None:
    """T41: no link is followed, nothing special is opened, no second name is written to."""
    found = list(files.objects(grants))
    assert [] == [case for case in found if not case.good]
    unshown = {case.name for case in found if case.shown is Shown.CANNOT}
    assert unshown <= {"a device"}


def test_race(grants: Grants) -> None:
    """T41: names that change while the bridge goes through them lead it nowhere; a look before opening is beaten."""
    case = files.race(grants, SHORT_SECONDS)
    assert case.good, case


@pytest.mark.long
def test_race_long(grants: Grants) -> None:
    """The same for longer."""
    case = files.race(grants, LONG_SECONDS)
    assert case.good, case


def test_what_is_granted_is_told(grants: Grants) -> None:
    """The rows can fail: a request that is granted counts as a success of the attack, and so does a change outside."""
    assert (0, b"what lies inside") == said(grants.worker.run(ask(Op.FS_READ, "/data/there")), Op.FS_READ)
    assert Verdict.SUCCEEDED == grants.asked(Op.FS_READ, "/data/there")[0]
    grants.write("outside/secret", b"changed")
    assert Verdict.SUCCEEDED == grants.asked(Op.FS_READ, "/data/link-to-file")[0]
    grants.repair()
    assert Verdict.STOPPED == grants.asked(Op.FS_READ, "/data/link-to-file")[0]
