"""The plugin for pytest: the example suite runs, hosts end however the tests end, what cannot be shown is counted."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from live_host import CHECKOUT, wait_until

from sandbox.kernel import libc
from supervisor.cli.client import Client
from supervisor.cli.errors import UnreachableError

pytestmark = pytest.mark.block10_sdk
SUITE = CHECKOUT / "examples" / "attack-suite"
x86_64 = pytest.mark.skipif(libc.MACHINE != "x86_64", reason="the attacks are x86-64 machine code")
LOAD = [] if entry_points(group="pytest11", name="airssys") else ["-p", "airssys.pytest_plugin"]
"""An environment that is older than the entry point does without it."""
QUIET = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-q", "-ra", *LOAD)


def environment(place: Path) -> dict[str, str]:
    """Without the outer pytest's own variables; temporary files, so the hosts' roots, below a short place."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST_", "AIRSSYS_"))}
    return {**kept, "TMPDIR": str(place), "PYTHONDONTWRITEBYTECODE": "1"}


def run(place: Path, *arguments: str) -> tuple[int, str]:
    """Run pytest; its exit status and everything it said."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *QUIET, *arguments],
        env=environment(place),
        cwd=place,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=300,
    )
    return done.returncode, done.stdout


def counted(output: str) -> dict[str, int]:
    """The numbers of pytest's last line."""
    return {what: int(number) for number, what in re.findall(r"(\d+) (passed|failed|skipped|error)", output)}


@pytest.fixture
def short_place() -> Iterator[Path]:
    """A directory that the host's own uids reach, with a short name: a socket's path has 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="ap-") as place:
        os.chmod(place, 0o755)
        yield Path(place)


@pytest.fixture
def suite(short_place: Path, able: None) -> Path:
    """A directory for a suite of one file, `test_it.py`, beside which nothing lies."""
    short_place.joinpath("pytest.ini").write_text("[pytest]\nfilterwarnings = error\naddopts = --strict-markers\n")
    return short_place


def write(place: Path, text: str) -> str:
    """Write the suite's file; its path."""
    path = place / "test_it.py"
    path.write_text(textwrap.dedent(text))
    return str(path)


def lesser(place: Path, wall: str, state: str, **more: object) -> str:
    """A command `airssys` that tells of a lesser machine; all else it does is real."""
    command = place / "airssys"
    command.write_text(
        textwrap.dedent(
            f"""\
            #!{sys.executable}
            import sys
            from msgspec.structs import replace
            from supervisor.cli import main
            from supervisor.selftest import serve

            real = serve.hello()
            kernel = [replace(w, state={state!r}, detail="not here") if w.name == {wall!r} else w for w in real.kernel]
            serve.hello = lambda: replace(real, kernel=kernel, **{more!r})
            sys.argv[0] = "airssys"
            sys.exit(main())
            """
        )
    )
    command.chmod(0o755)
    return command


def left(place: Path) -> list[str]:
    """Directories of hosts."""
    return [name for name in os.listdir(place) if name.startswith("airssys-")]


@x86_64
def test_the_example_suite(suite: Path) -> None:
    """Every test of examples/attack-suite passes in two processes at once, or names why this machine cannot show it."""
    status, output = run(suite, "-n", "2", str(SUITE))
    assert 0 == status, output
    numbers = counted(output)
    assert {"passed", "skipped"} >= numbers.keys()
    assert numbers["passed"] >= 55
    skipped = re.findall(r"^SKIPPED \[\d+\] .*", output, re.MULTILINE)
    assert all(": airssys: " in line for line in skipped), skipped
    if skipped:
        assert f"airssys: {numbers['skipped']} attack" in output
    assert [] == left(suite)


