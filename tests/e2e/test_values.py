"""Values across the wasm boundary on a real host, on both paths: the operator's word decides for each instance.

Every component is installed twice, as instance `fast` and as instance `general`. What they answer must be the same, and
`airssys info` says which path each took.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import kitchen
import pytest
from live_host import GUESTS, Host, temporary_host, wait_until

from sandbox.abi.types import Case, Err, Ok
from supervisor.cli.errors import RefusedError

pytestmark = pytest.mark.block1_runtime

PATHS = ("fast", "general")
COMPILED = ("echo", "echo-zig", "counter", "counter-zig", "kitchen", "hostile")
HEAVY = ("echo-qjs", "echo-python", "counter-qjs", "counter-python")
"""Of large toolchains: built once, by tests/guests/heavy.py."""
OVERRIDES = "".join(
    f'[[workers.override]]\ncomponent = "test/{name}/{path}"\npath = "{path}"\n'
    for name in (*COMPILED, *HEAVY)
    for path in PATHS
)


def guests(*names: str) -> list[Any]:
    """Parameters; heavy ones are long."""
    return [pytest.param(name, marks=pytest.mark.long) if name in HEAVY else name for name in names]


@pytest.fixture(scope="module")
def host(able: None, key: Path) -> Iterator[Host]:
    """A host on which each component's path goes by the name of its instance."""
    with temporary_host(key, OVERRIDES) as host:
        host.up()
        host.trust("test/*")
        yield host


