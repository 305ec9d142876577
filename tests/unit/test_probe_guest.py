"""The guests of the end-to-end tests: built as committed, accepted or refused as meant, and the probe's every command.

The probe runs here in this process, over host functions that note how they were called and answer what the test says.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import wasmtime
from typed_guest import TypedGuest, case_of, component_message, config, error
from wasmtime import component as wt

from sandbox import contract
from sandbox.abi.types import Err
from sandbox.bindings import airssys_core as core
from sandbox.bindings import airssys_osl as osl
from sandbox.contract import LIFECYCLE, ContractError
from supervisor.packages.manifest import parse_manifest

pytestmark = pytest.mark.block10_sdk

GUESTS = Path(__file__).resolve().parents[1] / "guests"
NAMES = [
    "counter",
    "counter-zig",
    "echo",
    "echo-zig",
    "extra-export",
    "hostile",
    "kitchen",
    "no-lifecycle",
    "probe",
    "start-spin",
    "storm",
    "twin",
    "unknown-import",
    "wasi-libc",
    "wasi-probe",
    "wrong-type",
]
COMPILED = ("counter", "counter-zig", "echo", "echo-zig", "hostile", "kitchen", "probe", "wasi-libc", "wasi-probe")
"""By ziglang, in C or Zig."""
LIBC = ("wasi-libc",)
"""With the C library: larger, and the compiler builds that library before their first compilation."""
FUEL = 200_000_000
ME = core.ComponentId("test", "probe", "0")
OTHER = core.ComponentId("acme", "other", "7")


def component(engine: wasmtime.Engine, name: str) -> wt.Component:
    return wt.Component(engine, (GUESTS / name / "component.wasm").read_bytes())


@pytest.fixture(scope="module")
def engine() -> wasmtime.Engine:
    """One engine with fuel."""
    config = wasmtime.Config()
    config.consume_fuel = True
    return wasmtime.Engine(config)


# -- what is committed -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def build() -> ModuleType:
    """tests/guests/build.py as a module."""
    spec = importlib.util.spec_from_file_location("guests_build", GUESTS / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long) if name in LIBC else name for name in NAMES]
)
def test_rebuilding_gives_the_committed_bytes(build: ModuleType, name: str) -> None:
    """The committed components are what the committed sources give."""
    if name in COMPILED and importlib.util.find_spec("ziglang") is None:
        pytest.skip("ziglang is not installed")
    for file, data in build.build(name).items():
        assert data == (GUESTS / name / file).read_bytes(), file


def test_every_guest_is_built(build: ModuleType) -> None:
    """No directory is left out by the scripts, and none of their guests is missing."""
    assert NAMES == sorted(build.GUESTS) == sorted(path.parent.name for path in GUESTS.glob("*/component.wasm"))
    heavy = sorted(path.parent.name for path in GUESTS.glob("*/guest.*"))
    assert sorted(NAMES + heavy) == sorted(path.parent.name for path in GUESTS.glob("*/component.toml"))
    text = (GUESTS / "heavy.py").read_text()
    assert [] == [name for name in heavy if f'"{name}":' not in text]


@pytest.mark.parametrize("name", NAMES)
def test_guests_are_small_named_and_silent_about_their_builder(name: str) -> None:
    """Small, a manifest that is believed and names the directory, no path of the building machine."""
    data = (GUESTS / name / "component.wasm").read_bytes()
    assert len(data) < (80_000 if name in LIBC else 30_000)
    assert f"test/{name}" == parse_manifest((GUESTS / name / "component.toml").read_text()).component.name
    assert [] == [hint for hint in (b"/home", b"/tmp", b"/usr", b"/root", b".zig-cache") if hint in data]
    assert name in LIBC or b"component.c" not in data, "a failed assertion of C says where it stands"


def test_probe_imports_every_function(engine: wasmtime.Engine) -> None:
    """The probe uses all that the host serves beside WASI and messaging, and the kitchen what it serves of that, so no
    host function stays untested for want of a caller."""
    facts = contract.check_component(component(engine, "probe").type, engine)
    kitchen = contract.check_component(component(engine, "kitchen").type, engine)
    served = {
        name: sorted(s.functions)
        for name, s in contract.load().imports.items()
        if s.functions and not name.startswith("wasi:")
    }
    assert served == {name: functions for name, functions in kitchen.imports.items() if functions}
    messaging = {name for name in served if name.startswith("airssys:messaging/")}
    assert served.keys() - messaging == {name for name, functions in facts.imports.items() if functions}
    assert all(served[name] == functions for name, functions in facts.imports.items() if functions)
    assert ([LIFECYCLE], [LIFECYCLE, contract.TOPIC_HANDLER]) == (facts.exports, kitchen.exports)


def test_extra_exports_are_harmless(engine: wasmtime.Engine) -> None:
    """A component may export more than the lifecycle."""
    facts = contract.check_component(component(engine, "extra-export").type, engine)
    assert ({}, [LIFECYCLE, "answer"]) == (facts.imports, facts.exports)
    guest = Probe(engine, "extra-export")
    assert (b"hello", core.HealthStatus.HEALTHY) == (guest.send("hello"), guest.call("health"))
    assert "test/extra-export" == guest.call("metadata").name


@pytest.mark.parametrize(
    ("name", "code", "culprit"),
    [
        ("unknown-import", "E_IMPORTS", "acme:custom/thing@1.0.0"),
        ("wrong-type", "E_IMPORTS", "airssys:core/storage@1.0.0#get"),
        ("no-lifecycle", "E_EXPORTS", LIFECYCLE),
    ],
)
def test_guests_that_do_not_fit_are_refused(engine: wasmtime.Engine, name: str, code: str, culprit: str) -> None:
    """Each is refused for the one thing that is wrong with it."""
    with pytest.raises(ContractError) as caught:
        contract.check_component(component(engine, name).type, engine)
    assert (code, culprit) == (caught.value.code, caught.value.subject)


def test_start_function_spins_at_instantiation(engine: wasmtime.Engine) -> None:
    """It keeps to the contract, so it is installed, and never comes to its first call."""
    contract.check_component(component(engine, "start-spin").type, engine)
    with pytest.raises(wasmtime.WasmtimeError, match="all fuel consumed"):
        Probe(engine, "start-spin", fuel=1_000_000)


# -- a host in this process -------------------------------------------------------------------------------------------


class Probe:
    """One instance of a guest. `answers` says what each host function returns, `calls` how they were called."""

    def __init__(self, engine: wasmtime.Engine, name: str = "probe", *, fuel: int = FUEL, memory: int = 16 << 20):
        self.answers: dict[str, Any] = {}
        self.calls: list[tuple[Any, ...]] = []
        self.kept: dict[str, bytes] = {}
        self.store = wasmtime.Store(engine)
        self.store.set_limits(memory_size=memory)
        self.store.set_fuel(fuel)
        self._guest = TypedGuest(self.store, component(engine, name), self._function)
        self.call = self._guest.call

    def _function(self, interface: str, item: str) -> Callable[..., Any]:
        name = f"{interface.split('/')[1].split('@', maxsplit=1)[0]}.{item}"

        def function(*arguments: Any) -> Any:
            self.calls.append((name, *arguments))
            if name == "storage.get" and name not in self.answers:
                return self.kept.get(arguments[0])
            return self.answers.get(name)

        return function

    def initialize(self) -> Any:
        return self.call("initialize", config(1))

    def send(self, text: str, *, correlation: str | None = None, kind: str | None = None) -> Any:
        """Hand over a message; the reply's bytes, None, or the error."""
        return self.call("handle-message", component_message(OTHER, text.encode(), correlation, kind))

    def callback(self, text: str, *, correlation: str | None = None, kind: str | None = None) -> Any:
        return self.call("handle-callback", component_message(OTHER, text.encode(), correlation, kind))


