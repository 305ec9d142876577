"""Hosts, publishers and workers, as an operator has them: keys, signatures, trust and installation are real."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import tempfile
import time
import tomllib
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from airssys.testing.link import HostError, Link, find_command

if TYPE_CHECKING:
    from airssys.testing.hostile import HostileWorker

CLI_SECONDS = 300.0
"""Longest run of one `airssys` command; a first compilation is among them."""


class Host:
    """A running throw-away host: a root, keys, sockets and uids of its own. A context manager.

    Args:
        configuration: text of `airssys.toml`.
        command: what stands for `airssys`; found by itself when not given.
        keep: leave its files behind when it ends.
        controls: gives the server that runs controls; shared among hosts.

    Attributes:
        base: the directory that holds everything of it.
        root: its AIRSSYS_ROOT.
        socket: its API's socket.
        machine: what its server says of this machine (`Hello` of the protocol).

    Raises:
        HostError: it does not start; the message says why.
    """

    def __init__(
        self,
        configuration: str = "",
        *,
        command: Sequence[str] = (),
        keep: bool = False,
        controls: Callable[[], Link] | None = None,
    ) -> None:
        self.command = list(command) or find_command()
        self.keep = keep
        self.base = self.root = self.socket = ""
        self._own_controls: Link | None = None
        self._shared_controls = controls
        self._names = 0
        self._trusted: set[str] = set()
        self.link = Link(self.command)
        self.machine = self.link.hello
        try:
            up = self.link.ask("up", configuration=configuration, within=60.0)
        except BaseException:
            self.link.close()
            raise
        self.base, self.root, self.socket = up["base"], up["root"], up["socket"]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop it and remove everything of it (with `keep`: leave its files). Does nothing the second time."""
        if self._own_controls is not None:
            self._own_controls.close()
            self._own_controls = None
        if not self.base:
            return
        base, self.base = self.base, ""
        try:
            self.link.ask("down", keep=self.keep)
        except (HostError, TimeoutError):
            self.cli("down", check=False)  # the server is gone, and left its host behind
        self.link.close()
        if not self.keep:
            shutil.rmtree(base, ignore_errors=True)

    @property
    def controls(self) -> Link:
        """The server that runs controls."""
        if self._shared_controls is not None:
            return self._shared_controls()
        if self._own_controls is None:
            self._own_controls = Link(self.command)
        return self._own_controls

    # -- the command line -----------------------------------------------------------------------------------------

    def cli(self, *arguments: str, check: bool = True, data: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
        """Run a command of `airssys` against this host.

        Args:
            check: raise when it fails.
            data: its standard input.

        Raises:
            HostError: E_COMMAND; the message is what it said.
        """
        return _run(self.command, arguments, {"AIRSSYS_ROOT": self.root}, check=check, data=data)

    # -- what it says ---------------------------------------------------------------------------------------------

    def api(self, method: str, path: str, body: Any = None, **query: str | int | bool) -> Any:
        """One call of the API, docs/reference/api.md; the answer's JSON. Raises HostError."""
        return self.link.ask("api", method=method, path=path, body=body, query=query, within=60.0)

    def status(self) -> dict[str, Any]:
        """As `airssys status --output json`."""
        return dict(self.api("GET", "/v1/status"))

    def processes(self) -> dict[str, int]:
        """Name and pid of the host's own processes."""
        return {process["name"]: process["pid"] for process in self.status()["host"]["processes"]}

    def walls_lost(self) -> dict[str, str]:
        """Walls it runs without, with the reasons."""
        return dict(self.status()["host"]["walls-lost"])

    def audit(
        self, component: str = "", *, after: int = -1, limit: int = 1000, denied: bool = False
    ) -> list[dict[str, Any]]:
        """Audit records, oldest first.

        Args:
            component: only of this one (`acme/reader/0`).
            after: only with a greater number; -1 for the newest ones.
            limit: how many at most, up to 1000.
            denied: only denials.
        """
        query = {"component": component, "after": after, "limit": limit, "denied": denied}
        return list(self.link.ask("lines", path="/v1/audit", query=query))

    def logs(self, component: str = "", *, limit: int = 1000) -> list[dict[str, Any]]:
        """What components logged, oldest first."""
        return list(self.link.ask("lines", path="/v1/logs", query={"component": component, "limit": limit}))

    def log(self) -> str:
        """The host's own log."""
        try:
            with open(os.path.join(self.root, "run", "host.log"), encoding="utf-8", errors="replace") as file:
                return file.read()
        except FileNotFoundError:
            return ""

    # -- components -----------------------------------------------------------------------------------------------

    def trust(self, name: str, public_key: str, *scopes: str, level: str = "trusted") -> None:
        """Believe a publisher (`airssys trust add`). Raises HostError."""
        wanted = [part for scope in scopes for part in ("--scope", scope)]
        self.cli("trust", "add", name, "--key", public_key, *wanted, "--level", level)

    def install(
        self,
        directory: str | os.PathLike[str],
        *,
        publisher: Publisher | None = None,
        instance: str = "0",
        binds: dict[str, str] | None = None,
        env: dict[str, str] | None = None,
        args: Sequence[str] = (),
    ) -> Worker:
        """Install a package and start it.

        Args:
            directory: holds component.wasm and component.toml, and the signature unless `publisher` is given.
            publisher: signs a copy first, and is believed by this host.
            instance: name of the instance.
            binds: guest directory to a real one.
            env: environment variables of the component.
            args: its arguments.

        Raises:
            HostError: the host refuses it; the message says why.
        """
        directory = os.fspath(directory)
        name = package_name(directory)
        if publisher is not None:
            namespace = name.partition("/")[0]
            directory = publisher.sign(directory)
            if namespace not in self._trusted:
                self.trust(f"suite-{namespace}", publisher.public_key(namespace), f"{namespace}/*")
                self._trusted.add(namespace)
        options = [part for guest, real in (binds or {}).items() for part in ("--bind", f"{guest}={real}")]
        options += [part for key, value in (env or {}).items() for part in ("--env", f"{key}={value}")]
        options += [part for argument in args for part in ("--arg", argument)]
        self.cli("install", directory, "--yes", "--instance", instance, *options)
        return Worker(self, f"{name}/{instance}")

    def hostile(
        self,
        name: str = "",
        *,
        instance: str = "0",
        code: bytes = b"",
        manifest: dict[str, str] | None = None,
        binds: dict[str, str] | None = None,
    ) -> HostileWorker:
        """Start a worker in which programs of the test run as native code. It is as sealed as every other.

        Args:
            name: the component is `selftest/NAME`; one of its own by default.
            instance: several share a package.
            code: machine code (x86-64) of one's own, called by `Program.own`; see the guide for what it finds where.
            manifest: other values of its manifest, as TOML writes them: `{"memory": '"16MiB"'}`.
            binds: guest directory to a real one, for a capability `filesystem`.

        Raises:
            HostError: the host refuses it, or no native code runs on this machine.
        """
        from airssys.testing.hostile import HostileWorker

        if not name:
            self._names += 1
            name = f"worker-{self._names}"
        answer = self.link.ask(
            "hostile",
            name=name,
            instance=instance,
            code=code,
            values=manifest or {},
            binds=binds or {},
            within=120.0,
        )
        return HostileWorker(self, answer["component"], code)


class Worker:
    """A component of a host.

    Attributes:
        id: as `acme/reader/0`.
    """

    def __init__(self, host: Host, component: str) -> None:
        self.host = host
        self.id = component

    def ask(self, data: bytes | str = b"", *, content_type: str = "", seconds: float = 10.0) -> bytes:
        """Send a message as a client of the host and wait for the reply.

        Raises:
            HostError: no reply; `code` says why: `E_TARGET_ENDED`, `E_TIMEOUT`, `E_GUEST_ERROR`, ...
        """
        return self._message("request", data, content_type, seconds)

    def send(self, data: bytes | str = b"", *, content_type: str = "") -> None:
        """Put a message into its mailbox. Raises HostError."""
        self._message("send", data, content_type, 10.0)

    def _message(self, kind: str, data: bytes | str, content_type: str, seconds: float) -> bytes:
        payload = data.encode() if isinstance(data, str) else data
        answer = self.host.link.ask(
            "message",
            target=self.id,
            kind=kind,
            payload=payload,
            content_type=content_type,
            seconds=seconds,
            within=seconds,
        )
        return base64.b64decode(answer["reply"])

    def status(self) -> dict[str, Any]:
        """Its line of `airssys status --output json`."""
        return dict(self.host.api("GET", f"/v1/components/{self.id}")["status"])

    @property
    def pid(self) -> int:
        """The process it runs in now; 0 when none does."""
        return int(self.status()["pid"] or 0)

    @property
    def outcome(self) -> str:
        """How its last worker ended; "" when none has."""
        return str(self.status()["outcome"] or "")

    def logs(self) -> list[dict[str, Any]]:
        """What it logged, oldest first."""
        return self.host.logs(self.id)

    def audit(self, *, after: int = -1, denied: bool = False) -> list[dict[str, Any]]:
        """Its audit records, oldest first."""
        return self.host.audit(self.id, after=after, denied=denied)

    def wait(self, condition: Callable[[dict[str, Any]], bool], *, seconds: float = 20.0) -> dict[str, Any]:
        """Wait until its status is as the condition wants it. Raises TimeoutError with the last status."""
        end = time.monotonic() + seconds
        while not condition(status := self.status()):
            if time.monotonic() > end:
                raise TimeoutError(f"{self.id} after {seconds} s: {status}")
            time.sleep(0.01)
        return status

    def stop(self) -> None:
        """Stop it. Raises HostError."""
        self.host.api("POST", f"/v1/components/{self.id}/stop")

    def start(self) -> None:
        """Start it again. Raises HostError."""
        self.host.api("POST", f"/v1/components/{self.id}/start")

    def remove(self) -> None:
        """Uninstall it and forget what it stored. Raises HostError."""
        self.host.api("DELETE", f"/v1/components/{self.id}", purge=True)


class Publisher:
    """Signs packages, with a key of its own for each namespace. A context manager.

    Args:
        command: what stands for `airssys`; found by itself when not given.
    """

    def __init__(self, *, command: Sequence[str] = ()) -> None:
        self.command = list(command) or find_command()
        self._directory = tempfile.mkdtemp(prefix="airssys-publisher-")
        self._copies = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove keys and signed copies."""
        shutil.rmtree(self._directory, ignore_errors=True)

    def key(self, namespace: str) -> str:
        """File of the private key for a namespace; made when first asked for. Raises HostError."""
        path = os.path.join(self._directory, f"{namespace}.key")
        if not os.path.exists(path):
            _run(self.command, ("keygen", "--out", path), {})
        return path

    def public_key(self, namespace: str) -> str:
        """File of the public key for a namespace, for `Host.trust`. Raises HostError."""
        return f"{self.key(namespace)}.pub"

    def sign(self, directory: str | os.PathLike[str]) -> str:
        """Sign a copy of a package (component.wasm and component.toml); the copy's directory.

        Raises:
            HostError: the manifest is not acceptable.
            OSError: there is no such package.
        """
        self._copies += 1
        copy = os.path.join(self._directory, str(self._copies))
        os.mkdir(copy)
        for name in ("component.wasm", "component.toml"):
            shutil.copyfile(os.path.join(directory, name), os.path.join(copy, name))
        _run(self.command, ("sign", copy, "--key", self.key(package_name(copy).partition("/")[0])), {})
        return copy


def package_name(directory: str | os.PathLike[str]) -> str:
    """The name in a package's manifest (`acme/reader`). Raises HostError, OSError."""
    with open(os.path.join(directory, "component.toml"), "rb") as file:
        try:
            return str(tomllib.load(file)["component"]["name"])
        except (tomllib.TOMLDecodeError, KeyError, TypeError) as error:
            raise HostError("E_MANIFEST", f"the manifest names no component: {error}", os.fspath(directory)) from error


def _run(
    command: Sequence[str],
    arguments: Sequence[str],
    environment: dict[str, str],
    *,
    check: bool = True,
    data: bytes | None = None,
) -> subprocess.CompletedProcess[bytes]:
    done = subprocess.run(
        [*command, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        input=data if data is not None else b"",
        check=False,
        timeout=CLI_SECONDS,
    )
    if check and done.returncode:
        said = done.stderr.decode(errors="replace").strip() or f"exit status {done.returncode}"
        raise HostError("E_COMMAND", said, f"airssys {' '.join(arguments)}")
    return done
