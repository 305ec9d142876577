"""The cache of compiled components: what control itself wrote, byte for byte, or nothing.

Deserialising a .cwasm runs native code, so an entry is used only when a MAC over all of it proves that control wrote
it for exactly this component and this engine. An entry, little endian:

    8 bytes   magic
    32 bytes  sha256 of the .wasm
    32 bytes  sha256 of the engine fingerprint
    u32, u64  length of the info (MessagePack, `CompileResult`) and of the .cwasm
    info, .cwasm
    32 bytes  HMAC-SHA256 over everything before, under a key only control can read

It is copied into a memfd and sealed first, and the sealed bytes are checked: the file may change meanwhile. Whatever
does not fit is moved aside and reported, and the component is compiled again. What was checked is kept as it is for the
next start (`shelf`), until the file is another one.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
import stat
import struct

import msgspec

from sandbox.wire.compile_result import MAX_CWASM, MAX_HEADER, CompileResult
from supervisor.control import memfd
from supervisor.control.errors import CacheError
from supervisor.control.shelf import CompiledComponent, Mark, Shelf

MAGIC = b"AIRSCW01"
_HEADER = struct.Struct("<8s32s32sIQ")
_MAC = 32
_ASIDE = ".refused"
_KEPT_ASIDE = 8
_info = msgspec.msgpack.Decoder(CompileResult)


class Cache:
    """`<root>/<wasm sha256>-<engine>.cwasm` under the key in `key_path`.

    Args:
        root: the cache directory.
        key_path: 32 random bytes, mode 0400; made if it is not there.
        fingerprint: what the engine is: version, native library, configuration, CPU; how components are patched.
        shelf: what was checked and is kept; a cache for another fingerprint may use the same.
    """

    def __init__(self, root: str, key_path: str, fingerprint: str, shelf: Shelf | None = None) -> None:
        self._root = root
        os.makedirs(root, mode=0o700, exist_ok=True)
        self._key = _load_key(key_path)
        self._engine = hashlib.sha256(fingerprint.encode()).digest()
        self.shelf = shelf or Shelf()

    def path(self, wasm_sha256: str) -> str:
        """Where the entry for these bytes is, if there is one."""
        return os.path.join(self._root, f"{wasm_sha256}-{self._engine.hex()[:16]}.cwasm")

    def put(self, wasm_sha256: str, info: CompileResult, cwasm: memoryview) -> None:
        """Write an entry; it appears whole or not at all. Raises OSError."""
        parts = sealed_entry(self._key, bytes.fromhex(wasm_sha256), self._engine, msgspec.msgpack.encode(info), cwasm)
        path = self.path(wasm_sha256)
        temporary = f"{path}.{secrets.token_hex(8)}"
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(fd, "wb", buffering=0):
                for part in parts:
                    memfd.write_all(fd, part)
                os.fsync(fd)
                os.rename(temporary, path)
                mark = Mark.of(os.fstat(fd))
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
        os.close(self.shelf.put(path, mark, CompiledComponent(memfd.sealed("cwasm", cwasm), info)).fd)

    def get(self, wasm_sha256: str) -> CompiledComponent | None:
        """The compiled component, or None when there is no entry.

        Raises:
            CacheError: there is one, but not as control wrote it; it has been moved aside.
        """
        path = self.path(wasm_sha256)
        try:
            kept = self.shelf.take(path, _mark(path))
            return kept or self._load(path, wasm_sha256)
        except FileNotFoundError:
            return None
        except (CacheError, OSError, msgspec.MsgspecError) as error:
            self._put_aside(path)
            why = error.message if isinstance(error, CacheError) else str(error)
            raise CacheError(f"a cached component was refused: {why}", subject=os.path.basename(path)) from error

    def _load(self, path: str, wasm_sha256: str) -> CompiledComponent:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        copy = memfd.create("cached")
        try:
            mark = _check_file(fd)
            _copy(fd, copy)
            memfd.seal(copy)
            with memfd.view(copy) as whole, memoryview(whole) as data:
                info, cwasm = self._check(data, wasm_sha256)
                try:
                    compiled = CompiledComponent(memfd.sealed("cwasm", cwasm), info)
                finally:
                    cwasm.release()
            return self.shelf.put(path, mark, compiled)
        finally:
            os.close(fd)
            os.close(copy)

    def _check(self, data: memoryview, wasm_sha256: str) -> tuple[CompileResult, memoryview]:
        with data[:-_MAC] as signed, data[-_MAC:] as tag:
            if not hmac.compare_digest(hmac.new(self._key, signed, hashlib.sha256).digest(), bytes(tag)):
                raise CacheError("its MAC does not fit")
        magic, digest, engine, info_length, length = _HEADER.unpack_from(data)
        if magic != MAGIC:
            raise CacheError("it is of another version")
        if digest != bytes.fromhex(wasm_sha256):
            raise CacheError("it was compiled from another component")
        if engine != self._engine:
            raise CacheError("it was compiled for another engine")
        start = _HEADER.size + info_length
        if info_length > MAX_HEADER or length > MAX_CWASM or start + length + _MAC != len(data):
            raise CacheError("its lengths do not add up")
        info = _info.decode(bytes(data[_HEADER.size : start]))
        return info, data[start : start + length]

    def _put_aside(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            # In the same directory: control's Landlock domain moves nothing between directories.
            os.rename(path, f"{path}.{secrets.token_hex(4)}{_ASIDE}")
        names = [os.path.join(self._root, name) for name in os.listdir(self._root) if name.endswith(_ASIDE)]
        for old in sorted(names, key=lambda name: os.lstat(name).st_mtime_ns)[:-_KEPT_ASIDE]:
            with contextlib.suppress(FileNotFoundError, IsADirectoryError):
                os.unlink(old)


def sealed_entry(
    key: bytes, digest: bytes, engine: bytes, info: bytes, cwasm: memoryview | bytes
) -> tuple[bytes, memoryview | bytes, bytes]:
    """The three parts of an entry's file, the MAC last."""
    header = _HEADER.pack(MAGIC, digest, engine, len(info), len(cwasm)) + info
    mac = hmac.new(key, header, hashlib.sha256)
    mac.update(cwasm)
    return header, cwasm, mac.digest()


