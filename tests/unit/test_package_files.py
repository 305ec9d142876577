"""Reading a stranger's package directory and replacing our own files."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sandbox.errors import AirssysError
from supervisor.packages import files
from supervisor.packages.envelope import read_package, sign, verify
from supervisor.packages.errors import PackageError
from supervisor.packages.files import check_owner_only_writes, write_atomic
from supervisor.packages.keys import SigningKey
from supervisor.packages.layer import COMPONENT_PREAMBLE
from supervisor.packages.package import MAX_ENVELOPE, MAX_WASM

pytestmark = pytest.mark.block7_lifecycle

MANIFEST = """[component]
name = "acme/redactor"
version = "1.4.0"
release = 17
world = "airssys:core/runtime-host@1.0.0"
"""
WASM = COMPONENT_PREAMBLE + b"\x00\x05\x04note"
EVIL = COMPONENT_PREAMBLE + b"\x00\x05\x04evil"
KEY = SigningKey(Ed25519PrivateKey.from_private_bytes(b"\x07" * 32))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "package"
    path.mkdir()
    (path / "component.wasm").write_bytes(WASM)
    (path / "component.toml").write_text(MANIFEST)
    sign(str(path), KEY)
    return path


def refuse(directory: Path) -> PackageError:
    with pytest.raises(PackageError) as caught:
        read_package(str(directory))
    return caught.value


def test_a_package_is_read(directory: Path) -> None:
    """The three files as bytes; envelope and manifest may be missing, the component may not."""
    package = read_package(str(directory))
    assert WASM == package.wasm
    assert verify(package.wasm, package.envelope, [KEY.public], manifest_toml=package.manifest)
    (directory / "component.toml").unlink()
    (directory / "component.dsse.json").unlink()
    package = read_package(str(directory))
    assert (None, None) == (package.envelope, package.manifest)
    (directory / "component.wasm").unlink()
    assert "component.wasm" in refuse(directory).message


@pytest.mark.parametrize("name", ["component.wasm", "component.toml", "component.dsse.json"])
@pytest.mark.parametrize("kind", ["link", "fifo", "directory", "device", "socket"])
def test_what_is_no_regular_file_is_refused_without_reading(
    directory: Path, name: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Links, FIFOs, directories, devices and sockets are refused; none is opened, so none can block."""
    assert read_package(str(directory))
    path = directory / name
    path.rename(directory / "aside")
    if kind == "link":
        path.symlink_to("aside")
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        os.mknod(path, 0o600 | 0o140000)
    opened: list[object] = []
    real = os.open
    monkeypatch.setattr(files.os, "open", lambda *args, **more: opened.append(args[0]) or real(*args, **more))
    error = refuse(directory)
    assert "E_PACKAGE" == error.code
    assert name in error.message
    assert name not in opened


