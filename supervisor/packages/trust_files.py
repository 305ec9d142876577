"""The files of the trust store: what a publisher and the revocations look like, and reading them without belief.

Every value read is checked as strictly as one that is given: key ids are computed anew, keys pass the point check,
names and scopes are well formed, and nobody but the owner may write the file.
"""

from __future__ import annotations

import datetime
import enum
import os
import re
from collections.abc import Iterable
from typing import TypeVar

import msgspec

from bridge.capabilities import HOST_NAMESPACE
from sandbox.types import MAX_NAME, valid_package_name
from supervisor.packages.errors import PackageError, TrustStoreError
from supervisor.packages.files import FileError, check_owner_only_writes, open_directory, read_regular, write_atomic
from supervisor.packages.keys import PublicKey, public_from_raw
from supervisor.packages.statement import is_digest
from supervisor.packages.strict_json import loads_object

REVOKED = "revoked"
"""The file of revocations; no publisher may have this name."""
T = TypeVar("T")
_MAX_FILE = 1 << 20
_NAME_RE = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*\Z")


class Level(enum.StrEnum):
    """How far a publisher is believed."""

    TRUSTED = "trusted"
    """Packages install once their capabilities have been shown."""
    REVIEW = "review"
    """Each install needs a person's consent."""
    DENY = "deny"
    """Nothing of theirs is ever installed or started, whoever else signed it."""


class TrustedKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One key of a publisher, as stored."""

    keyid: str
    public: str
    """The raw key, 64 hexadecimal digits."""
    added: str
    """RFC 3339, UTC, whole seconds."""


class Publisher(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One publisher, as stored."""

    name: str
    level: Level
    scopes: tuple[str, ...]
    """`acme/*` or `acme/reader`."""
    keys: tuple[TrustedKey, ...]
    threshold: int
    """How many of `keys` must have signed."""
    added: str
    """RFC 3339, UTC, whole seconds."""


class Revocation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why and since when something is revoked."""

    reason: str
    added: str


class Revocations(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The emergency list: by key id, by SHA-256 of component.wasm."""

    keys: dict[str, Revocation] = {}
    digests: dict[str, Revocation] = {}


# -- checking what is given ---------------------------------------------------------------------------------------


def valid_name(name: str) -> str:
    """`name`, if a publisher may have it. Raises TrustStoreError."""
    if name == REVOKED or len(name) > MAX_NAME or not _NAME_RE.match(name):
        raise TrustStoreError(
            "not a publisher's name",
            subject=ascii(name[:80]),
            hint=f"small letters, digits and hyphens, at most {MAX_NAME}, and not {REVOKED}",
        )
    return name


def valid_level(level: Level | str) -> Level:
    """`level` as a Level. Raises TrustStoreError."""
    try:
        return Level(level)
    except ValueError as error:
        raise TrustStoreError(
            "not a level", subject=ascii(level), hint="one of " + ", ".join(known.value for known in Level)
        ) from error


def valid_scopes(scopes: Iterable[str]) -> tuple[str, ...]:
    """The scopes, sorted, each once: `namespace/*` or `namespace/name`. Raises TrustStoreError."""
    chosen = tuple(sorted(set(scopes)))
    if not chosen:
        raise TrustStoreError("a publisher needs a scope", hint="as --scope 'acme/*'")
    for scope in chosen:
        plain = scope[:-1] + "x" if scope.endswith("/*") else scope
        if not valid_package_name(plain) or scope.startswith(f"{HOST_NAMESPACE}/"):
            raise TrustStoreError("not a scope", subject=ascii(scope[:150]), hint="write it as acme/* or acme/reader")
    return chosen


def stored_key(key: PublicKey, added: str) -> TrustedKey:
    """A key in its stored form."""
    return TrustedKey(keyid=key.keyid, public=key.raw.hex(), added=added)


