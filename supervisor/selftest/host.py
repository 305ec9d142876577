"""A throw-away host whose workers do what the self-test wants.

    with HostileHost() as host:
        worker = host.worker("one")
        result = worker.run(program)

The host is started as `airssys up` starts it, under a root of its own that is removed in the end. Publisher key, trust,
signature, installation, compilation and start are the production way; the one thing done from outside is that the
compiled guest in the host's cache is replaced (`supervisor.selftest.patch`). After a program that ended its worker the
host starts another by itself; the next program waits for it in the component's mailbox.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from importlib import resources
from types import TracebackType
from typing import Any, Self

from sandbox.kernel import cgroups, libc
from supervisor.cli.client import Client
from supervisor.cli.errors import RefusedError, UnreachableError
from supervisor.cli.packages import parts_of
from supervisor.control.cache import entry_parts
from supervisor.packages import envelope, keys
from supervisor.packages.package import read_package
from supervisor.parent.launch import group_name
from supervisor.selftest import patch
from supervisor.selftest.errors import SelftestError
from supervisor.selftest.native import ANSWERED, Result
from supervisor.selftest.program import Program, unpack

PUBLISHER = "selftest"
_ENDED = re.compile(r"the worker ended: ([a-z-]+)(?:: (.*))?", re.DOTALL)
READY_SECONDS = 30.0
GONE_SECONDS = 10.0


class ThrowAwayHost:
    """A context manager: a running host with nothing installed, on any processor.

    Args:
        configuration: text of `airssys.toml`.
        before: put in front of the command that starts it.

    Raises:
        SelftestError: the host does not start; the message says why.
    """

    def __init__(self, *, configuration: str = "", before: Sequence[str] = ()) -> None:
        self._configuration = configuration
        self._before = before
        self.canary = os.urandom(16).hex()
        """A secret in the environment of who starts the host; no worker may know it."""
        self.base = ""
        """The directory that holds everything; removed in the end."""

    # -- from start to end ----------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        # Reached by the host's own uids, and short: a socket's path has 107 bytes.
        self.base = tempfile.mkdtemp(prefix="airssys-st-")
        os.chmod(self.base, 0o755)  # noqa: S103
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def root(self) -> str:
        """The host's AIRSSYS_ROOT."""
        return os.path.join(self.base, "root")

    @property
    def socket(self) -> str:
        """The host's API."""
        return os.path.join(self.root, "run", "api.sock")

    def _start(self) -> None:
        os.mkdir(self.root)
        if self._configuration:
            os.mkdir(os.path.join(self.root, "etc"))
            with open(os.path.join(self.root, "etc", "airssys.toml"), "w", encoding="utf-8") as file:
                file.write(self._configuration)
        done = subprocess.run(
            [*self._before, sys.executable, "-m", "supervisor.cli", "up", "--detach"],
            env={
                "PATH": os.environ.get("PATH", os.defpath),
                "AIRSSYS_ROOT": self.root,
                "AIRSSYS_SELFTEST": self.canary,
            },
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise SelftestError("the throw-away host does not start", subject=done.stderr.strip()[:2000])
        key = keys.generate(os.path.join(self.base, "key"))
        with self.client() as client:
            client.post(
                "/v1/trust",
                {
                    "name": PUBLISHER,
                    "keys": [key.pem().decode()],
                    "scopes": ["selftest/*"],
                    "level": "trusted",
                    "threshold": 1,
                },
            )

    def close(self, *, keep: bool = False) -> None:
        """Stop the host, whatever state it is in, and remove everything of it (with `keep`: leave its files)."""
        pidfd = self._supervisor()
        if pidfd is not None:
            try:
                with contextlib.suppress(UnreachableError, RefusedError), self.client() as client:
                    client.post("/v1/host/down")
                poll = select.poll()
                poll.register(pidfd, select.POLLIN)
                if not poll.poll(GONE_SECONDS * 1000):
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                    poll.poll(GONE_SECONDS * 1000)
            finally:
                os.close(pidfd)
        if os.geteuid() == 0:
            # A host that was killed leaves its control groups; no other start would take them for its own.
            cgroups.clear(group_name(os.path.join(self.root, "lib")))
        if not keep:
            shutil.rmtree(self.base, ignore_errors=True)

    def _supervisor(self) -> int | None:
        try:
            with open(os.path.join(self.root, "run", "host.lock"), encoding="ascii") as file:
                pid = int(file.read().strip() or "0")
            pidfd = os.pidfd_open(pid) if pid > 0 else None
            with open(f"/proc/{pid}/comm", encoding="ascii", errors="replace") as file:
                return pidfd if file.read().strip() == "airssys-host" else None
        except (OSError, ValueError):
            return None

    # -- what it says ---------------------------------------------------------------------------------------------

    def client(self) -> Client:
        """A client of its API; a context manager."""
        return Client(self.socket)

    def status(self) -> dict[str, Any]:
        """As `airssys status --output json`."""
        with self.client() as client:
            return dict(client.get("/v1/status"))

    def pids(self) -> dict[str, int]:
        """Name and pid of the host's own processes."""
        return {process["name"]: process["pid"] for process in self.status()["host"]["processes"]}

    def log(self) -> str:
        """The host's own log."""
        try:
            with open(os.path.join(self.root, "run", "host.log"), encoding="utf-8", errors="replace") as file:
                return file.read()
        except FileNotFoundError:
            return ""


class HostileHost(ThrowAwayHost):
    """One in whose workers native code runs.

    Args:
        configuration, before: see `ThrowAwayHost`.
        extra: machine code of one's own, callable by `Program.step_at(machine.END, ...)`, in workers that bring none.

    Raises:
        SelftestError: not on this processor, or the host does not start; the message says why.
    """

    def __init__(self, *, configuration: str = "", extra: bytes = b"", before: Sequence[str] = ()) -> None:
        if libc.MACHINE != "x86_64":
            raise SelftestError(f"not covered on {libc.MACHINE}", hint="the attacks are x86-64 machine code")
        super().__init__(configuration=configuration, before=before)
        self._extra = extra
        self._lock = threading.Lock()
        self._patched: set[str] = set()
        """Entries of the cache that hold our machine code."""
        self._packages: dict[str, tuple[dict[str, str], bytes]] = {}
        """Name to what makes a component: values of the manifest, digest."""

    def worker(
        self,
        name: str = "hostile",
        *,
        instance: str = "0",
        values: dict[str, str] | None = None,
        binds: dict[str, str] | None = None,
        extra: bytes = b"",
    ) -> HostileWorker:
        """Install the hostile guest under a name of its own and start it.

        Args:
            name: the component is selftest/`name`.
            instance: which of its instances; several share one package.
            values: other values of the manifest, TOML as it stands behind `key = ` on one line; "filesystem" may be
                new. As `{"memory": '"16MiB"'}`.
            binds: guest directory to a real one, for the capability `filesystem`.
            extra: machine code of its own instead of the host's. All instances of a component have the same.

        Raises:
            SelftestError: it does not run, or the machine code does not fit.
            RefusedError, UnreachableError: the host refuses it, or is gone.
        """
        component = f"selftest/{name}"
        with self._lock, self.client() as client:
            plan = client.upload(parts_of(read_package(self.package(name, values or {}, guest(extra)))))
            body = {
                "plan": plan["plan"],
                "bindings": binds or {},
                "instance": instance,
                "consent": True,
                "start": False,
            }
            client.post("/v1/install", body, timeout=60.0)
            self._patch(extra)
            status = client.post(f"/v1/components/{component}/{instance}/start", timeout=60.0)
        if status["state"] != "running":
            raise SelftestError(
                f"the hostile worker is {status['state']}: {status['detail']}", subject=f"{component}/{instance}"
            )
        return HostileWorker(self, f"{component}/{instance}", status["pid"])

    def package(self, name: str, values: dict[str, str], wasm: bytes) -> str:
        """A signed package of the hostile guest's manifest with other values and this component; its directory."""
        directory = os.path.join(self.base, "packages", name)
        about = (values, hashlib.sha256(wasm).digest())
        if self._packages.setdefault(name, about) != about:
            raise SelftestError("another component has this name already", subject=name)
        if os.path.exists(directory):
            return directory
        os.makedirs(directory)
        with open(os.path.join(directory, "component.wasm"), "wb") as file:
            file.write(wasm)
        text = (_GUEST / "component.toml").read_text(encoding="utf-8")
        with open(os.path.join(directory, "component.toml"), "w", encoding="utf-8") as file:
            file.write(manifest(text, {"name": f'"selftest/{name}"', **values}))
        envelope.sign(directory, keys.load_private(os.path.join(self.base, "key")))
        return directory

    def cache_entry(self, extra: bytes = b"") -> str:
        """The cache's file for the guest (that which holds this machine code)."""
        prefix = hashlib.sha256(guest(extra)).hexdigest()
        directory = os.path.join(self.root, "lib", "control", "cache")
        found = [entry for entry in os.listdir(directory) if entry.startswith(prefix) and entry.endswith(".cwasm")]
        if len(found) != 1:
            raise SelftestError("the compiled guest is not in the cache", subject=directory)
        return os.path.join(directory, found[0])

    def cache_key(self) -> bytes:
        """The MAC key of the host's cache."""
        with open(os.path.join(self.root, "lib", "control", "cache.key"), "rb") as file:
            return file.read()

    def _patch(self, extra: bytes) -> None:
        path = self.cache_entry(extra)
        if path not in self._patched:
            patch.replace(path, self.cache_key(), lambda cwasm: patch.patched(cwasm, extra or self._extra))
            self._patched.add(path)

    def code_offset(self) -> int:
        """Where in a page the attack's code begins, in every worker."""
        with open(self.cache_entry(), "rb") as file:
            *_, cwasm = entry_parts(file.read())
        return patch.place(cwasm)[0] % 4096


_GUEST = resources.files("supervisor.selftest") / "guest"
_SECTION = b"airssys-selftest"


def guest(extra: bytes = b"") -> bytes:
    """The hostile guest. With machine code of its own it is another component, so that the cache holds it apart.

    They differ in a custom section, which means nothing to any engine (WebAssembly core specification, 5.5.3).
    """
    wasm = (_GUEST / "component.wasm").read_bytes()
    if not extra:
        return wasm
    body = bytes([len(_SECTION)]) + _SECTION + hashlib.sha256(extra).digest()
    assert len(body) < 128  # one byte of LEB128
    return wasm + bytes([0, len(body)]) + body


def manifest(text: str, values: dict[str, str]) -> str:
    """The manifest with other values; a key it does not have is a capability."""
    for key, value in values.items():
        text, found = re.subn(rf"(?m)^{re.escape(key)} = .*$", lambda _, k=key, v=value: f"{k} = {v}", text)  # type: ignore[misc]
        if not found:
            text = text.replace("[capabilities]\n", f"[capabilities]\n{key} = {value}\n")
    return text


class HostileWorker:
    """One component of a `HostileHost`; threads may each use one of their own.

    Attributes:
        component: its name, `selftest/NAME/INSTANCE`.
        pid: the process that ran the last program, as far as known.
    """

    def __init__(self, host: HostileHost, component: str, pid: int) -> None:
        self.host = host
        self.component = component
        self.pid = pid
        self._client = host.client()

    def run(self, program: Program, *, seconds: float = 20.0) -> Result:
        """Run a program in the worker. If the worker ends, the host starts the next one by itself.

        Raises:
            RefusedError: the host could not deliver it.
            UnreachableError: the host is gone.
            SelftestError: the guest did not understand it.
        """
        return self.send(program.pack(), seconds=seconds)

    def send(self, message: bytes, *, seconds: float = 20.0) -> Result:
        """`run` with a packed program."""
        try:
            reply = self._client.message(self.component, "request", message, int(seconds * 1000), "")
        except RefusedError as error:
            if error.code == "E_GUEST_ERROR":
                raise SelftestError("the guest refused the program", subject=error.message) from error
            if error.code == "E_TIMEOUT":
                return Result("deadline", error.message)
            ended = _ENDED.search(error.message)
            if error.code != "E_TARGET_ENDED" or ended is None:
                raise
            return Result(ended[1], ended[2] or "")
        return Result(ANSWERED, answer=unpack(reply))

    def living(self, *, after: int = 0, seconds: float = READY_SECONDS) -> int:
        """Wait until a worker of the component runs; its pid.

        Args:
            after: the pid of one that has ended; control hears of that a little later than who sent it a message.
            seconds: longest wait.

        Raises:
            SelftestError: none comes up.
        """
        end = time.monotonic() + seconds
        while True:
            status = self._client.get(f"/v1/components/{self.component}")["status"]
            if status["state"] == "running" and status["pid"] not in (None, after):
                self.pid = int(status["pid"])
                return self.pid
            if time.monotonic() > end:
                raise SelftestError(f"the component is {status['state']}: {status['detail']}", subject=self.component)
            time.sleep(0.005)

    def close(self) -> None:
        """Close the connection to the host; the component stays."""
        self._client.__exit__(None, None, None)
