"""A whole control process in the test's own loop, between scripted peers.

The supervisor, the router's bus and the auditor are played over the real sockets with the real frames; control is
`supervisor.control.main.serve` itself, and its API is asked over its real Unix socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import zmq
import zmq.asyncio

from sandbox.types import ComponentId
from sandbox.wire import audit_frames, packet, router_frames, supervisor_frames
from sandbox.wire.compile_result import CompileResult, Crossing, pack_header
from supervisor.config import HostConfig, parse_config
from supervisor.control.main import serve
from supervisor.packages import keys
from supervisor.packages.envelope import sign
from supervisor.packages.trust import TrustStore

WASM = b"\0asm\x0d\0\1\0"
MANIFEST = """\
[component]
name = "{name}"
version = "1.0.{release}"
release = {release}
world = "airssys:core/runtime-host@1.0.0"
[limits]
deadline = "300ms"
[supervision]
restart = "{restart}"
max-restarts = {max_restarts}
window = "60s"
backoff = ["10ms", "100ms"]
health-interval = "{health}"
health-threshold = {threshold}
shutdown = "{shutdown}"
[capabilities]
filesystem = [{files}]
"""
FILES = '{ path = "/logs/**", access = ["read", "list"] }'


class Playground:
    """Scripted supervisor, router and auditor around one control."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.state = root / "state" / "control"
        self.state.mkdir(parents=True, exist_ok=True)
        self.config = HostConfig(str(root / "etc"), str(root / "state"), str(root / "run"), start_timeout_ms=2_000)
        self.workers: dict[int, ComponentId] = {}
        self.order: list[ComponentId] = []
        self.log: list[Any] = []
        self.records: list[audit_frames.Record] = []
        self.lines = {"audit": ["{}"], "logs": ['{"message":"hi"}']}
        self.compiles = 0
        self.compile_error: tuple[str, str, str] | None = None
        self.crossing: Callable[[str], Crossing] = lambda path: Crossing()
        """How the compiled component's boundary is crossed, by the path that was asked for."""
        self.compiled_imports = {"airssys:core/types": ["x"]}
        self.compiled_exports = ["run"]
        self.ready = True
        """Whether a started worker becomes ready."""
        self.unready: set[str] = set()
        """Names of components whose workers do not, whatever `ready` says."""
        self.withheld: list[int] | None = None
        """Incarnations whose start the supervisor does not answer, while this is a list; `go_on` ends that."""
        self._answers: list[Callable[[], None]] = []
        self.control_restarts = 0
        """How often the supervisor says it has restarted control."""
        self.obedient = True
        """Whether a worker ends when it is told to."""
        self.start_error: supervisor_frames.Failed | None = None
        self.acknowledge = True
        self.routes: dict[ComponentId, router_frames.Route] = {}
        self.reply: Callable[[router_frames.Submit, bytes], tuple[router_frames.Submitted, bytes]] = (
            lambda submit, payload: (router_frames.Submitted(submit.id, some=True), payload)
        )
        self.peer: bytes | None = None
        self._tasks: list[asyncio.Task[Any]] = []

    def declare(self, supervisors: str) -> None:
        """Have the next control find these `[[supervisor]]` tables."""
        self.config = parse_config(supervisors, self.config)

    # -- life -------------------------------------------------------------------------------------------------

    async def start_peers(self) -> None:
        self.context = zmq.asyncio.Context()
        self.bus_path = str(self.root / "bus")
        self.bus = self.context.socket(zmq.ROUTER)
        self.bus.setsockopt(zmq.LINGER, 0)
        self.bus.bind(f"ipc://{self.bus_path}")
        self._tasks.append(asyncio.create_task(self._play_router()))

    async def start_control(self, fingerprint: str = "engine-1") -> None:
        self.sup, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.auditor, audit = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.api_path = str(self.root / "api.sock")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.api_path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(self.api_path)
        listener.listen(16)
        self.sup.setblocking(False)
        loop = asyncio.get_running_loop()
        loop.add_reader(self.sup.fileno(), self._play_supervisor)
        self.play_auditor(self.auditor)
        self.control = asyncio.create_task(
            serve(
                sup=theirs,
                api_listen=listener,
                bus_path=self.bus_path,
                audit=audit,
                state_dir=str(self.state),
                config=self.config,
                fingerprint=lambda profile, path: f"{fingerprint} {path}",
            )
        )
        self.client = httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=self.api_path), base_url="http://airssys", timeout=20
        )

    async def stop_control(self) -> None:
        await self.client.aclose()
        loop = asyncio.get_running_loop()
        loop.remove_reader(self.sup.fileno())
        self.sup.close()
        await asyncio.wait_for(self.control, 10)
        loop.remove_reader(self.auditor.fileno())
        self.auditor.close()

    async def stop_peers(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.bus.close(0)
        self.context.term()

    # -- the supervisor ---------------------------------------------------------------------------------------

    def tell(self, frame: msgspec.Struct, fds: tuple[int, ...] = ()) -> None:
        # Between two controls there is nobody to tell, and what the old one still asked of the router is answered.
        if self.sup.fileno() >= 0:
            supervisor_frames.send_frame(self.sup, frame, fds)

    def _play_supervisor(self) -> None:
        try:
            body, fds = supervisor_frames.recv_packet(self.sup)
        except BlockingIOError:
            return
        except (EOFError, OSError):
            asyncio.get_running_loop().remove_reader(self.sup.fileno())
            return
        frame = msgspec.msgpack.decode(body, type=supervisor_frames.FromControl)
        self.log.append(frame)
        try:
            self._answer(frame, fds)
        finally:
            supervisor_frames.close_all(fds)

    def _answer(self, frame: Any, fds: list[int]) -> None:
        if isinstance(frame, supervisor_frames.Compile):
            self.compiles += 1
            size = os.fstat(fds[0]).st_size
            wasm = os.pread(fds[0], size, 0)
            cwasm = b"" if self.compile_error else b"native " + wasm
            result = CompileResult(
                self.compiled_imports, self.compiled_exports, self.compile_error, len(cwasm), self.crossing(frame.path)
            )
            os.write(fds[1], pack_header(result) + cwasm)
            self.tell(supervisor_frames.Done(frame.n))
        elif isinstance(frame, supervisor_frames.StartWorker):
            self.cwasm = os.pread(fds[0], 1 << 20, 0)
            if self.start_error is not None:
                self.tell(msgspec.structs.replace(self.start_error, n=frame.n))
                return
            if self.withheld is None:
                self._started(frame)
            else:
                self.withheld.append(frame.incarnation)
                self._answers.append(functools.partial(self._started, frame))
        elif isinstance(frame, supervisor_frames.KillWorker):
            self.tell(supervisor_frames.Done(frame.n))
            self.end(frame.incarnation, frame.outcome)
        elif isinstance(frame, supervisor_frames.Snapshot):
            workers = [
                supervisor_frames.LivingWorker(component, incarnation, os.getpid(), 600_001)
                for incarnation, component in self.workers.items()
            ]
            processes = [
                supervisor_frames.HostProcess("router", 1, 2, 0, True),
                supervisor_frames.HostProcess("control", 1, 2, self.control_restarts, True),
            ]
            walls = {"seccomp": "on", "cgroups": "not delegated"}
            self.tell(supervisor_frames.Living(frame.n, workers, processes, walls, False))
        elif isinstance(frame, supervisor_frames.Measure):
            router = supervisor_frames.Confinement(
                "router", 1, 2, 2, 0, 0, 1 << 40, True, 2, 3, ["mnt"], "own mounts", {"Max open files": 4}, 113, "ABI 7"
            )
            self.tell(supervisor_frames.Measured(frame.n, [router]))
        elif isinstance(frame, supervisor_frames.Drained | supervisor_frames.Up):
            pass
        else:
            self.tell(supervisor_frames.Done(frame.n))
            if isinstance(frame, supervisor_frames.StopHost):
                self.tell(supervisor_frames.Drain(5))

    def _started(self, frame: supervisor_frames.StartWorker) -> None:
        self.workers[frame.incarnation] = frame.component
        self.order.append(frame.component)
        self.tell(supervisor_frames.Started(frame.n, frame.incarnation, os.getpid(), 600_001, 900))
        if self.ready and frame.component.name not in self.unready:
            self.event("ready", frame.incarnation)

    def dead(self, frame: router_frames.Dead) -> tuple[router_frames.DeadLetters, bytes]:
        """One letter, 5."""
        one, two = ComponentId("host", "client", "ann"), ComponentId("acme", "echo")
        letter = router_frames.DeadLetter(5, "expired", one, two, 2.5, 1.5, 3, 0, 1, text="why")
        if frame.action == "list" or (frame.action == "show" and frame.letter == 5):
            return router_frames.DeadLetters(frame.id, [letter], 1), b"abc" if frame.action == "show" else b""
        return router_frames.DeadLetters(frame.id, count=int(frame.letter in (0, 5))), b""

    def go_on(self) -> None:
        """Answer the starts that were withheld, and those to come."""
        self.withheld, answers, self._answers = None, self._answers, []
        for answer in answers:
            answer()

    def end(self, incarnation: int, outcome: str, detail: str = "") -> None:
        component = self.workers.pop(incarnation, None)
        if component is not None:
            self.tell(supervisor_frames.WorkerEnded(component, incarnation, outcome, detail))

    def end_of(self, name: str, outcome: str, detail: str = "") -> None:
        """End the worker of acme/`name` (instance 0 unless told)."""
        component = ComponentId.parse(f"acme/{name}")
        for incarnation in [number for number, each in self.workers.items() if each == component]:
            self.end(incarnation, outcome, detail)

    def end_all(self, outcome: str, detail: str = "") -> None:
        for incarnation in list(self.workers):
            self.end(incarnation, outcome, detail)

    # -- the router -------------------------------------------------------------------------------------------

    def event(self, kind: str, incarnation: int, text: str = "healthy") -> None:
        component = self.workers[incarnation]
        self._emit(router_frames.Event(kind, component, incarnation, text))

    def _emit(self, frame: msgspec.Struct, payload: bytes = b"") -> None:
        assert self.peer is not None
        self._tasks.append(
            asyncio.ensure_future(self.bus.send_multipart([self.peer, msgspec.msgpack.encode(frame), payload]))
        )

    async def _play_router(self) -> None:
        while True:
            self.peer, body, payload = await self.bus.recv_multipart()
            frame = msgspec.msgpack.decode(body, type=router_frames.ToRouter)
            self.log.append(frame)
            if isinstance(frame, router_frames.Route):
                self.routes[frame.component] = frame
            elif isinstance(frame, router_frames.Unroute):
                self.routes.pop(frame.component, None)
            elif isinstance(frame, router_frames.Query):
                attached = {component: number for number, component in self.workers.items()}
                states = [
                    router_frames.RouteState(c, attached.get(c), c in attached, "healthy", 0, 1, 0, 0, False)
                    for c in self.routes
                ]
                self._emit(router_frames.State(frame.id, states))
            elif isinstance(frame, router_frames.Submit):
                self._emit(*self.reply(frame, payload))
            elif isinstance(frame, router_frames.SubmitTopic):
                self._emit(router_frames.Submitted(frame.id, number=3))
            elif isinstance(frame, router_frames.Dead):
                self._emit(*self.dead(frame))
            elif isinstance(frame, router_frames.AskTrace):
                steps = [router_frames.Step("sent", 1.5, "host/client/ann")] if frame.message == "7" else []
                self._emit(router_frames.Trace(frame.id, 7, "c", steps))
            elif isinstance(frame, router_frames.Stop) and self.obedient:
                for incarnation, component in list(self.workers.items()):
                    if component == frame.component:
                        self.end(incarnation, "exited")

    # -- the auditor ------------------------------------------------------------------------------------------

    def play_auditor(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        assembler = packet.Assembler()

        def readable() -> None:
            try:
                data = sock.recv(packet.PACKET)
            except OSError:
                data = b""
            if not data:
                asyncio.get_running_loop().remove_reader(sock.fileno())
                return
            message = assembler.feed(data)
            if message is not None:
                self._audit(sock, *message)

        asyncio.get_running_loop().add_reader(sock.fileno(), readable)

    def _audit(self, sock: socket.socket, kind: int, body: bytes) -> None:
        if kind == audit_frames.RECORD:
            record = msgspec.msgpack.decode(body, type=audit_frames.Record)
            if self.acknowledge:
                self.records.append(record)
                answer = audit_frames.Recorded(record.n, len(self.records))
                packet.send_message(sock, audit_frames.RECORDED, msgspec.msgpack.encode(answer))
        elif kind == audit_frames.READ:
            read = msgspec.msgpack.decode(body, type=audit_frames.Read)
            lines = self.lines[read.stream] if read.after < 7 else []
            result = audit_frames.ReadResult(read.n, lines, 7)
            packet.send_message(sock, audit_frames.READ_RESULT, msgspec.msgpack.encode(result))

    def events(self, event: str) -> list[audit_frames.Record]:
        return [record for record in self.records if record.event == event]

    def asked(self, kind: type[Any]) -> list[Any]:
        return [frame for frame in self.log if isinstance(frame, kind)]

    # -- packages ---------------------------------------------------------------------------------------------

    def trust(self, name: str = "acme", level: str = "trusted") -> None:
        TrustStore(str(self.state / "trust")).add(name, [self.key().public], [f"{name}/*"], level=level)

    def key(self) -> keys.SigningKey:
        path = self.root / "acme.key"
        if not path.exists():
            keys.generate(str(path))
        return keys.load_private(str(path))

    def place(self) -> str:
        """A host directory that may be bound."""
        path = self.root / "place"
        path.mkdir(exist_ok=True)
        return str(path)

    def package(self, name: str = "acme/echo", **changes: Any) -> Path:
        values: dict[str, Any] = {
            "name": name,
            "release": 1,
            "restart": "permanent",
            "max_restarts": 3,
            "health": "30s",
            "threshold": 1,
            "shutdown": "graceful",
            "files": "",
        } | changes
        directory = self.root / f"{name.replace('/', '-')}-{values['release']}"
        directory.mkdir(exist_ok=True)
        (directory / "component.wasm").write_bytes(WASM + values.pop("extra", b""))
        (directory / "component.toml").write_text(MANIFEST.format(**values))
        sign(str(directory), self.key())
        return directory

    async def upload(self, directory: Path) -> httpx.Response:
        files = {
            "wasm": (directory / "component.wasm").read_bytes(),
            "envelope": (directory / "component.dsse.json").read_bytes(),
            "manifest": (directory / "component.toml").read_bytes(),
        }
        return await self.client.post("/v1/packages", files=files)

    async def install(self, directory: Path, **request: Any) -> httpx.Response:
        plan = await self.upload(directory)
        assert plan.status_code == 200, plan.text
        return await self.client.post("/v1/install", json={"plan": plan.json()["plan"], "consent": True} | request)

    async def state_of(self, component: str = "acme/echo/0") -> dict[str, Any]:
        answer = await self.client.get(f"/v1/components/{component}")
        assert answer.status_code == 200, answer.text
        status: dict[str, Any] = answer.json()["status"]
        return status

    async def until(self, true: Callable[[], bool], seconds: float = 10) -> None:
        async with asyncio.timeout(seconds):
            while not true():
                await asyncio.sleep(0.005)

    async def until_state(self, state: str, component: str = "acme/echo/0") -> dict[str, Any]:
        async with asyncio.timeout(10):
            while (status := await self.state_of(component))["state"] != state:
                await asyncio.sleep(0.01)
        return status


@pytest.fixture
def playground(tmp_path: Path) -> Iterator[Callable[..., contextlib.AbstractAsyncContextManager[Playground]]]:
    """A function that gives a running control between scripted peers, as an async context manager; its argument is
    `[[supervisor]]` tables as TOML."""

    @contextlib.asynccontextmanager
    async def running(supervisors: str = "") -> AsyncIterator[Playground]:
        play = Playground(tmp_path)
        play.declare(supervisors)
        await play.start_peers()
        await play.start_control()
        try:
            yield play
        finally:
            await play.stop_control()
            await play.stop_peers()

    yield running
