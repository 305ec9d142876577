"""The storage executor: `airssys:core/storage` on one LMDB environment for all components.

Keys are `namespace/name/instance NUL key`; a component id cannot hold a NUL, so no prefix reaches into another's keys.
What a component uses (bytes of its keys and values, number of keys) stands in a second table and changes in the same
transaction as the values: it is exact at any moment, also after the process is killed.

Durability: each change is one LMDB transaction with full synchronisation (LMDB's default). When `set` or `delete`
answers, the change is on disk; a killed process or a power failure leaves the last committed state.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import struct
from collections.abc import Iterator

import lmdb
import msgspec

from sandbox.errors import AirssysError
from sandbox.types import ComponentId, Limits
from sandbox.wire.bridge_ops import StorageError

# lmdb (3.0) imports this part of itself when the first environment is opened: too late in an empty root.
with contextlib.suppress(ModuleNotFoundError):
    importlib.import_module("lmdb._envid")

MAX_KEY = 256
"""Longest key, bytes of UTF-8. With the longest component id it stays below LMDB's own 511."""
MAX_KEYS = 10_000
"""Most keys `list_keys` answers."""
MAP_SIZE = 4 << 30
"""Default bound of the whole environment, bytes (address space; the file grows as it is used)."""
_PURGE_STEP = 1_000
_USAGE = struct.Struct("<QQ")  # bytes used, keys


class StorageFailure(AirssysError):
    """A storage operation ended with a case of `storage-error`."""

    code = "E_STORAGE"

    def __init__(self, case: StorageError, message: str) -> None:
        super().__init__(message)
        self.case = case


class StorageBroken(AirssysError):
    """The environment cannot be opened."""

    code = "E_STORAGE_OPEN"


class Usage(msgspec.Struct, frozen=True, array_like=True):
    """Bytes used, bytes allowed, number of keys."""

    used: int
    quota: int
    keys: int


def check_key(key: str) -> bytes:
    """The key's bytes.

    Raises:
        StorageFailure: empty, longer than `MAX_KEY` bytes, not UTF-8, or holding a control character.
    """
    try:
        encoded = key.encode()
    except UnicodeEncodeError:
        raise StorageFailure(StorageError.INVALID_KEY, "the key is not valid UTF-8") from None
    if not 1 <= len(encoded) <= MAX_KEY:
        raise StorageFailure(StorageError.INVALID_KEY, f"a key has 1 to {MAX_KEY} bytes")
    if any(char < " " or "\x7f" <= char <= "\x9f" for char in key):
        raise StorageFailure(StorageError.INVALID_KEY, "the key holds a control character")
    return encoded