@x86_64
def test_what_a_fixture_gives(suite: Path) -> None:
    """A host of its own configuration, a signed component, outcome, logs, audit; a failed assertion says what ran."""
    status, output = run(
        suite,
        write(
            suite,
            f"""
            import os, pytest
            from airssys.testing import HostError, Program

            def test_worker(airssys_worker, tmp_path):
                worker = airssys_worker({str(CHECKOUT / "examples" / "logclean" / "redactor")!r},
                                        binds={{"/out": str(tmp_path)}})
                assert b"lines" in worker.ask("report", content_type="text/plain")
                worker.send("report", content_type="text/plain")
                assert os.path.exists(f"/proc/{{worker.pid}}")
                assert worker.outcome == "" and worker.logs() == []
                assert "worker.started" in [record["event"] for record in worker.audit()]
                worker.stop()
                assert (worker.pid, worker.outcome) == (0, "exited")
                with pytest.raises(HostError, match="E_NOT_RUNNING|E_STATE|not running"):
                    worker.ask("report")

            def test_another_host(airssys_new_host, airssys_host, hostile_worker):
                with airssys_new_host('[workers]\\nspawn = "exec"\\n') as host:
                    assert host.root != airssys_host.root
                    assert host.status()["host"]["spawn"] == "exec"
                    worker = hostile_worker(host=host)
                    program = Program()
                    program.step("thread")
                    assert worker.run(program).assert_answered().value() > 0
                    assert host.cli("status", "--output", "json").stdout
                    with pytest.raises(HostError, match="E_COMMAND"):
                        host.cli("install", "/nonexistent")
                assert not os.path.exists(host.root)
                assert airssys_host.status()["host"]["state"] == "ready"

            def test_that_fails(hostile_worker):
                program = Program()
                program.syscall("munmap", 1, 4096)
                hostile_worker().run(program).assert_stopped_by("policy")

            def test_whose_control_fails(hostile_worker):
                program = Program()
                program.syscall("munmap", 1, 4096)
                hostile_worker().assert_works_without(program)
            """,
        ),
    )
    assert (1, {"passed": 2, "failed": 2}) == (status, counted(output)), output
    assert "not stopped by policy, in a worker: answered; munmap = EINVAL" in output
    assert "the control does not show the attack, in a process without the cage: answered; munmap = EINVAL" in output
    assert [] == left(suite)


def test_what_cannot_be_shown_is_counted(suite: Path) -> None:
    """A machine without native code, root or a wall skips tests by name and reason, and the summary counts them."""
    command = lesser(suite, "mdwe", "lost", native="not covered on aarch64", root=False)
    path = write(
        suite,
        """
        import pytest
        from airssys.testing import cannot_show

        def test_native(hostile_worker): ...

        @pytest.mark.airssys_needs("root")
        def test_root(): ...

        @pytest.mark.airssys_needs("seccomp", "mdwe")
        def test_wall(): ...

        def test_own():
            cannot_show("no virtual console here")

        @pytest.mark.airssys_needs("namespaces")
        def test_host(airssys_host):
            assert airssys_host.status()["host"]["state"] == "ready"
        """,
    )
    status, output = run(suite, "--airssys-command", command, path)
    assert (0, {"passed": 1, "skipped": 4}) == (status, counted(output)), output
    assert "airssys: 4 attacks could not be shown here:" in output
    for reason in ("not covered on aarch64", "needs root", "needs mdwe: not here", "no virtual console here"):
        assert f"  1  {reason}\n" in output


def test_a_missing_wall(suite: Path) -> None:
    """Where a wall is missing that the profile insists on, no host is started; `degraded` agrees to lose it."""
    command = lesser(suite, "mseal", "missing")
    path = write(
        suite,
        """
        import os

        def test_host(airssys_host):
            with open(os.path.join(airssys_host.root, "etc", "airssys.toml")) as file:
                assert 'accept-lost = ["mseal"]' in file.read()
            assert airssys_host.status()["host"]["profile"] == "degraded"
        """,
    )
    status, output = run(suite, "--airssys-command", command, path)
    assert (0, {"skipped": 1}) == (status, counted(output)), output
    assert "  1  this machine lacks a wall, mseal: not here\n" in output
    status, output = run(suite, "--airssys-command", command, "--airssys-profile", "degraded", path)
    assert (0, {"passed": 1}) == (status, counted(output)), output


