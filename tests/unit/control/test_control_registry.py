"""Registry, package store and cache: what a kill, a stranger's hand or an older release may not do."""

from __future__ import annotations

import hashlib
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandbox.errors import ProtocolViolation
from sandbox.types import ComponentId
from sandbox.wire.compile_result import CompileResult, pack_header, parse_header
from supervisor.control import memfd
from supervisor.control import registry as registry_module
from supervisor.control.cache import Cache
from supervisor.control.errors import CacheError, NotFoundError, RegistryError, RollbackError
from supervisor.control.package_store import PackageStore
from supervisor.control.registry import KEPT_ENDS, Consent, EndRow, InstanceRow, PackageRow, Registry
from supervisor.packages.files import FileError
from supervisor.packages.package import PackageFiles

pytestmark = pytest.mark.block7_lifecycle

ECHO = ComponentId("acme", "echo")
INFO = CompileResult({"a:b/c": ["d"]}, ["run"], None, 6)


def package(release=1, name="acme/echo"):
    return PackageRow(
        f"id{release}", name, f"1.0.{release}", release, "d" * 64, "k" * 64, "acme", "{}", {"a:b/c": ["d"]}, 1.0, "root"
    )


def instance(release=1, component=ECHO, bindings=None):
    return InstanceRow(component, f"id{release}", True, bindings or {}, Consent("root", 1.0, ["x"], True), 1.0)


@pytest.fixture
def registry(tmp_path):
    opened = Registry(str(tmp_path / "r.db"))
    yield opened
    opened.close()


def test_install_round_trip(registry):
    """What was installed is read back, and a package goes with its last instance."""
    other = ComponentId("acme", "echo", "b")
    assert registry.install(package(), instance(bindings={"/logs": "/srv"})) is None
    registry.install(package(), instance(component=other))
    assert [instance(bindings={"/logs": "/srv"}), instance(component=other)] == registry.instances()
    assert package() == registry.package("id1")
    assert "id1" == registry.install(package(2), instance(2))
    registry.uninstall(other)
    assert ["id2"] == [row.id for row in registry.packages()]
    with pytest.raises(NotFoundError):
        registry.uninstall(other)


def test_environment_and_arguments_round_trip(registry):
    """They come back in their order, and an update brings others."""
    told = msgspec.structs.replace(instance(), env={"B": "2", "A": ""}, args=["--x", ""])
    registry.install(package(), told)
    assert told == registry.instance(ECHO)
    assert ["B", "A"] == list(registry.instance(ECHO).env)
    registry.install(package(), instance())
    assert ({}, []) == (registry.instance(ECHO).env, registry.instance(ECHO).args)


def test_releases_only_rise(registry):
    """A lower release is refused with nothing changed, also after the name was uninstalled; the same may come again."""
    registry.install(package(5), instance(5))
    with pytest.raises(RollbackError):
        registry.install(package(4), instance(4))
    assert ["id5"] == [row.id for row in registry.packages()]
    registry.uninstall(ECHO)
    with pytest.raises(RollbackError):
        registry.install(package(4), instance(4))
    registry.install(package(5), instance(5))


def test_an_older_schema_is_migrated(tmp_path, monkeypatch):
    """A registry of the first schema is brought to the newest with everything in it."""
    path = str(tmp_path / "r.db")
    monkeypatch.setattr(registry_module, "_MIGRATIONS", registry_module._MIGRATIONS[:1])
    old = Registry(path)
    old._db.execute("INSERT INTO releases VALUES ('acme/echo', 7)")
    old.close()
    monkeypatch.undo()
    new = Registry(path)
    with pytest.raises(RollbackError):
        new.check_release("acme/echo", 6, "id6")
    new.install(package(7), instance(7))
    new.set_quarantine(ECHO, "trap")
    assert "trap" == new.instance(ECHO).quarantine
    assert ({}, []) == (new.instance(ECHO).env, new.instance(ECHO).args)
    new.close()


def test_incarnations_never_repeat(tmp_path):
    """Numbers rise across a reopened registry, killed or closed."""
    path = str(tmp_path / "r.db")
    seen = []
    for _ in range(3):
        registry = Registry(path)
        seen += [registry.next_incarnation() for _ in range(70)]
        registry.close()
    assert sorted(set(seen)) == seen


def test_ends_are_bounded(registry):
    """The newest ends are kept, newest first."""
    for number in range(KEPT_ENDS + 5):
        registry.add_end(EndRow(str(ECHO), number, 1.0, "trap", "x" * 5000))
    ends = registry.ends(ECHO, 1000)
    assert [KEPT_ENDS, KEPT_ENDS + 4, 5, 4096] == [
        len(ends),
        ends[0].incarnation,
        ends[-1].incarnation,
        len(ends[0].detail),
    ]