@pytest.fixture
def probe(engine: wasmtime.Engine) -> Probe:
    """A fresh instance."""
    return Probe(engine)


def ident(record: Any) -> str:
    return f"{record.namespace}/{record.name}/{record.instance}"


def plain(argument: Any) -> Any:
    """An argument of a host function with ids as text."""
    if isinstance(argument, list):
        return [plain(item) for item in argument]
    return ident(argument) if hasattr(argument, "instance") else argument


# -- commands ---------------------------------------------------------------------------------------------------------

USAGE = core.StorageUsage(1, 2, 2**64 - 1)
INFO = core.ComponentInfo(OTHER, "acme/other", "1.2.3", "degraded")
ENTRIES = [
    osl.DirEntry("a b", osl.NodeKind.FILE, 2**40),
    osl.DirEntry("d", osl.NodeKind.DIRECTORY, 0),
    osl.DirEntry("l", osl.NodeKind.OTHER, 0),
]
STAT = osl.NodeStat(osl.NodeKind.FILE, 5, 6, 7)


@pytest.mark.parametrize(
    ("command", "called", "answer", "reply"),
    [
        ("log warn a  b", ("host-services.log", core.LogLevel.WARN, "a  b", None), None, "ok"),
        ("sleep 18446744073709551615", ("host-services.sleep-millis", 2**64 - 1), None, "ok"),
        ("time", ("host-services.current-time",), core.Timestamp(2**40, 9), "1099511627776 9"),
        ("millis", ("host-services.current-time-millis",), 12, "12"),
        ("components", ("host-services.list-components",), [ME, OTHER], "test/probe/0\nacme/other/7"),
        ("components", ("host-services.list-components",), [], ""),
        (
            "meta acme/other/7",
            ("host-services.get-component-metadata", "acme/other/7"),
            INFO,
            "acme/other/7 acme/other 1.2.3 degraded",
        ),
        ("get k", ("storage.get", "k"), b"v w", "v w"),
        ("get k", ("storage.get", "k"), None, "-"),
        ("get ", ("storage.get", ""), b"", ""),
        ("set k v w ", ("storage.set", "k", b"v w "), None, "ok"),
        ("set k", ("storage.set", "k", b""), None, "ok"),
        ("del k", ("storage.delete", "k"), None, "ok"),
        ("has k", ("storage.exists", "k"), True, "true"),
        ("has k", ("storage.exists", "k"), False, "false"),
        ("keys", ("storage.list-keys", None), ["a", "bc"], "a\nbc"),
        ("keys on-", ("storage.list-keys", "on-"), [], ""),
        ("usage", ("storage.usage",), USAGE, f"1 2 {2**64 - 1}"),
        ("read /data/a", ("filesystem.read", "/data/a"), b"x\ny", "x\ny"),
        ("range /a 5 7", ("filesystem.read-range", "/a", 5, 7), b"", ""),
        ("write /a x y\n", ("filesystem.write", "/a", b"x y\n"), None, "ok"),
        ("append /a x", ("filesystem.append", "/a", b"x"), None, "ok"),
        ("delete /a", ("filesystem.delete", "/a"), None, "ok"),
        ("mkdir /a", ("filesystem.make-directory", "/a"), None, "ok"),
        ("list /a", ("filesystem.list", "/a"), ENTRIES, "a b file 1099511627776\nd directory 0\nl other 0"),
        ("stat /a", ("filesystem.stat", "/a"), STAT, "file 5 6 7"),
        ("rename /a /b", ("filesystem.rename", "/a", "/b"), None, "ok"),
        ("send a/b hi you", ("host-messaging.send", "a/b/0", b"hi you"), None, "ok"),
        ("send a/b/c/d", ("host-messaging.send", "a/b/c/d", b""), None, "ok"),
        ("send odd x", ("host-messaging.send", "odd//0", b"x"), None, "ok"),
        ("request a/b/2 50 x y", ("host-messaging.request", "a/b/2", b"x y", 50), "f" * 32, "f" * 32),
        ("forward a/b x y", ("host-messaging.request", "a/b/0", b"x y", 5000), "e" * 32, "e" * 32),
        ("cancel ff", ("host-messaging.cancel-request", "ff"), None, "ok"),
        ("broadcast a/b,c/d/1 x", ("host-messaging.broadcast", ["a/b/0", "c/d/1"], b"x"), None, "ok"),
        ("broadcast  x", ("host-messaging.broadcast", [], b"x"), None, "ok"),
        ("self", ("host-messaging.self-id",), ME, "test/probe/0"),
    ],
)
def test_commands_that_call_the_host(
    probe: Probe, command: str, called: tuple[Any, ...], answer: Any, reply: str
) -> None:
    """One call with the right arguments, and its answer as text."""
    probe.answers[called[0]] = answer
    assert reply == probe.send(command).decode()
    assert [called] == [tuple(plain(argument) for argument in call) for call in probe.calls]