def test_files_are_kept(suite: Path) -> None:
    """--airssys-keep leaves a host's files and says where, also from a process of xdist; the host itself is gone."""
    path = write(suite, "def test_host(airssys_host):\n    airssys_host.status()\n")
    status, output = run(suite, "--airssys-keep", "-n", "1", path)
    assert 0 == status, output
    (base,) = left(suite)
    assert f"airssys: a host's files are in {suite / base}" in output
    assert "airssys.toml" in os.listdir(suite / base / "root" / "etc")
    with pytest.raises(UnreachableError):
        Client(str(suite / base / "root" / "run" / "api.sock"))


def test_no_command(suite: Path) -> None:
    """Without the command a test says so."""
    path = write(suite, "def test_host(airssys_host): ...\n")
    status, output = run(suite, "--airssys-command", "/nonexistent/airssys", path)
    assert 1 == status
    assert "E_GONE: /nonexistent/airssys cannot be run: No such file or directory" in output


def heeding_interrupts() -> None:
    """A suite that was started in the background by a shell ignores SIGINT, and so would what it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["interrupted", "killed"])
def test_nothing_is_left(suite: Path, how: signal.Signals) -> None:
    """However the tests end, their host ends with them, and its files are removed."""
    path = write(
        suite,
        """
        import time

        def test_host(airssys_host):
            print(airssys_host.processes()["supervisor"], flush=True)
            while True:  # a signal between here and signal.pause() would be slept through
                time.sleep(0.1)
        """,
    )
    with subprocess.Popen(
        [sys.executable, "-m", "pytest", *QUIET, "-s", path],
        env=environment(suite),
        cwd=suite,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=heeding_interrupts,
    ) as process:
        assert process.stdout is not None
        line = next(line for line in process.stdout if line.strip().isdecimal())
        supervisor = os.pidfd_open(int(line))
        try:
            assert 1 == len([name for name in left(suite) if name.startswith("airssys-st-")])
            os.killpg(process.pid, how)  # as a terminal does with Ctrl-C
            poll = select.poll()
            poll.register(supervisor, select.POLLIN)
            assert poll.poll(20_000), "the host lives on"
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            os.close(supervisor)
    wait_until("its files are removed", lambda: not [name for name in left(suite) if name.startswith("airssys-st-")])


def test_a_server_that_was_killed(suite: Path) -> None:
    """When the server is gone, the test that asks hears so, and the host it left behind is ended by another way."""
    path = write(
        suite,
        """
        import os, signal, pytest
        from airssys.testing import HostError

        def test_host(airssys_host):
            with open("supervisor", "w") as file:
                file.write(str(airssys_host.processes()["supervisor"]))
            airssys_host.link._process.kill()
            with pytest.raises(HostError, match="E_GONE"):
                airssys_host.status()
        """,
    )
    status, output = run(suite, path)
    assert (0, {"passed": 1}) == (status, counted(output)), output
    supervisor = Path("/proc") / (suite / "supervisor").read_text()
    wait_until("the supervisor's parent has heard of its end", lambda: not supervisor.exists())
    assert [] == left(suite)


def test_it_costs_nothing_unused(short_place: Path) -> None:
    """Loading the plugin imports nothing but pytest, and starts no process."""
    program = (
        "import sys, pytest, shlex; before = set(sys.modules); import airssys.pytest_plugin;"
        "print(sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=short_place)
    assert "['airssys', 'airssys.pytest_plugin']" == done.stdout.strip()
    path = write(short_place, "import sys\ndef test_nothing():\n    assert 'airssys.testing' not in sys.modules\n")
    status, output = run(short_place, path)
    assert 0 == status, output
