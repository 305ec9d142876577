"""The trust store: which publishers this host believes, for which names, and what it believes no longer.

One directory; one JSON file per publisher (`NAME.json`) and `revoked.json`, sorted and indented so that people can
read and diff them. Each change writes one whole file durably (`write_atomic`) under the directory's lock. Reading is
strict and closed: a damaged file, a weak key or a file that others may write refuses everything until it is mended.

    store = TrustStore(config.trust_dir)
    package = verify(wasm, envelope, store.keys())
    decision = store.authorize(package.manifest.component.name, package.keyids, digest=package.digest)
"""

from __future__ import annotations

import datetime
import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import msgspec

from sandbox.types import valid_package_name
from supervisor.packages.errors import PackageError, TrustStoreError
from supervisor.packages.keys import PublicKey, fingerprint
from supervisor.packages.statement import is_digest
from supervisor.packages.trust_files import (
    REVOKED,
    Level,
    Publisher,
    Revocation,
    Revocations,
    TrustedKey,
    find_publisher,
    open_store,
    read_publishers,
    read_revocations,
    stamp,
    stored_key,
    valid_level,
    valid_name,
    valid_scopes,
    write_file,
)

__all__ = ["Level", "Publisher", "Revocation", "Revocations", "TrustDecision", "TrustStore", "TrustedKey"]


class TrustDecision(msgspec.Struct, frozen=True):
    """Who vouches for a package, and how far they are believed."""

    publisher: str
    level: Level
    """TRUSTED or REVIEW; a denied package raises."""
    keyids: tuple[str, ...]
    """The publisher's keys that signed."""

    @property
    def needs_consent(self) -> bool:
        """Whether a person has to agree to each install."""
        return self.level is not Level.TRUSTED