def entry_parts(data: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    """Digest, engine, info and .cwasm of an entry's bytes, nothing of them checked. Raises struct.error."""
    _, digest, engine, info_length, length = _HEADER.unpack_from(data)
    start = _HEADER.size + info_length
    return digest, engine, data[_HEADER.size : start], data[start : start + length]


def _mark(path: str) -> Mark | None:
    """What the entry's file is now; None when there is none, or it cannot be looked at."""
    try:
        return Mark.of(os.stat(path, follow_symlinks=False))
    except OSError:
        return None


def _check_file(fd: int) -> Mark:
    """What it was when it was opened. Raises CacheError."""
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise CacheError("it is not a regular file")
    if status.st_uid != os.geteuid():
        raise CacheError(f"it belongs to uid {status.st_uid}")
    if status.st_mode & 0o077:
        raise CacheError(f"its mode is {stat.S_IMODE(status.st_mode):o}")
    if not _HEADER.size + _MAC < status.st_size <= MAX_CWASM + MAX_HEADER + _HEADER.size + _MAC:
        raise CacheError("its size is impossible")
    return Mark.of(status)


def _copy(source: int, target: int) -> None:
    left = os.fstat(source).st_size  # a file that grows meanwhile is cut here and fails its MAC
    while left > 0:
        done = os.sendfile(target, source, None, min(left, 1 << 24))
        if done == 0:
            break
        left -= done


def _load_key(path: str) -> bytes:
    """Read the key, or make it.

    Raises:
        CacheError: the file is not ours alone, or not 32 bytes.
    """
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o400)
    except FileExistsError:
        pass
    else:
        with open(fd, "wb") as file:
            file.write(secrets.token_bytes(32))
            file.flush()
            os.fsync(fd)
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with open(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
            raise CacheError("the cache key is not a file of ours alone", subject=path, hint="remove it and the cache")
        key = file.read(33)
    if len(key) != 32:
        raise CacheError("the cache key is not 32 bytes", subject=path, hint="remove it; components are recompiled")
    return key
