"""The engine's two layouts of linear memory: what is compiled differs, what a guest may touch does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import wasmtime
from forked import returns

from sandbox import engine
from sandbox.kernel import libc, process, seccomp
from sandbox.patch import version

pytestmark = pytest.mark.block1_runtime
PROFILES = ["paranoid", "standard", "degraded"]
GUEST = """(module (memory (export "memory") 1 3)
  (func (export "load") (param i32) (result i32) (i32.load (local.get 0)))
  (func (export "far") (param i32) (result i32) (i32.load offset=0xfffffff0 (local.get 0)))
  (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0))))"""


class _Guest:
    def __init__(self, profile: str) -> None:
        made = engine.make_engine(profile)
        self.store = wasmtime.Store(made)
        self.store.set_fuel(1_000_000)
        self.exports = wasmtime.Instance(self.store, wasmtime.Module(made, GUEST), []).exports(self.store)

    def call(self, name: str, argument: int) -> int | str:
        function = self.exports[name]
        assert isinstance(function, wasmtime.Func)
        try:
            return int(function(self.store, argument))
        except wasmtime.Trap as trap:
            return str(trap.trap_code)


def _mapped() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmSize"):
            return int(line.split()[1]) << 10
    raise AssertionError


@pytest.mark.parametrize("profile", PROFILES)
def test_memory_ends_where_it_ends(profile: str) -> None:
    """Behind the worker's last filter every access beyond the memory traps, near and far, before and after growing.

    The control is the last word inside.
    """

    def child() -> list[Any]:
        libc.keep_heap_in_brk()
        guest = _Guest(profile)
        guest.call("load", 65536)  # the handler's alternate stack is made at the first trap
        bpf = seccomp.compile_policy("worker")
        process.no_new_privileges()
        seccomp.load(bpf)
        found = [guest.call("load", at) for at in (65532, 65533, 65536, 131068, 0x7FFFFFFF, -4)]
        found.append(guest.call("far", -1))
        found += [guest.call("grow", 1), guest.call("load", 131068), guest.call("load", 131069), guest.call("grow", 2)]
        return found

    out = str(wasmtime.TrapCode.MEMORY_OUT_OF_BOUNDS)
    assert [0, out, out, out, out, out, out, 1, 0, out, -1] == returns(child)


def test_only_standard_reserves() -> None:
    """`standard` takes more than 4 GiB of address space for a memory of 64 KiB; the others take next to none."""

    def growth(profile: str) -> int:
        def child() -> int:
            made = engine.make_engine(profile)
            module = wasmtime.Module(made, GUEST)
            store = wasmtime.Store(made)
            before = _mapped()
            wasmtime.Instance(store, module, [])
            return _mapped() - before

        return int(returns(child))

    assert engine.reservation("standard") >= growth("standard") >= 4 << 30
    for profile in ("paranoid", "degraded"):
        assert 0 == engine.reservation(profile)
        assert growth(profile) < 16 << 20


def test_native_code_of_one_layout_never_meets_the_other() -> None:
    """Fingerprints, and with them the cache's entries, differ between layouts; `degraded` has that of `paranoid`."""
    prints = {profile: engine.fingerprint(profile) for profile in PROFILES}
    assert prints["paranoid"] == prints["degraded"] != prints["standard"]
    code = bytes(wasmtime.Module(engine.make_engine("paranoid"), GUEST).serialize())
    assert wasmtime.Module.deserialize(engine.make_engine("degraded"), code)
    with pytest.raises(wasmtime.WasmtimeError):
        wasmtime.Module.deserialize(engine.make_engine("standard"), code)


def test_each_part_of_the_key_changes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The path, the patcher and the adapter (their source, and the WIT they are made from), the engine's version, its
    settings and the processor: none may change and leave a compiled component in use."""
    usual = engine.fingerprint("paranoid", "fast")
    assert usual == engine.fingerprint("paranoid", "fast")
    found = {usual, engine.fingerprint("paranoid", "general")}
    changes = {
        "sandbox.patch.version.version": lambda: "another patcher",
        "importlib.metadata.version": lambda name: "50.0.2",
        "sandbox.engine.settings": lambda profile: {"consume_fuel": False},
        "sandbox.engine.UNNAMED_SETTINGS": {},
        "sandbox.engine.MAX_WASM_STACK": 1,
        "platform.machine": lambda: "aarch64",
        "sandbox.engine._cpu_features": lambda: "none",
    }
    for name, value in changes.items():
        with monkeypatch.context() as patching:
            patching.setattr(name, value)
            found.add(engine.fingerprint("paranoid", "fast"))
    assert 2 + len(changes) == len(found)
    assert usual == engine.fingerprint("paranoid", "fast")


def test_the_patchers_version_is_its_source() -> None:
    """Any change of the files that decide on compiled bytes changes it; so does a file more, or another name."""
    contents = {"patch/adapter.py": b"a", "patch/patcher.py": b"b"}
    found = {
        version.digest(each)
        for each in (
            contents,
            contents | {"patch/adapter.py": b"b"},
            contents | {"patch/more.py": b""},
            {"patch/adapter.py": b"a", "patch/patchers.py": b"b"},
            {"patch/adapter.pya": b"", "patch/patcher.py": b"b"},
        )
    }
    assert 5 == len(found)
    assert version.digest(contents) == version.digest(dict(reversed(contents.items())))
    assert 64 == len(version.version())
    sandbox = Path(version.__file__).parents[1]
    files = {str(path.relative_to(sandbox)) for pattern in version.SOURCES for path in sandbox.glob(pattern)}
    assert {"patch/adapter.py", "patch/patcher.py", "abi/layout.py", "compiler.py", "contract.py"} <= files