class TrustStore:
    """The store in one directory, read afresh for every question, so that a revocation counts at once.

    Args:
        directory: made (0700) on the first change where it is missing; a missing store trusts nobody.
    """

    def __init__(self, directory: str) -> None:
        self.directory = directory

    # -- asking -------------------------------------------------------------------------------------------------

    def list(self) -> list[Publisher]:
        """All publishers by name.

        Raises:
            TrustStoreError: a file is damaged.
            PackageError: E_WEAK_KEY; a stored key is weak.
            AirssysError: E_POLICY_PERM; others may write the store.
        """
        with self._opened() as dir_fd:
            return [] if dir_fd is None else read_publishers(dir_fd)

    def get(self, name: str) -> Publisher:
        """One publisher.

        Raises:
            TrustStoreError: there is none of that name; and as `list`.
        """
        for publisher in self.list():
            if publisher.name == name:
                return publisher
        raise TrustStoreError("there is no such publisher", subject=ascii(name), hint="airssys trust list shows them")

    def keys(self) -> tuple[PublicKey, ...]:
        """Every publisher's keys, for `verify`: also denied and revoked ones, so that `authorize` can say so."""
        return tuple(sorted({PublicKey(bytes.fromhex(key.public)) for entry in self.list() for key in entry.keys}))

    def revocations(self) -> Revocations:
        """The emergency list.

        Raises:
            TrustStoreError: the file is damaged.
        """
        with self._opened() as dir_fd:
            return Revocations() if dir_fd is None else read_revocations(dir_fd)

    def authorize(self, package: str, keyids: Iterable[str], *, digest: str | None = None) -> TrustDecision:
        """Whether those who signed may publish `package`.

        Args:
            package: `namespace/name` from the verified manifest.
            keyids: the keys whose signatures `verify` found good.
            digest: SHA-256 of the component, to be looked up among the revoked.

        Raises:
            PackageError: in this order E_REVOKED, E_DENIED, E_UNTRUSTED, E_SCOPE, E_THRESHOLD.
        """
        if not valid_package_name(package):
            raise PackageError("not a package name", subject=ascii(package), code="E_SCOPE")
        revoked = self.revocations()
        if digest is not None and digest in revoked.digests:
            raise _revoked("this package is revoked", package, revoked.digests[digest])
        signed = set(keyids)
        believed = signed - revoked.keys.keys()
        if signed and not believed:
            keyid = min(signed)
            raise _revoked(f"the key {fingerprint(keyid)} is revoked", package, revoked.keys[keyid])
        publishers = self.list()
        for publisher in publishers:
            if publisher.level is Level.DENY and (
                _in_scope(publisher.scopes, package) or any(key.keyid in signed for key in publisher.keys)
            ):
                raise PackageError(
                    f"the publisher {publisher.name} is denied on this host", subject=package, code="E_DENIED"
                )
        return _decide(package, believed, publishers)

    # -- changing -----------------------------------------------------------------------------------------------

    def add(
        self,
        name: str,
        keys: Iterable[PublicKey],
        scopes: Iterable[str],
        *,
        level: Level | str = Level.REVIEW,
        threshold: int = 1,
        now: datetime.datetime | None = None,
    ) -> Publisher:
        """Believe a publisher. Adding the same again changes nothing.

        Raises:
            TrustStoreError: a name, scope, level or threshold that makes no sense, or the name is taken.
            PackageError: E_DUP_KEY when one of the keys is given twice or is another publisher's; E_REVOKED.
        """
        chosen = list(keys)
        added = stamp(now)
        publisher = Publisher(
            name=valid_name(name),
            level=valid_level(level),
            scopes=valid_scopes(scopes),
            keys=tuple(stored_key(key, added) for key in sorted(chosen)),
            threshold=threshold,
            added=added,
        )
        if not chosen:
            raise TrustStoreError("a publisher has at least one key", subject=name)
        if len(set(chosen)) != len(chosen):
            raise PackageError("one key is given twice", subject=name, code="E_DUP_KEY")
        if not 1 <= threshold <= len(chosen):
            raise TrustStoreError(
                f"threshold {threshold} is not between 1 and the number of different keys", subject=name
            )
        with self._locked() as dir_fd:
            existing = read_publishers(dir_fd)
            for other in existing:
                if other.name == name:
                    if _meaning(other) == _meaning(publisher):
                        return other
                    raise TrustStoreError(
                        "there is a publisher of that name already",
                        subject=name,
                        hint=f"airssys trust rotate {name} exchanges its key; to change more, remove it first",
                    )
            _refuse_taken(existing, chosen, read_revocations(dir_fd))
            write_file(dir_fd, name, publisher)
        return publisher

    def remove(self, name: str) -> None:
        """Believe a publisher no longer. What it installed does not start again.

        Raises:
            TrustStoreError: there is none of that name.
        """
        with self._locked() as dir_fd:
            find_publisher(dir_fd, name)
            os.unlink(f"{name}.json", dir_fd=dir_fd)
            os.fsync(dir_fd)

    def rotate(
        self, name: str, new: PublicKey, *, old: str | None = None, now: datetime.datetime | None = None
    ) -> Publisher:
        """Exchange a publisher's key. Packages that only the old key signed stop being believed.

        Args:
            name: the publisher.
            new: its new key.
            old: id of the key that goes; needed where the publisher has several.

        Raises:
            TrustStoreError: no such publisher or key.
            PackageError: E_DUP_KEY, E_REVOKED as in `add`.
        """
        with self._locked() as dir_fd:
            publisher = find_publisher(dir_fd, name)
            if old is None:
                if len(publisher.keys) != 1:
                    raise TrustStoreError("the publisher has several keys: say which one goes", subject=name)
                old = publisher.keys[0].keyid
            if old not in {key.keyid for key in publisher.keys}:
                raise TrustStoreError("the publisher has no such key", subject=f"{name} {old!a}")
            _refuse_taken(read_publishers(dir_fd), [new], read_revocations(dir_fd))
            kept = [key for key in publisher.keys if key.keyid != old]
            keys = tuple(sorted([*kept, stored_key(new, stamp(now))], key=lambda key: key.public))
            rotated = msgspec.structs.replace(publisher, keys=keys)
            write_file(dir_fd, name, rotated)
        return rotated

    def revoke(self, keyid: str, *, reason: str = "", now: datetime.datetime | None = None) -> Revocations:
        """Never again believe a signature of this key, whoever holds it. Wins over everything, at once.

        Raises:
            TrustStoreError: not a key id.
        """
        return self._revoke("keys", keyid, reason, now)

    def revoke_digest(self, digest: str, *, reason: str = "", now: datetime.datetime | None = None) -> Revocations:
        """Never again start the component with this SHA-256, whoever signed it.

        Raises:
            TrustStoreError: not a SHA-256.
        """
        return self._revoke("digests", digest, reason, now)

    def _revoke(self, kind: str, what: str, reason: str, now: datetime.datetime | None) -> Revocations:
        if not is_digest(what):
            raise TrustStoreError("not 64 small hexadecimal digits", subject=ascii(what[:80]))
        if len(reason) > 500 or not reason.isprintable():
            raise TrustStoreError("the reason is one printable line of at most 500 characters", subject=what)
        with self._locked() as dir_fd:
            revoked = read_revocations(dir_fd)
            table: dict[str, Revocation] = getattr(revoked, kind)
            if what in table:
                return revoked  # the first reason and time stand
            revoked = msgspec.structs.replace(revoked, **{kind: {**table, what: Revocation(reason, stamp(now))}})
            write_file(dir_fd, REVOKED, revoked)
        return revoked

    @contextmanager
    def _opened(self) -> Iterator[int | None]:
        if not os.path.lexists(self.directory):
            yield None
            return
        dir_fd = open_store(self.directory)
        try:
            yield dir_fd
        finally:
            os.close(dir_fd)

    @contextmanager
    def _locked(self) -> Iterator[int]:
        try:
            os.makedirs(self.directory, mode=0o700, exist_ok=True)
        except OSError as error:
            raise TrustStoreError(f"cannot be made: {error.strerror}", subject=self.directory) from error
        dir_fd = open_store(self.directory)
        try:
            fcntl.flock(dir_fd, fcntl.LOCK_EX)  # control and an offline command line may both be changing it
            yield dir_fd
        except OSError as error:
            raise TrustStoreError(f"cannot be changed: {error.strerror}", subject=self.directory) from error
        finally:
            os.close(dir_fd)