class Storage:
    """All components' values. One process, one thread."""

    def __init__(self, environment: lmdb.Environment) -> None:
        self._environment = environment
        self._values = environment.open_db(b"values")
        self._usage = environment.open_db(b"usage")

    @classmethod
    def open(cls, dirfd: int, map_size: int = MAP_SIZE) -> Storage:
        """Open the environment in the directory `dirfd`, made if it is new.

        Changes the working directory to `dirfd`: LMDB opens by name, and the bridge has no other path to it. The
        caller goes elsewhere afterwards; LMDB opens nothing later.

        Raises:
            StorageBroken: LMDB cannot open it (damaged, of another version, no rights, no space).
        """
        os.fchdir(dirfd)
        try:
            environment = lmdb.open(
                ".", map_size=map_size, max_dbs=2, mode=0o600, subdir=True, create=False, max_readers=8, readahead=False
            )
            environment.reader_check()
            return cls(environment)
        except lmdb.Error as error:
            raise StorageBroken(
                f"the storage database does not open: {error}", hint="restore it from a backup or move it away"
            ) from error

    def close(self) -> None:
        """Close the environment."""
        self._environment.close()

    # -- operations -------------------------------------------------------------------------------------------

    def get(self, component: ComponentId, key: str) -> bytes | None:
        """The value, or None."""
        full = _full(component, key)
        with _lmdb_errors(), self._environment.begin(self._values) as transaction:
            return transaction.get(full)

    def exists(self, component: ComponentId, key: str) -> bool:
        """Whether the key has a value."""
        return self.get(component, key) is not None

    def set(self, component: ComponentId, key: str, value: bytes, limits: Limits) -> None:
        """Store a value within the component's quota (`limits.storage`, `limits.storage_keys`) and message size."""
        full = _full(component, key)
        if len(value) > limits.message_size:
            raise StorageFailure(StorageError.IO_ERROR, f"a value has at most {limits.message_size} bytes")
        own = len(full) - len(_prefix(component))
        with _lmdb_errors():
            with self._environment.begin(self._values, write=True) as transaction:
                used, keys = self._used(transaction, component)
                old = transaction.get(full)
                after = used + len(value) + (own if old is None else -len(old))
                # What does not grow is always let through, so that a lowered quota can be got under again.
                if after > limits.storage and after > used:
                    raise StorageFailure(StorageError.QUOTA_EXCEEDED, f"{after} of {limits.storage} bytes")
                if old is None and keys >= limits.storage_keys:
                    raise StorageFailure(StorageError.QUOTA_EXCEEDED, f"{keys} of {limits.storage_keys} keys")
                transaction.put(full, value)
                self._note(transaction, component, after, keys + (old is None))

    def delete(self, component: ComponentId, key: str) -> None:
        """Remove a value; `not-found` where there is none."""
        full = _full(component, key)
        with _lmdb_errors():
            with self._environment.begin(self._values, write=True) as transaction:
                old = transaction.get(full)
                if old is None:
                    raise StorageFailure(StorageError.NOT_FOUND, "no such key")
                used, keys = self._used(transaction, component)
                transaction.delete(full)
                self._note(transaction, component, used - len(old) - (len(full) - len(_prefix(component))), keys - 1)

    def list_keys(self, component: ComponentId, prefix: str | None = None) -> list[str]:
        """The component's first `MAX_KEYS` keys that begin with `prefix`, sorted by their bytes."""
        start = _prefix(component) + (check_key(prefix) if prefix else b"")
        skip = len(_prefix(component))
        keys: list[str] = []
        with _lmdb_errors(), self._environment.begin(self._values) as transaction:
            for full in _keys_from(transaction, start):
                if len(keys) == MAX_KEYS:
                    break
                keys.append(full[skip:].decode())
        return keys

    def usage(self, component: ComponentId, limits: Limits) -> Usage:
        """What the component uses and may use."""
        with _lmdb_errors(), self._environment.begin(self._usage) as transaction:
            used, keys = self._used(transaction, component)
        return Usage(used, limits.storage, keys)

    def purge(self, component: ComponentId) -> int:
        """Remove everything a component stored; the number of keys removed.

        Done in steps, each a transaction of its own: interrupted, what is left is consistent and can be purged again.
        """
        prefix, removed = _prefix(component), 0
        with _lmdb_errors():
            while True:
                with self._environment.begin(self._values, write=True) as transaction:
                    batch = []
                    for full in _keys_from(transaction, prefix):
                        batch.append(full)
                        if len(batch) == _PURGE_STEP:
                            break
                    used, keys = self._used(transaction, component)
                    for full in batch:
                        used -= len(transaction.pop(full) or b"") + len(full) - len(prefix)
                    if len(batch) < _PURGE_STEP:
                        transaction.delete(prefix, db=self._usage)
                        return removed + len(batch)
                    self._note(transaction, component, used, keys - len(batch))
                    removed += len(batch)

    # -- steps ------------------------------------------------------------------------------------------------

    def _used(self, transaction: lmdb.Transaction, component: ComponentId) -> tuple[int, int]:
        stored = transaction.get(_prefix(component), db=self._usage)
        if stored is None:
            return 0, 0
        used, keys = _USAGE.unpack(stored)
        return used, keys

    def _note(self, transaction: lmdb.Transaction, component: ComponentId, used: int, keys: int) -> None:
        transaction.put(_prefix(component), _USAGE.pack(used, keys), db=self._usage)


def _prefix(component: ComponentId) -> bytes:
    return str(component).encode() + b"\0"


def _full(component: ComponentId, key: str) -> bytes:
    return _prefix(component) + check_key(key)


def _keys_from(transaction: lmdb.Transaction, start: bytes) -> Iterator[bytes]:
    cursor = transaction.cursor()
    found = cursor.set_range(start)
    while found:
        full = bytes(cursor.key())
        if not full.startswith(start):
            return
        yield full
        found = cursor.next()


@contextlib.contextmanager
def _lmdb_errors() -> Iterator[None]:
    # The transaction is aborted before the error comes here: nothing changed. ENOSPC has no class of its own.
    try:
        yield
    except lmdb.Error as error:
        full = isinstance(error, (lmdb.MapFullError, lmdb.DiskError)) or os.strerror(errno.ENOSPC) in str(error)
        text = "storage is full" if full else "the storage database failed"
        raise StorageFailure(StorageError.IO_ERROR, text) from error