def test_foreign_files_are_refused(tmp_path):
    """A newer schema and a file that is no database are E_STATE; the file is not touched."""
    newer = tmp_path / "newer.db"
    database = sqlite3.connect(newer)
    database.execute("PRAGMA user_version=99")
    database.close()
    rubbish = tmp_path / "rubbish.db"
    rubbish.write_bytes(b"not a database " * 100)
    for path in (newer, rubbish):
        with pytest.raises(RegistryError):
            Registry(str(path))
    assert b"not a database " * 100 == rubbish.read_bytes()


_CRASH = """
import os, sys
sys.path.insert(0, sys.argv[4])
at, real = int(sys.argv[2]), {}
count = 0
def counted(name):
    real[name] = getattr(os, name)
    def call(*args, **more):
        global count
        count += 1
        if count == at:
            os.kill(os.getpid(), 9)
        return real[name](*args, **more)
    return call
for name in ("fsync", "rename", "mkdir", "open"):
    setattr(os, name, counted(name))
from sandbox.types import ComponentId
from supervisor.control.package_store import PackageStore
from supervisor.control.registry import Consent, InstanceRow, PackageRow, Registry
from supervisor.packages.files import FileError
from supervisor.packages.package import PackageFiles
count = 0
root = sys.argv[1]
store = PackageStore(root + "/packages")
registry = Registry(root + "/r.db")
if sys.argv[3] == "sql":
    steps = 0
    def step(statement):
        global steps
        steps += 1
        if steps == at:
            os.kill(os.getpid(), 9)
    count = -10**9
    registry._db.set_trace_callback(step)
store.put("id2", PackageFiles(b"wasm2", b"envelope2", b"manifest2"))
echo = ComponentId("acme", "echo")
row = PackageRow("id2", "acme/echo", "1.0.2", 2, "d" * 64, "k" * 64, "acme", "{}", {}, 1.0, "root")
registry.install(row, InstanceRow(echo, "id2", True, {}, Consent("root", 1.0, [], True), 1.0))
print("done")
"""


@pytest.mark.parametrize("kind", ["files", "sql"])
def test_a_kill_leaves_old_or_new(tmp_path, kind):
    """kill -9 at every step of an install leaves the old package or the new one, whole, and the release never falls."""
    outcomes = set()
    for at in range(1, 40):
        root = tmp_path / str(at)
        root.mkdir()
        registry = Registry(str(root / "r.db"))
        store = PackageStore(str(root / "packages"))
        store.put("id1", PackageFiles(b"wasm1", b"envelope1", b"manifest1"))
        registry.install(package(1), instance(1))
        registry.close()
        here = str(Path(__file__).parents[3])
        done = subprocess.run(
            [sys.executable, "-c", _CRASH, str(root), str(at), kind, here], capture_output=True, text=True, check=False
        )
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        registry = Registry(str(root / "r.db"))
        (row,) = registry.instances()
        outcomes.add(row.package)
        store.sweep({found.id for found in registry.packages()}, unfinished=True)
        number = row.package[2:].encode()
        assert PackageFiles(b"wasm" + number, b"envelope" + number, b"manifest" + number) == store.get(row.package)
        assert [row.package] == os.listdir(store.root)
        assert f"id{registry.package(row.package).release}" == row.package
        registry.close()
        if done.returncode == 0:
            break
    assert {"id1", "id2"} == outcomes, "some kills came before, and the last run came through"


# -- the cache ------------------------------------------------------------------------------------------------

DIGEST = hashlib.sha256(b"wasm").hexdigest()


@pytest.fixture
def cache(tmp_path):
    return Cache(str(tmp_path / "cache"), str(tmp_path / "key"), "engine")


def read(compiled):
    try:
        memory = os.pread(compiled.fd, 100, 0)
        with pytest.raises(PermissionError):
            os.pwrite(compiled.fd, b"x", 0)
        with pytest.raises(PermissionError):
            os.ftruncate(compiled.fd, 0)
        return memory
    finally:
        os.close(compiled.fd)


def test_cache_round_trip(cache, tmp_path):
    """An entry comes back as sealed bytes, for this digest and this engine alone, under a key only we can read."""
    assert cache.get(DIGEST) is None
    cache.put(DIGEST, INFO, memoryview(b"native"))
    compiled = cache.get(DIGEST)
    assert compiled.info == INFO
    assert b"native" == read(compiled)
    assert 0o400 == os.stat(tmp_path / "key").st_mode & 0o777
    other = Cache(str(tmp_path / "cache"), str(tmp_path / "key"), "another engine")
    assert other.get(DIGEST) is None


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_any_changed_byte_is_refused(cache, data):
    """Whatever byte of an entry changes, it is refused, moved aside, and gone for the next reader."""
    cache.put(DIGEST, INFO, memoryview(b"native"))
    path = cache.path(DIGEST)
    cache.shelf.clear()  # a file written twice within a tick of the clock has the same times
    with open(path, "r+b") as file:
        content = file.read()
        at = data.draw(st.integers(0, len(content) - 1))
        file.seek(at)
        file.write(bytes([content[at] ^ data.draw(st.integers(1, 255))]))
    with pytest.raises(CacheError):
        cache.get(DIGEST)
    assert cache.get(DIGEST) is None