# -- deciding ---------------------------------------------------------------------------------------------------


def _decide(package: str, signed: set[str], publishers: list[Publisher]) -> TrustDecision:
    holders = [entry for entry in publishers if any(key.keyid in signed for key in entry.keys)]
    if not holders:
        raise PackageError(
            "nobody this host believes has signed the package",
            subject=package,
            hint="if the publisher is to be believed: airssys trust add NAME --key FILE.pub --scope 'NAME/*'",
            code="E_UNTRUSTED",
        )
    in_scope = [entry for entry in holders if _in_scope(entry.scopes, package)]
    if not in_scope:
        names = ", ".join(entry.name for entry in holders)
        scopes = ", ".join(scope for entry in holders for scope in entry.scopes)
        raise PackageError(
            f"the publisher {names} may not publish this name, only {scopes}", subject=package, code="E_SCOPE"
        )
    decisions = []
    for entry in in_scope:
        found = tuple(key.keyid for key in entry.keys if key.keyid in signed)
        if len(found) >= entry.threshold:
            decisions.append(TrustDecision(entry.name, entry.level, found))
    if not decisions:
        entry = in_scope[0]
        raise PackageError(
            f"the publisher {entry.name} needs {entry.threshold} of its keys to sign; fewer good ones did",
            subject=package,
            code="E_THRESHOLD",
        )
    # A key under two names can only come from hands that wrote the files; then the more careful word counts.
    return min(decisions, key=lambda decision: (decision.level is Level.TRUSTED, decision.publisher))


def _in_scope(scopes: Iterable[str], package: str) -> bool:
    # By component, never by prefix: acme/* covers acme/x and not acme-evil/x.
    namespace, name = package.split("/")
    for scope in scopes:
        scope_namespace, scope_name = scope.split("/")
        if scope_namespace == namespace and scope_name in ("*", name):
            return True
    return False


def _revoked(message: str, package: str, revocation: Revocation) -> PackageError:
    why = f": {revocation.reason}" if revocation.reason else ""
    return PackageError(f"{message} since {revocation.added}{why}", subject=package, code="E_REVOKED")


def _refuse_taken(existing: Iterable[Publisher], keys: list[PublicKey], revoked: Revocations) -> None:
    for key in keys:
        if key.keyid in revoked.keys:
            raise _revoked("the key is revoked", key.fingerprint, revoked.keys[key.keyid])
        for entry in existing:
            if key.keyid in {held.keyid for held in entry.keys}:
                raise PackageError(
                    f"the key belongs to the publisher {entry.name} already", subject=key.fingerprint, code="E_DUP_KEY"
                )


def _meaning(publisher: Publisher) -> tuple[object, ...]:
    return publisher.level, publisher.scopes, {key.keyid for key in publisher.keys}, publisher.threshold