STORAGE = ["not-found", "already-exists", "quota-exceeded", "invalid-key", "io-error"]
FILES = [
    "denied", "not-found", "already-exists", "not-a-directory", "is-a-directory", "not-empty", "read-only",
    "invalid-path", "too-large", "no-space", "io-error",
]  # fmt: skip
MESSAGING = ["delivery-failed", "correlation-timeout", "invalid-message", "queue-full", "target-not-found"]
COMPONENT = ["initialization-failed", "already-initialized", "not-initialized", "shutdown-failed", "invalid-state"]
BARE = ("quota-exceeded", "queue-full", "already-initialized", "not-initialized")
VARIANTS = {
    "storage": "airssys:core/errors@1.0.0#storage-error",
    "filesystem": "airssys:osl/filesystem@0.1.0#filesystem-error",
    "host-messaging": "airssys:core/errors@1.0.0#messaging-error",
    "host-services": "airssys:core/errors@1.0.0#component-error",
}
FAILING = {
    "storage": (STORAGE, ["get k", "set k v", "del k", "has k", "keys", "usage"]),
    "filesystem": (
        FILES,
        [
            "read /a",
            "range /a 0 1",
            "write /a",
            "append /a",
            "delete /a",
            "mkdir /a",
            "list /a",
            "stat /a",
            "rename /a /b",
        ],
    ),
    "host-messaging": (MESSAGING, ["send a/b", "request a/b 1", "forward a/b", "cancel f", "broadcast a/b"]),
    "host-services": (COMPONENT, ["meta a/b"]),
}