def test_cache_attacks(cache, tmp_path):
    """Truncated, extended, another's entry, other mode, a link, a FIFO, another key: refused and moved aside."""
    other = hashlib.sha256(b"other").hexdigest()
    path = cache.path(DIGEST)

    def truncate():
        os.truncate(path, os.path.getsize(path) - 1)

    def extend():
        with open(path, "ab") as file:
            file.write(b"x")

    def swap():
        cache.put(other, INFO, memoryview(b"native"))
        os.rename(cache.path(other), path)

    def open_to_others():
        os.chmod(path, 0o620)

    def link():
        os.rename(path, tmp_path / "elsewhere")
        os.symlink(tmp_path / "elsewhere", path)

    def fifo():
        os.unlink(path)
        os.mkfifo(path, 0o600)

    def empty():
        os.truncate(path, 0)

    for attack in (truncate, extend, swap, open_to_others, link, fifo, empty):
        cache.put(DIGEST, INFO, memoryview(b"native"))
        os.close(cache.get(DIGEST).fd)
        cache.shelf.clear()
        attack()
        with pytest.raises(CacheError):
            cache.get(DIGEST)
        assert cache.get(DIGEST) is None, attack.__name__
    assert 7 == len(list((tmp_path / "cache").glob("*.refused")))
    cache.put(DIGEST, INFO, memoryview(b"native"))
    os.unlink(tmp_path / "key")
    with pytest.raises(CacheError):
        Cache(str(tmp_path / "cache"), str(tmp_path / "key"), "engine").get(DIGEST)


def test_bad_keys_are_refused(tmp_path):
    """A key that others may read, or of another length, is not used."""
    for content, mode in ((b"k" * 32, 0o440), (b"k" * 31, 0o400), (b"k" * 33, 0o400)):
        key = tmp_path / f"key{len(content)}{mode}"
        key.write_bytes(content)
        key.chmod(mode)
        with pytest.raises(CacheError):
            Cache(str(tmp_path / "cache"), str(key), "engine")


@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=200))
def test_compile_results_are_parsed_strictly(data):
    """Whatever a compiler writes is either a whole result or a protocol violation."""
    try:
        result, start = parse_header(data)
    except ProtocolViolation:
        return
    assert len(data) == start + result.cwasm_size


def test_compile_result_round_trip():
    """What the compiler packs, control parses; a size that does not fit is refused."""
    whole = pack_header(INFO) + b"native"
    result, start = parse_header(whole)
    assert (INFO, b"native") == (result, whole[start:])
    for wrong in (whole + b"x", whole[:-1], whole[: start - 1], b""):
        with pytest.raises(ProtocolViolation):
            parse_header(wrong)


def test_store_refuses_links(tmp_path):
    """A link put in a package's place is not followed."""
    store = PackageStore(str(tmp_path / "p"))
    store.put("id", PackageFiles(b"wasm", None, None))
    assert PackageFiles(b"wasm", None, None) == store.get("id")
    (tmp_path / "p" / "id" / "component.wasm").unlink()
    (tmp_path / "p" / "id" / "component.wasm").symlink_to("/etc/passwd")
    with pytest.raises(FileError, match="symbolic"):
        store.get("id")
    with pytest.raises(NotFoundError):
        store.get("other")


def test_sealed_memory(tmp_path):
    """Sealed bytes read back; an unsealed memfd is the positive control for writing."""
    fd = memfd.create("x")
    memfd.write_all(fd, b"abc")
    os.pwrite(fd, b"x", 0)
    memfd.seal(fd)
    with memfd.view(fd) as whole:
        assert b"xbc" == whole[:]
    with pytest.raises(PermissionError):
        os.pwrite(fd, b"y", 0)
    os.close(fd)


def test_a_release_has_one_content(tmp_path):
    """A release number that was installed before comes with the same content or not at all."""
    registry = Registry(str(tmp_path / "r.db"))
    registry.install(package(4), instance(4))
    registry.check_release("acme/echo", 4, "id4")
    with pytest.raises(RollbackError):
        registry.check_release("acme/echo", 4, "another")
    registry.check_release("acme/echo", 5, "another")
    registry.close()