def test_a_device_itself_is_refused(directory: Path) -> None:
    """A device node in a file's place is refused (root alone can make one)."""
    if os.geteuid() != 0:
        pytest.skip("making a device node needs root")
    (directory / "component.wasm").unlink()
    try:
        os.mknod(directory / "component.wasm", 0o600 | 0o020000, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("this environment lets nobody make device nodes")
    assert "a device" in refuse(directory).message


def test_a_huge_sparse_file_is_refused_without_reading(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that claims to be larger than its cap is E_SIZE, and not a byte of it is read."""
    os.truncate(directory / "component.wasm", 1 << 36)
    reads: list[int] = []
    monkeypatch.setattr(files.os, "read", lambda fd, size: reads.append(size) or b"")
    assert "E_SIZE" == refuse(directory).code
    assert [] == reads


@pytest.mark.parametrize(
    ("name", "most"),
    [("component.wasm", MAX_WASM), ("component.dsse.json", MAX_ENVELOPE), ("component.toml", 256 << 10)],
)
def test_the_caps_are_exact(directory: Path, name: str, most: int) -> None:
    """A file of exactly its cap is read, one byte more is not."""
    os.truncate(directory / name, most)
    assert read_package(str(directory))
    os.truncate(directory / name, most + 1)
    assert "E_SIZE" == refuse(directory).code


def test_a_file_that_grows_while_it_is_read(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Endless data stop at the cap even if the size said otherwise."""
    monkeypatch.setattr(files.os, "read", lambda fd, size: b"x" * size)
    assert "E_SIZE" == refuse(directory).code


def test_the_directory_itself_may_not_be_a_link(directory: Path, tmp_path: Path) -> None:
    """A link, a file and nothing at all are no package directories."""
    (tmp_path / "link").symlink_to(directory)
    assert "symbolic link" in refuse(tmp_path / "link").hint
    refuse(directory / "component.wasm")
    refuse(tmp_path / "missing")


def test_swapping_the_file_meanwhile_never_passes_unverified_bytes(directory: Path) -> None:
    """While another thread keeps exchanging component.wasm, what verifies is what was signed, byte for byte."""
    good, evil, target = directory / "good", directory / "evil", directory / "component.wasm"
    done = threading.Event()

    def exchange() -> None:
        while not done.is_set():
            evil.write_bytes(EVIL)
            evil.rename(target)
            good.write_bytes(WASM)
            good.rename(target)
            target.unlink()
            target.symlink_to("evil")
            target.unlink()
            good.write_bytes(WASM)
            good.rename(target)

    thread = threading.Thread(target=exchange)
    thread.start()
    seen: set[str] = set()
    try:
        for _ in range(400):
            try:
                package = read_package(str(directory))
                verify(package.wasm, package.envelope, [KEY.public])
            except PackageError as error:
                seen.add(error.code)
            else:
                assert WASM == package.wasm
                seen.add("good")
    finally:
        done.set()
        thread.join()
    assert seen <= {"good", "E_DIGEST", "E_SIZE", "E_PACKAGE"}
    assert "good" in seen


# -- writing ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["write", "fchmod", "fsync", "rename"])
@pytest.mark.parametrize("crash", [True, False])
def test_a_write_that_is_cut_leaves_the_old_file_or_the_new(tmp_path: Path, call: str, crash: bool) -> None:
    """Killed or failing at any step, the file is wholly old or wholly new; a failure leaves nothing behind."""
    (tmp_path / "f").write_bytes(b"old")
    outcomes = set()
    for count in (1, 2):
        child = os.fork()
        if child == 0:
            _cut(str(tmp_path), call, count, crash)
        assert 9 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) or count == 2
        outcomes.add((tmp_path / "f").read_bytes())
        if not crash:
            assert ["f"] == os.listdir(tmp_path)
    assert outcomes <= {b"old", b"new"}
    assert b"old" in outcomes


def _cut(directory: str, call: str, count: int, crash: bool) -> None:
    """In a child: die (or fail) at the count-th use of a system call during the write."""
    real = getattr(os, call)
    left = [count]

    def cut(*args: object, **more: object) -> object:
        left[0] -= 1
        if left[0] == 0:
            if crash:
                os._exit(9)
            raise OSError(28, "No space left on device")
        return real(*args, **more)

    setattr(files.os, call, cut)
    code = 1
    try:
        write_atomic(os.open(directory, os.O_RDONLY), "f", b"new", mode=0o600)
        code = 0
    except OSError:
        code = 9
    finally:
        os._exit(code)


def test_write_atomic_replaces_a_link_and_does_not_follow_it(tmp_path: Path) -> None:
    """What a link under the name points to is not written to."""
    (tmp_path / "victim").write_bytes(b"precious")
    (tmp_path / "f").symlink_to("victim")
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        write_atomic(fd, "f", b"new", mode=0o640)
    finally:
        os.close(fd)
    assert b"precious" == (tmp_path / "victim").read_bytes()
    assert b"new" == (tmp_path / "f").read_bytes()
    assert not (tmp_path / "f").is_symlink()
    assert 0o640 == os.stat(tmp_path / "f").st_mode & 0o777


@pytest.mark.parametrize(
    ("mode", "fine"), [(0o600, True), (0o644, True), (0o664, False), (0o646, False), (0o666, False)]
)
def test_files_others_may_write_are_refused(tmp_path: Path, mode: int, fine: bool) -> None:
    """Group or world write is E_POLICY_PERM."""
    path = tmp_path / "f"
    path.touch()
    path.chmod(mode)
    if fine:
        check_owner_only_writes(os.stat(path), "f")
    else:
        with pytest.raises(AirssysError) as caught:
            check_owner_only_writes(os.stat(path), "f")
        assert "E_POLICY_PERM" == caught.value.code


def test_a_strangers_file_is_refused(tmp_path: Path) -> None:
    """A file of another user than root or oneself is E_POLICY_PERM."""
    if os.geteuid() != 0:
        pytest.skip("giving a file away needs root")
    path = tmp_path / "f"
    path.touch(0o600)
    check_owner_only_writes(os.stat(path), "f")
    os.chown(path, 54321, 0)
    with pytest.raises(AirssysError) as caught:
        check_owner_only_writes(os.stat(path), "f")
    assert "E_POLICY_PERM" == caught.value.code
