"""The plugin for pytest: hosts, workers and hostile workers as fixtures, for attack suites against the cage.

Loaded by its entry point wherever `airssys` is installed; described in docs/guide/attack-suites.md and
docs/reference/fixtures.md. It imports what it needs when a fixture is used, and starts nothing before that. Each
process of pytest-xdist has hosts of its own, with roots, sockets, keys and uids of their own.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import os

    from airssys.testing import Host, HostileWorker, Publisher, Worker
    from airssys.testing.link import Link

PROFILES = ("paranoid", "standard", "degraded")
_CANNOT = "airssys: "  # airssys.testing.result.CANNOT, without importing it


# -- options and marks ------------------------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options."""
    group = parser.getgroup("airssys", "attack suites against airssys")
    group.addoption(
        "--airssys-command",
        metavar="COMMAND",
        default="",
        help="What stands for `airssys`; found beside the interpreter or on PATH by default.",
    )
    group.addoption(
        "--airssys-profile",
        choices=PROFILES,
        default="paranoid",
        help="Profile of the hosts. Under `degraded` they run without the walls this machine lacks.",
    )
    group.addoption(
        "--airssys-keep", action="store_true", help="Leave the hosts' files behind, and say where they are."
    )


def pytest_configure(config: pytest.Config) -> None:
    """The mark."""
    config.addinivalue_line(
        "markers", 'airssys_needs(*names): skip unless root ("root") or these walls of `airssys doctor` are here'
    )
    config.stash[_SESSION] = _Session(config)


def pytest_unconfigure(config: pytest.Config) -> None:
    """End what a session that broke off has left."""
    session = config.stash.get(_SESSION, None)
    if session is not None:
        session.close()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose needs this machine does not meet, by name and reason."""
    for mark in item.iter_markers("airssys_needs"):
        lacking = item.config.stash[_SESSION].lacking(mark.args)
        if lacking:
            pytest.skip(_CANNOT + lacking)


# -- one for each process that runs tests -----------------------------------------------------------------------------


class _Session:
    """What the fixtures share: the command, the server of the controls, every host."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._controls: Link | None = None
        self._hosts: list[Host] = []
        self.kept: list[str] = []

    @property
    def command(self) -> list[str]:
        return shlex.split(self._config.getoption("--airssys-command"))

    def controls(self) -> Link:
        """The server of the controls, which also knows this machine."""
        if self._controls is None:
            from airssys.testing.link import Link, find_command

            self._controls = Link(self.command or find_command())
        return self._controls

    def lacking(self, names: tuple[str, ...]) -> str:
        """Why this machine cannot have one of these; "" when it has all."""
        machine = self.controls().hello
        walls = {wall["name"]: wall for wall in machine["kernel"]}
        for name in names:
            if name == "root":
                if not machine["root"]:
                    return "needs root"
            elif name not in walls:
                raise pytest.UsageError(f"airssys_needs: no such wall: {name}; there are root, {', '.join(walls)}")
            elif walls[name]["state"] != "on":
                return f"needs {name}: {walls[name]['detail']}"
        return ""

    def host(self, configuration: str) -> Host:
        """Start a host; skip the test when a wall is missing that its profile insists on."""
        from airssys.testing import Host

        missing = [wall for wall in self.controls().hello["kernel"] if wall["state"] == "missing"]
        profile = self._config.getoption("--airssys-profile")
        lost = [wall["name"] for wall in missing if profile == "degraded" and wall["may-be-lost"]]
        for wall in missing:
            if wall["name"] not in lost:
                pytest.skip(f"{_CANNOT}this machine lacks a wall, {wall['name']}: {wall['detail']}")
        if "[workers]" not in configuration:
            accepted = f"accept-lost = [{', '.join(map(_quoted, lost))}]\n" if profile == "degraded" else ""
            configuration += f'\n[workers]\nprofile = "{profile}"\n{accepted}'
        keep = self._config.getoption("--airssys-keep")
        host = Host(configuration, command=self.command, keep=keep, controls=self.controls)
        self._hosts.append(host)
        if keep:
            self.kept.append(host.base)
        return host

    def close(self) -> None:
        """End every host and server."""
        while self._hosts:
            self._hosts.pop().close()
        if self._controls is not None:
            self._controls.close()
            self._controls = None


