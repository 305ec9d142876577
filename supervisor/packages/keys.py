"""Publishers' keys: Ed25519 (RFC 8032), PKCS#8 and SubjectPublicKeyInfo in PEM.

A key's id is computed, never read: SHA-256 of the 32 raw public bytes, in hexadecimal. Every public key, wherever it
comes from, passes libsodium's point check first: under a key of small order anybody can "sign" anything, and neither
OpenSSL nor the usual test vectors object to such keys.
"""

from __future__ import annotations

import hashlib
import os

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from nacl.bindings import crypto_core_ed25519_is_valid_point

from supervisor.packages.errors import KeyFileError, PackageError
from supervisor.packages.files import FileError, create_new, read_regular

_MAX_FILE = 16 * 1024


class PublicKey(msgspec.Struct, frozen=True, order=True):
    """A checked Ed25519 public key. Made by `public_from_raw` and the loaders, which do the checking."""

    raw: bytes

    @property
    def keyid(self) -> str:
        """SHA-256 of the raw key, 64 hexadecimal digits."""
        return hashlib.sha256(self.raw).hexdigest()

    @property
    def fingerprint(self) -> str:
        """The first 128 bits of the key id in groups, for people to compare."""
        return fingerprint(self.keyid)

    def pem(self) -> bytes:
        """SubjectPublicKeyInfo, PEM."""
        key = Ed25519PublicKey.from_public_bytes(self.raw)
        return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


class SigningKey:
    """A private key and its public half. Its text form shows the public half only."""

    __slots__ = ("private", "public")

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self.private = private
        self.public = public_from_raw(private.public_key().public_bytes_raw())

    def __repr__(self) -> str:
        return f"SigningKey({self.public.fingerprint})"


def fingerprint(keyid: str) -> str:
    """A key id as people compare it: `3f2a-91c0-...`, eight groups."""
    return "-".join(keyid[at : at + 4] for at in range(0, 32, 4))


def public_from_raw(raw: bytes, *, subject: str = "") -> PublicKey:
    """Check and wrap 32 raw bytes.

    Raises:
        PackageError: E_ALG when these are not 32 bytes; E_WEAK_KEY when the point is of small or mixed order, not
            on the curve, or encoded in a second way.
    """
    if len(raw) != 32:
        raise PackageError("not an Ed25519 public key", subject=subject, code="E_ALG")
    if not crypto_core_ed25519_is_valid_point(raw):
        raise PackageError(
            "the public key is weak: anybody could sign in its name",
            subject=subject or raw.hex(),
            hint="this is no key that honest software makes; do not trust where it came from",
            code="E_WEAK_KEY",
        )
    return PublicKey(raw)


def parse_public(pem: bytes, *, subject: str = "") -> PublicKey:
    """Read a PEM public key.

    Raises:
        KeyFileError: no PEM public key.
        PackageError: E_ALG for another algorithm, E_WEAK_KEY as in `public_from_raw`.
    """
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise KeyFileError(
            "not a PEM public key", subject=subject, hint="give the FILE.pub that `airssys keygen` wrote"
        ) from error
    if not isinstance(key, Ed25519PublicKey):
        raise PackageError(
            f"an Ed25519 key is needed; this is a {type(key).__name__.lstrip('_')}", subject=subject, code="E_ALG"
        )
    return public_from_raw(key.public_bytes_raw(), subject=subject)


def load_public(path: str) -> PublicKey:
    """Read `FILE.pub`. Links are followed: what is in it is public and checked.

    Raises:
        KeyFileError, PackageError: see `parse_public`; also when the file cannot be read.
    """
    data, _ = _read(os.path.realpath(path), path)
    return parse_public(data, subject=path)


def load_private(path: str) -> SigningKey:
    """Read a private key file.

    Raises:
        KeyFileError: missing, a link, readable by others than its owner, or no PEM private key (an encrypted one
            included).
        PackageError: E_ALG when it is a key of another algorithm.
    """
    data, state = _read(path, path)
    if state.st_mode & 0o077:
        raise KeyFileError(
            "the private key may be read or changed by others",
            subject=path,
            hint=f"chmod 600 {path}, or make a new one",
        )
    if state.st_uid not in (0, os.geteuid()):
        raise KeyFileError(f"the private key belongs to user {state.st_uid}", subject=path)
    try:
        key = load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise KeyFileError(
            "not an unencrypted PEM private key", subject=path, hint="give the FILE that `airssys keygen --out` wrote"
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise PackageError("an Ed25519 private key is needed", subject=path, code="E_ALG")
    return SigningKey(key)


def generate(path: str) -> PublicKey:
    """Make a new key: `path` (0600, PKCS#8) and `path`.pub (0644).

    Raises:
        KeyFileError: one of the files exists already (neither is touched), or cannot be written.
    """
    key = SigningKey(Ed25519PrivateKey.generate())
    private_pem = key.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        create_new(path, private_pem, mode=0o600)
        try:
            create_new(f"{path}.pub", key.public.pem(), mode=0o644)
        except BaseException:
            os.unlink(path)  # half a pair helps nobody, and this call made it
            raise
    except FileExistsError as error:
        raise KeyFileError(
            "exists already and is not overwritten",
            subject=str(error.filename),
            hint="give another name, or move the old key away first",
        ) from error
    except OSError as error:
        raise KeyFileError(f"cannot be written: {error.strerror}", subject=path) from error
    return key.public


def _read(path: str, subject: str) -> tuple[bytes, os.stat_result]:
    try:
        return read_regular(path, max_bytes=_MAX_FILE)
    except FileNotFoundError as error:
        raise KeyFileError("there is no such key file", subject=subject) from error
    except FileError as error:
        raise KeyFileError(error.message, subject=subject) from error