@pytest.fixture(scope="module")
def heavy() -> ModuleType:
    """tests/guests/heavy.py as a module."""
    spec = importlib.util.spec_from_file_location("guests_heavy", GUESTS / "heavy.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def installed(host: Host, heavy: ModuleType) -> Callable[[str, str], str]:
    """Install a guest on a path, once; its id."""
    packages: dict[str, Path] = {}
    running: set[str] = set()

    def package(name: str) -> Path:
        source = GUESTS / name
        if name in HEAVY:
            try:
                component: Path = heavy.built(name)
            except heavy.ToolchainMissing as missing:
                pytest.skip(f"{name} is not built and cannot be: {missing}")
            source = host.out / f"{name}-source"
            source.mkdir()
            shutil.copy(component, source / "component.wasm")
            shutil.copy(GUESTS / name / "component.toml", source)
        return host.package(source, name=name)

    def install(name: str, path: str) -> str:
        component = f"test/{name}/{path}"
        if component not in running:
            signed = packages.get(name) or packages.setdefault(name, package(name))
            data = host.out / f"data-{path}"
            if not data.exists():
                data.mkdir()
                data.chmod(0o777)
            binds = ("--bind", f"/data={data}") if name in ("kitchen", "hostile") else ()
            host.install(signed, "--instance", path, *binds)
            running.add(component)
        return component

    return install


def ask(host: Host, component: str, payload: bytes) -> bytes:
    """A request's reply."""
    with host.api() as client:
        return client.message(component, "request", payload, 10_000, "text/plain")


def info(host: Host, component: str) -> dict[str, Any]:
    """What `airssys info` knows."""
    return dict(json.loads(host.cli("info", component, "--output", "json").stdout))


@pytest.mark.parametrize("name", guests(*COMPILED, *HEAVY))
def test_the_operator_chooses_the_path(host: Host, installed: Callable[[str, str], str], name: str) -> None:
    """What was chosen is what `airssys info` shows; on the fast path every handler that it has is fast."""
    for path in PATHS:
        crossing = info(host, installed(name, path))["crossing"]
        assert path == crossing["path"], crossing
        if path == "fast":
            topics = ["handle-topic"] if name == "kitchen" else []
            assert ["handle-callback", "handle-message", *topics] == sorted(crossing["exports"])
            assert "" == crossing["reason"]


@pytest.mark.parametrize("name", guests("echo", "echo-zig", "echo-qjs", "echo-python"))
@pytest.mark.parametrize("path", PATHS)
def test_echo(host: Host, installed: Callable[[str, str], str], name: str, path: str) -> None:
    """Text and binary from nothing to the largest message the manifest allows."""
    component = installed(name, path)
    for size in (0, 1, 4096, 65_536, 2 << 20):
        for pattern in (b"text ", bytes(range(256))):
            payload = (pattern * (size // len(pattern) + 1))[:size]
            assert payload == ask(host, component, payload)


@pytest.mark.parametrize("name", guests("counter", "counter-zig", "counter-qjs", "counter-python"))
@pytest.mark.parametrize("path", PATHS)
def test_counter(host: Host, installed: Callable[[str, str], str], name: str, path: str) -> None:
    """It counts, through the bridge and its database; a restart forgets nothing."""
    component = installed(name, path)
    assert [b"1", b"2", b"3"] == [ask(host, component, b"") for _ in range(3)]
    host.cli("restart", component)
    assert b"4" == ask(host, component, b"")


def told(host: Host, component: str, name: str, *arguments: Any) -> Any:
    """What the kitchen replies for a call, still written."""
    return ask(host, component, kitchen.call(name, *arguments))


def wrote(name: str, result: Any) -> bytes:
    """A function's result as the kitchen writes it."""
    return kitchen.written(kitchen.functions()[name].result, result)


OK = b"\0"


@pytest.mark.parametrize("path", PATHS)
def test_storage(host: Host, installed: Callable[[str, str], str], path: str) -> None:
    """Every function of storage, with its errors."""
    component = installed("kitchen", path)

    def check(name: str, *arguments: Any, result: Any) -> None:
        assert wrote(f"storage.{name}", result) == told(host, component, f"storage.{name}", *arguments)

    check("get", "k", result=Ok(None))
    check("set", "k", bytes(range(256)) * 400, result=Ok(None))
    check("get", "k", result=Ok(bytes(range(256)) * 400))
    check("set", "schlüssel", b"", result=Ok(None))
    check("get", "schlüssel", result=Ok(b""))
    check("exists", "k", result=Ok(True))
    check("exists", "x", result=Ok(False))
    check("list-keys", None, result=Ok(["k", "schlüssel"]))
    check("list-keys", "s", result=Ok(["schlüssel"]))
    check("usage", result=Ok((256 * 400 + 1 + len("schlüssel".encode()), 1 << 20, 2)))
    check("delete", "k", result=Ok(None))
    check("set", "k", bytes(1 << 20), result=Err(Case("quota-exceeded")))
    for name, arguments in (("get", ("",)), ("set", ("a\nb", b"")), ("delete", ("x" * 300,))):
        answer = told(host, component, f"storage.{name}", *arguments)
        assert bytes([1, 3]) == answer[:2], "invalid-key"
    assert bytes([1, 0]) == told(host, component, "storage.delete", "k")[:2], "not-found"


@pytest.mark.parametrize("path", PATHS)
def test_files(host: Host, installed: Callable[[str, str], str], path: str) -> None:
    """Every function of the file system, with what is on the disk afterwards."""
    component = installed("kitchen", path)
    data = host.out / f"data-{path}"
    body = bytes(range(256)) * 1000
    assert OK == told(host, component, "filesystem.write", "/data/f", body)
    assert body == (data / "f").read_bytes()
    assert OK == told(host, component, "filesystem.append", "/data/f", b"more")
    assert wrote("filesystem.read", Ok(body + b"more")) == told(host, component, "filesystem.read", "/data/f")
    assert wrote("filesystem.read-range", Ok(body[200_000:200_010])) == told(
        host, component, "filesystem.read-range", "/data/f", 200_000, 10
    )
    assert OK == told(host, component, "filesystem.make-directory", "/data/d")
    assert OK == told(host, component, "filesystem.rename", "/data/f", "/data/d/g")
    assert wrote("filesystem.list", Ok([("d", "directory", 0)])) == told(host, component, "filesystem.list", "/data")
    assert wrote("filesystem.list", Ok([("g", "file", len(body) + 4)])) == told(
        host, component, "filesystem.list", "/data/d"
    )
    about = (data / "d/g").stat()
    seconds, nanoseconds = divmod(about.st_mtime_ns, 1_000_000_000)
    assert wrote("filesystem.stat", Ok(("file", about.st_size, seconds, nanoseconds))) == told(
        host, component, "filesystem.stat", "/data/d/g"
    )
    assert OK == told(host, component, "filesystem.delete", "/data/d/g")
    for name, arguments, case in (
        ("read", ("/data/none",), 1),
        ("read", ("/etc/passwd",), 0),
        ("read", ("/data/d",), 4),
        ("write", ("/data/../x", b""), 7),
        ("make-directory", ("/data/d",), 2),
    ):
        answer = told(host, component, f"filesystem.{name}", *arguments)
        assert bytes([1, case]) == answer[:2], (name, arguments, answer)
    assert OK == told(host, component, "filesystem.delete", "/data/d")


@pytest.mark.parametrize("path", PATHS)
def test_messages(host: Host, installed: Callable[[str, str], str], path: str) -> None:
    """Send, request and its callback, broadcast, cancel: to the other path's kitchen and back."""
    here, there = installed("kitchen", path), installed("kitchen", PATHS[path == "fast"])
    other, me = tuple(there.split("/")), tuple(here.split("/"))
    nobody = ("test", "nobody", "0")
    question = kitchen.call("host-messaging.self-id")
    answer = told(host, here, "host-messaging.request", other, question, 5000)
    assert 0 == answer[0]
    correlation = answer[5:].decode()

    def called() -> bool:
        return correlation.encode() in ask(host, here, bytes([kitchen.CALLBACK]))

    wait_until("the callback", called)
    callback = ask(host, here, bytes([kitchen.CALLBACK]))
    identity = kitchen.types()["component-id"]
    payload = kitchen.written(identity, other)
    sender = kitchen.written(identity, other)
    assert callback.startswith(sender + struct.pack("<I", len(payload)) + payload + b"\1")
    assert OK == told(host, here, "host-messaging.send", other, bytes([kitchen.NONE]))
    assert OK == told(host, here, "host-messaging.broadcast", [other, me], bytes([kitchen.NONE]))
    refused = wrote("host-messaging.send", Err(Case("target-not-found", nobody)))
    assert refused == told(host, here, "host-messaging.send", nobody, b"x")
    unknown = told(host, here, "host-messaging.cancel-request", "0" * 32)
    assert wrote("host-messaging.cancel-request", Err(Case("correlation-timeout", "0" * 32))) == unknown
    assert bytes([1, 0]) == told(host, here, "host-messaging.send", ("acme", "x", "0"), b"")[:2], "denied"


@pytest.mark.parametrize("path", PATHS)
def test_services(host: Host, installed: Callable[[str, str], str], path: str) -> None:
    """A log line with its context is in the log; the others answer what is so."""
    component = installed("kitchen", path)
    assert b"" == told(host, component, "host-services.log", "warn", f"füüße {path}", [("name", "välue"), ("", "\0")])

    def line() -> dict[str, Any] | None:
        done = host.cli("logs", component, "--output", "json", "--limit", "100")
        found = [json.loads(each) for each in done.stdout.splitlines()]
        return next((each for each in found if each["message"] == f"füüße {path}"), None)

    assert "warn" == wait_until("the line", line)["level"]
    identity = kitchen.types()["component-id"]
    assert kitchen.written(identity, tuple(component.split("/"))) == told(host, component, "host-messaging.self-id")
    millis = struct.unpack("<Q", told(host, component, "host-services.current-time-millis"))[0]
    seconds, _ = struct.unpack("<QI", told(host, component, "host-services.current-time"))
    assert abs(millis / 1000 - seconds) < 10


HOSTILE = {
    "result outside": (1, 0xFFFF_FFFF),
    "bytes outside": (2, 1024, 100 << 20),
    "result case": (4, 7),
    "error case": (3, 9, 0, 0),
    "no utf-8": (15, 0xFEFF_FEFF),
    "recursion": (9,),
    "key outside": (11, 0xFFFF_FFF0, 32, 2048),
    "list overflows": (14, 1024, 0x0AAA_AAAB),
}


@pytest.mark.parametrize("attack", HOSTILE)
def test_lies_end_one_worker(host: Host, installed: Callable[[str, str], str], attack: str) -> None:
    """A guest that hands over what cannot be ends as a trap on either path, and the next worker answers."""
    what, *numbers = HOSTILE[attack]
    message = bytes([what]) + b"".join(struct.pack("<I", number) for number in numbers)
    for path in PATHS:
        component = installed("hostile", path)
        assert b"\0fine" == ask(host, component, b"\0fine"), "control"
        before = host.component(component)["pid"]
        with pytest.raises(RefusedError):
            ask(host, component, message)

        def again(component: str = component, before: int = before) -> bool:
            now = host.component(component)
            return bool(now["state"] == "running" and now["pid"] != before)

        wait_until("another worker", again)
        assert "trap" == host.component(component)["outcome"], path
        assert b"\0fine" == ask(host, component, b"\0fine")