@pytest.mark.parametrize(
    ("interface", "case"), [(name, case) for name, (cases, _) in FAILING.items() for case in cases]
)
def test_errors_of_the_host_are_replies(probe: Probe, interface: str, case: str) -> None:
    """Every error case of every function comes out as `error CASE: TEXT`, with the case's name in the WIT."""
    payload: Any = None if case in BARE else OTHER if case == "target-not-found" else "why: so"
    text = "" if payload is None else f": {ident(payload) if payload is OTHER else payload}"
    for command in FAILING[interface][1]:
        for item in contract_functions(interface):
            probe.answers[f"{interface}.{item}"] = error(VARIANTS[interface], case, payload)
        assert f"error {case}{text}" == probe.send(command).decode(), command


def contract_functions(interface: str) -> list[str]:
    """Names of an interface's functions."""
    return [
        function
        for name, served in contract.load().imports.items()
        if f"/{interface}@" in name
        for function in served.functions
    ]


def test_commands_without_the_host(probe: Probe) -> None:
    """Echo, errors, sizes, and what the message says of itself; malformed commands are errors."""
    assert b"a  b " == probe.send("echo a  b ")
    assert b"" == probe.send("echo")
    assert ("runtime-error", "on purpose") == case_of(probe.send("fail on purpose"))
    assert probe.send("none") is None
    assert b"x" * 300_000 == probe.send("big 300000")
    assert b"" == probe.send("big 0")
    assert (b"acme/other/7", b"-", b"-") == (probe.send("sender"), probe.send("ctype"), probe.send("corr"))
    assert b"text/plain" == probe.send("ctype", kind="text/plain")
    assert b"f0" == probe.send("corr", correlation="f0")
    assert b"12" == probe.send("count")
    for command in (
        "",
        "ech",
        "echoes",
        "big x",
        "big",
        "big 18446744073709551616",
        "grow -1",
        "sleep 1s",
        "log loud x",
    ):
        assert "runtime-error" == case_of(probe.send(command))[0], command
    for command in ("range /a 1", "request a/b soon x"):
        assert ("runtime-error", "not a number") == case_of(probe.send(command))
    assert [] == probe.calls


def test_grow(probe: Probe) -> None:
    """Pages are counted up, the reply is the whole memory, and past the limit the guest goes on with what it has."""
    start = int(probe.send("grow 0"))
    assert start + (4 << 20) == int(probe.send(f"grow {4 << 20}"))
    assert start + (4 << 20) + 65536 == int(probe.send("grow 1"))
    assert 16 << 20 == int(probe.send(f"grow {1 << 40}"))
    assert b"alive" == probe.send("echo alive")


@pytest.mark.parametrize(
    ("command", "why"),
    [("trap", "unreachable"), ("spin", "all fuel consumed"), ("recurse", "call stack exhausted")],
)
def test_commands_that_end_the_guest(engine: wasmtime.Engine, command: str, why: str) -> None:
    """Each ends by its own cause."""
    with pytest.raises((wasmtime.WasmtimeError, wasmtime.Trap), match=why):
        Probe(engine, fuel=5_000_000).send(command)