_SESSION = pytest.StashKey[_Session]()


def _quoted(text: str) -> str:
    return f'"{text}"'


# -- fixtures ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def airssys_new_host(pytestconfig: pytest.Config) -> Iterator[Callable[..., Host]]:
    """A function that starts a host: `airssys_new_host(configuration="")`.

    `configuration` is the text of `airssys.toml`; without a section [workers] the profile of --airssys-profile is
    added. A host ends with `close`, as a context manager, or with the session. Skips where a wall is missing.
    """
    session = pytestconfig.stash[_SESSION]

    def new(configuration: str = "") -> Host:
        return session.host(configuration)

    yield new
    session.close()


@pytest.fixture(scope="session")
def airssys_host(airssys_new_host: Callable[..., Host]) -> Host:
    """A running `Host`, one for each process that runs tests."""
    return airssys_new_host()


@pytest.fixture(scope="session")
def airssys_publisher(pytestconfig: pytest.Config) -> Iterator[Publisher]:
    """A `Publisher`, who signs packages with keys of the session's own."""
    from airssys.testing import Publisher

    with Publisher(command=pytestconfig.stash[_SESSION].command) as publisher:
        yield publisher


@pytest.fixture
def airssys_worker(airssys_host: Host, airssys_publisher: Publisher) -> Iterator[Callable[..., Worker]]:
    """A function that signs and installs a package and starts it: `airssys_worker(directory, ...)`, a `Worker`.

    It takes what `Host.install` takes, and `host` for another one. Each is removed after the test.
    """
    made: list[Worker] = []

    def new(directory: str | os.PathLike[str], *, host: Host | None = None, **more: Any) -> Worker:
        worker = (host or airssys_host).install(directory, publisher=airssys_publisher, **more)
        made.append(worker)
        return worker

    yield new
    _remove(made)


@pytest.fixture
def hostile_worker(pytestconfig: pytest.Config, airssys_host: Host) -> Iterator[Callable[..., HostileWorker]]:
    """A function that starts a sealed worker in which native code of the test runs: a `HostileWorker`.

    It takes what `Host.hostile` takes, and `host` for another one. Each is removed after the test. Skips on processors
    whose machine code is not covered.
    """
    why = pytestconfig.stash[_SESSION].controls().hello["native"]
    if why:
        pytest.skip(_CANNOT + why)
    made: list[HostileWorker] = []

    def new(name: str = "", *, host: Host | None = None, **more: Any) -> HostileWorker:
        worker = (host or airssys_host).hostile(name, **more)
        made.append(worker)
        return worker

    yield new
    _remove(made)


def _remove(workers: list[Any]) -> None:
    from airssys.testing import HostError

    for worker in workers:
        try:
            worker.remove()
        except HostError as error:
            # Of a host that was ended on purpose nothing is left; what a test removed itself is gone, too.
            if error.code not in ("E_GONE", "E_NOT_FOUND", "E_UNREACHABLE"):
                raise


# -- what is said in the end ------------------------------------------------------------------------------------------


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Tell the process that reports where files were left."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["airssys_kept"] = session.config.stash[_SESSION].kept


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:  # noqa: ARG001 - the hook's signature
    """Take it from a process of pytest-xdist."""
    output = getattr(node, "workeroutput", None) or {}
    node.config.stash[_SESSION].kept.extend(output.get("airssys_kept", []))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say what could not be shown, and where files were left."""
    reasons: Counter[str] = Counter()
    for report in terminalreporter.stats.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
        _, found, why = reason.partition(f"Skipped: {_CANNOT}")
        if found:
            reasons[why] += 1
    if reasons:
        total = sum(reasons.values())
        terminalreporter.section("airssys")
        terminalreporter.line(f"airssys: {total} attack{'s' * (total > 1)} could not be shown here:")
        for why, count in sorted(reasons.items()):
            terminalreporter.line(f"  {count}  {why}")
    for base in config.stash[_SESSION].kept:
        terminalreporter.line(f"airssys: a host's files are in {base}")
