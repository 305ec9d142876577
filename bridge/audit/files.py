"""The log directory: files that only grow, their rotation, and the signing key.

Everything is opened relative to one directory descriptor and never through a link; only the auditor's uid can read
any of it (0600), except `audit.pub`, which is for everyone.

    audit.jsonl, audit.000001.jsonl, ...    the chain, newest first; rotated files are never changed or removed
    logs.jsonl, logs.1.jsonl                what guests logged, newest first; older lines are gone
    audit.key, audit.pub                    Ed25519: PKCS#8 and SubjectPublicKeyInfo, PEM
"""

from __future__ import annotations

import os
import re
import stat

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from sandbox.errors import AirssysError

AUDIT, LOGS = "audit.jsonl", "logs.jsonl"
KEY, PUBLIC_KEY = "audit.key", "audit.pub"
_NEXT = "audit.next.jsonl"
_ROTATED_RE = re.compile(r"audit\.(\d{6})\.jsonl\Z")
_BLOCK = 256 * 1024
_MAX_KEY_FILE = 4096


class AuditKeyUnusable(AirssysError):
    """The auditor's key file is not one, or others can read it."""

    code = "E_AUDIT_KEY"


class GrowingFile:
    """A file that is only appended to, in whole lines.

    Args:
        dirfd: the log directory.
        name: the file's name, made if it is new.
    """

    def __init__(self, dirfd: int, name: str) -> None:
        self._dirfd = dirfd
        self.name = name
        self.fd = _open(dirfd, name, os.O_RDWR | os.O_APPEND | os.O_CREAT)
        self.size = os.fstat(self.fd).st_size

    def append(self, data: bytes) -> None:
        """Write whole lines, all of them or none.

        Raises:
            OSError: they could not be written (ENOSPC, EIO, ...); what was written of them is cut off again.
        """
        written = 0
        try:
            while written < len(data):
                written += os.write(self.fd, memoryview(data)[written:])
        except OSError:
            if written:
                os.ftruncate(self.fd, self.size)
            raise
        self.size += len(data)

    def cut_torn_line(self) -> int:
        """Remove what follows the last line feed (a line that a killed process left); the number of bytes."""
        end = self.size
        while end > 0:
            start = max(0, end - _BLOCK)
            found = os.pread(self.fd, end - start, start).rfind(b"\n")
            if found >= 0:
                end = start + found + 1
                break
            end = start
        torn = self.size - end
        if torn:
            os.ftruncate(self.fd, end)
            self.size = end
        return torn

    def sync(self) -> None:
        """Wait until everything is on disk (raises OSError)."""
        os.fdatasync(self.fd)

    def close(self) -> None:
        """Close it."""
        os.close(self.fd)


def _open(dirfd: int, name: str, flags: int) -> int:
    return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=dirfd)


def rotated(dirfd: int) -> list[str]:
    """Names of the audit log's rotated files, oldest first."""
    return sorted(name for name in os.listdir(dirfd) if _ROTATED_RE.match(name))


def log_files(dirfd: int) -> list[str]:
    """Names of all the audit log's files, oldest first; what `chain.verify` wants the lines of.

    The current file is missing where the auditor was killed in the middle of a rotation; it is made at the next start.
    """
    return rotated(dirfd) + [name for name in os.listdir(dirfd) if name == AUDIT]


def rotate_audit(dirfd: int, current: GrowingFile) -> tuple[str, GrowingFile]:
    """Put the full file aside under the next number; its new name and the new, empty file.

    The new file is made first: a full disk stops here and leaves everything as it was.
    """
    names = rotated(dirfd)
    name = f"audit.{int(names[-1][6:12]) + 1 if names else 1:06}.jsonl"
    fresh = GrowingFile(dirfd, _NEXT)
    try:
        os.ftruncate(fresh.fd, 0)
        fresh.size = 0
        current.sync()
        os.rename(AUDIT, name, src_dir_fd=dirfd, dst_dir_fd=dirfd)
        try:
            os.rename(_NEXT, AUDIT, src_dir_fd=dirfd, dst_dir_fd=dirfd)
        except OSError:
            os.rename(name, AUDIT, src_dir_fd=dirfd, dst_dir_fd=dirfd)
            raise
    except BaseException:
        fresh.close()
        raise
    fresh.name = AUDIT
    current.close()
    return name, fresh


def rotate_logs(dirfd: int, current: GrowingFile) -> GrowingFile:
    """Put the full log aside, over the one before it; the new, empty file."""
    os.rename(LOGS, "logs.1.jsonl", src_dir_fd=dirfd, dst_dir_fd=dirfd)
    current.close()
    return GrowingFile(dirfd, LOGS)


def last_line(dirfd: int, name: str) -> bytes:
    """The last line of a file without its line feed; empty for an empty file (raises OSError)."""
    fd = _open(dirfd, name, os.O_RDONLY)
    try:
        end = os.fstat(fd).st_size
        tail, start = b"", end
        while start > 0:
            size = min(_BLOCK, start)
            start -= size
            tail = os.pread(fd, size, start) + tail
            at = tail.rfind(b"\n", 0, len(tail) - 1)
            if at >= 0:
                return tail[at + 1 :].rstrip(b"\n")
        return tail.rstrip(b"\n")
    finally:
        os.close(fd)


def load_key(dirfd: int) -> Ed25519PrivateKey:
    """The log's signing key, made at the first start.

    Raises:
        AuditKeyUnusable: the file is no Ed25519 key, or its mode lets others read it.
        OSError: it cannot be read or written.
    """
    try:
        fd = _open(dirfd, KEY, os.O_RDONLY)
    except FileNotFoundError:
        return _make_key(dirfd)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o077:
            raise AuditKeyUnusable("others may read the audit key", subject=KEY, hint=f"chmod 600 {KEY}")
        data = os.read(fd, _MAX_KEY_FILE)
    finally:
        os.close(fd)
    try:
        key = serialization.load_pem_private_key(data, None)
    except (ValueError, TypeError) as error:
        raise AuditKeyUnusable("not an unencrypted PEM private key", subject=KEY) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise AuditKeyUnusable("not an Ed25519 key", subject=KEY)
    return key


def load_public_key(data: bytes) -> Ed25519PublicKey:
    """The public key in the bytes of `audit.pub`.

    Raises:
        AuditKeyUnusable: they hold none.
    """
    try:
        key = serialization.load_pem_public_key(data)
    except ValueError as error:
        raise AuditKeyUnusable("not a PEM public key", subject=PUBLIC_KEY) from error
    if not isinstance(key, Ed25519PublicKey):
        raise AuditKeyUnusable("not an Ed25519 key", subject=PUBLIC_KEY)
    return key


def _make_key(dirfd: int) -> Ed25519PrivateKey:
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    # The public half first: a key file that exists always has its public one beside it.
    _replace(dirfd, PUBLIC_KEY, public, 0o644)
    _replace(dirfd, KEY, private, 0o600)
    os.fsync(dirfd)
    return key


def _replace(dirfd: int, name: str, data: bytes, mode: int) -> None:
    temporary = f".{name}.new"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=dirfd)
    try:
        os.fchmod(fd, mode)
        os.write(fd, data)
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(temporary, name, src_dir_fd=dirfd, dst_dir_fd=dirfd)