def test_callbacks_are_kept(probe: Probe) -> None:
    """`last` is empty, then the last callback; `callbacks` counts them."""
    assert (b"", b"0") == (probe.send("last"), probe.send("callbacks"))
    assert probe.callback("first", correlation="c1", kind="text/plain") is None
    assert b"c1|text/plain|first" == probe.send("last")
    assert probe.callback("a|b", correlation="c2") is None
    assert (b"c2|-|a|b", b"2") == (probe.send("last"), probe.send("callbacks"))
    probe.callback("x" * (256 << 10), correlation="f" * 32, kind="application/vnd.airssys.error+json")
    assert (256 << 10) + 32 + 2 + len("application/vnd.airssys.error+json") == len(probe.send("last"))


def test_messages_do_not_use_up_the_memory(probe: Probe) -> None:
    """Each message's memory is free for the next."""
    before = probe.send("grow 0")
    for _ in range(20):
        probe.send("echo " + "x" * 100_000)
        probe.callback("y" * 100_000)
        probe.call("health")
    assert int(before) + 3 * 65536 >= int(probe.send("grow 0"))


# -- lifecycle --------------------------------------------------------------------------------------------------------


def test_the_plain_lifecycle(probe: Probe) -> None:
    """Without keys everything goes well; shutdown leaves its mark."""
    assert probe.initialize() is None
    assert core.HealthStatus.HEALTHY == probe.call("health")
    assert ("test/probe", "1.0.0") == (probe.call("metadata").name, probe.call("metadata").version)
    assert probe.call("shutdown") is None
    looked = [call for call in probe.calls if call[0] == "storage.get"]
    assert ["on-initialize", "on-health", "on-shutdown"] == [key for _, key in looked]
    assert ("storage.set", "shutdown-ran", b"1") in probe.calls


def test_a_refused_look_is_no_wish(probe: Probe) -> None:
    """Without the right to read, the lifecycle is the plain one."""
    probe.answers["storage.get"] = Err(core.StorageErrorInvalidKey("on-initialize"))
    assert probe.initialize() is None
    assert core.HealthStatus.HEALTHY == probe.call("health")
    assert probe.call("shutdown") is None


def test_wished_errors(probe: Probe) -> None:
    """`fail` gives the error of that call; health says what it is told to."""
    probe.kept = {"on-initialize": b"fail", "on-shutdown": b"fail"}
    assert ("initialization-failed", "asked to") == case_of(probe.initialize())
    assert ("shutdown-failed", "asked to") == case_of(probe.call("shutdown"))
    assert ("storage.set", "shutdown-ran", b"1") == probe.calls[-2][:3], "the mark comes before the failure"
    for status in ("degraded", "unhealthy", "unknown", "healthy"):
        probe.kept["on-health"] = status.encode()
        assert core.HealthStatus(status) == probe.call("health")


@pytest.mark.parametrize("wish", ["trap", "spin"])
@pytest.mark.parametrize("call", ["initialize", "health", "shutdown", "callback"])
def test_wished_ends(engine: wasmtime.Engine, call: str, wish: str) -> None:
    """Each lifecycle call traps or spins when told to."""
    guest = Probe(engine, fuel=5_000_000)
    guest.kept[f"on-{call}"] = wish.encode()
    actions: dict[str, Callable[[], Any]] = {
        "initialize": guest.initialize,
        "health": lambda: guest.call("health"),
        "shutdown": lambda: guest.call("shutdown"),
        "callback": lambda: guest.callback("x"),
    }
    with pytest.raises((wasmtime.WasmtimeError, wasmtime.Trap), match=r"unreachable|all fuel consumed") as caught:
        actions[call]()
    assert ("unreachable" in str(caught.value)) is (wish == "trap")


@pytest.mark.parametrize("call", ["initialize", "shutdown"])
def test_wished_sleep(probe: Probe, call: str) -> None:
    """`sleep` asks the host for a minute and then ends well."""
    probe.kept[f"on-{call}"] = b"sleep"
    assert (probe.initialize() if call == "initialize" else probe.call("shutdown")) is None
    assert ("host-services.sleep-millis", 60_000) == probe.calls[-1]