def stamp(now: datetime.datetime | None) -> str:
    """A moment (the present one unless told) as RFC 3339, UTC, whole seconds."""
    return (now or datetime.datetime.now(datetime.UTC)).astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# -- files ------------------------------------------------------------------------------------------------------


def open_store(directory: str) -> int:
    """A descriptor of the store's directory. Raises TrustStoreError, or AirssysError with E_POLICY_PERM."""
    try:
        dir_fd = open_directory(directory)
    except FileError as error:
        raise TrustStoreError(error.message, subject=directory, hint=error.hint) from error
    try:
        check_owner_only_writes(os.fstat(dir_fd), directory)
    except BaseException:
        os.close(dir_fd)
        raise
    return dir_fd


def read_publishers(dir_fd: int) -> list[Publisher]:
    """All publishers by name. Raises TrustStoreError for a damaged file, PackageError E_WEAK_KEY for a weak key."""
    publishers = []
    for file in sorted(os.listdir(dir_fd)):
        # A dot begins the temporary file of a write that a crash interrupted.
        if file.startswith(".") or not file.endswith(".json") or file == f"{REVOKED}.json":
            continue
        publisher = _read(dir_fd, file, Publisher)
        try:
            _check_stored(publisher, file)
        except TrustStoreError as error:
            raise TrustStoreError(f"{file} is damaged: {error.message}", subject=error.subject) from error
        publishers.append(publisher)
    return publishers


def _check_stored(publisher: Publisher, file: str) -> None:
    if f"{valid_name(publisher.name)}.json" != file:
        raise TrustStoreError("it names another publisher", subject=publisher.name)
    if valid_scopes(publisher.scopes) != publisher.scopes:
        raise TrustStoreError("its scopes are not sorted", subject=publisher.name)
    for key in publisher.keys:
        if not is_digest(key.public):
            raise TrustStoreError("a key is not 64 small hexadecimal digits", subject=publisher.name)
        if public_from_raw(bytes.fromhex(key.public), subject=file).keyid != key.keyid:
            raise TrustStoreError("a key id does not belong to its key", subject=publisher.name)
    if not 1 <= publisher.threshold <= len({key.public for key in publisher.keys}):
        raise TrustStoreError("its threshold is not between 1 and the number of keys", subject=publisher.name)


def find_publisher(dir_fd: int, name: str) -> Publisher:
    """One publisher. Raises TrustStoreError where there is none."""
    for publisher in read_publishers(dir_fd):
        if publisher.name == name:
            return publisher
    raise TrustStoreError("there is no such publisher", subject=ascii(name[:80]), hint="airssys trust list shows them")


def read_revocations(dir_fd: int) -> Revocations:
    """The emergency list; a missing file is an empty list. Raises TrustStoreError for a damaged one."""
    try:
        os.stat(f"{REVOKED}.json", dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return Revocations()
    revoked = _read(dir_fd, f"{REVOKED}.json", Revocations)
    if not all(is_digest(what) for what in (*revoked.keys, *revoked.digests)):
        raise TrustStoreError("an entry is not 64 small hexadecimal digits", subject=f"{REVOKED}.json")
    return revoked


def _read(dir_fd: int, file: str, kind: type[T]) -> T:
    try:
        data, state = read_regular(file, max_bytes=_MAX_FILE, dir_fd=dir_fd)
        check_owner_only_writes(state, file)
        return msgspec.convert(loads_object(data, max_bytes=_MAX_FILE, what=file), kind)
    except (PackageError, msgspec.ValidationError, FileNotFoundError) as error:
        raise TrustStoreError(
            f"{file} is damaged: {error}", subject=file, hint="restore it; nothing is believed until then"
        ) from error


def write_file(dir_fd: int, name: str, value: msgspec.Struct) -> None:
    """Replace a file of the store, sorted and indented."""
    text = msgspec.json.format(msgspec.json.encode(value, order="sorted"), indent=2)
    write_atomic(dir_fd, f"{name}.json", text + b"\n", mode=0o600)
