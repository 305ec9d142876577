"""What a worker could want on the machine: a process of the same user, with everything it must not be able to reach.

Made for the matrix and gone with it: a listening TCP socket and two Unix ones, a shared memory segment, a file only
that user may read, memory with a known content. It runs as the uid of the controls, as root not as root.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import struct
import tempfile
from dataclasses import dataclass
from types import TracebackType

from supervisor.selftest import scene
from supervisor.selftest.native import fork
from supervisor.selftest.numbers import number

_libc = ctypes.CDLL(None, use_errno=True)
SECRET = 0x5EC2E75EC2E75EC2
"""What lies in its memory."""


@dataclass(frozen=True)
class Found:
    """Where everything is; `borrowed` and `owned` only as root: a set-user-id program of another user, and that user's
    private file."""

    pid: int
    port: int
    abstract: bytes
    path: bytes
    file: bytes
    directory: bytes
    segment: int
    address: int
    queue: bytes
    """The name of a message queue that may be made and is removed in the end."""
    borrowed: bytes
    owned: bytes


class Victim:
    """A context manager around the process."""

    found: Found

    def __enter__(self) -> Victim:
        self._directory = tempfile.mkdtemp(prefix="airssys-victim-")
        os.chmod(self._directory, 0o711)  # noqa: S103 - another user's program runs from it
        os.chown(self._directory, scene.UID, scene.UID if os.geteuid() == 0 else -1)
        reader, writer = os.pipe()
        self._pid = fork()
        if self._pid == 0:
            try:
                os.close(reader)
                _live(self._directory, writer)
            except Exception as error:
                os.write(2, f"{type(error).__name__}: {error}\n".encode())
            finally:
                os._exit(1)
        os.close(writer)
        with os.fdopen(reader, "rb") as file:
            body = file.read()
        if len(body) < 24:
            self.__exit__(None, None, None)
            raise OSError(0, "the victim did not come up")
        port, segment, address = struct.unpack_from("<QqQ", body)
        base = os.fsencode(self._directory)
        self.found = Found(
            self._pid,
            port,
            body[24:],
            base + b"/socket",
            base + b"/secret",
            base,
            segment,
            address,
            f"airssys-selftest-{scene.UID}-{os.getpid()}\0".encode(),
            *self._set_user_id(base),
        )
        return self

    def _set_user_id(self, base: bytes) -> tuple[bytes, bytes]:
        program, file = base + b"/test", base + b"/owned"
        if os.geteuid() == 0:
            shutil.copyfile("/usr/bin/test", program)
            with open(file, "wb"):
                pass
            for path, mode in ((program, 0o4755), (file, 0o400)):
                os.chown(path, scene.FIRST_UID - 1, scene.FIRST_UID - 1)
                os.chmod(path, mode)
        return program, file

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        found = getattr(self, "found", None)
        if found is not None:
            remove_queue(found)
            if found.segment >= 0:
                _libc.shmctl(int(found.segment), 0, None)
        shutil.rmtree(self._directory, ignore_errors=True)


def remove_queue(found: Found) -> None:
    """Remove the message queue, if somebody made it."""
    _libc.syscall(number("mq_unlink"), found.queue)


def _live(directory: str, writer: int) -> None:
    scene.become(scene.UID)
    with open(f"{directory}/secret", "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
        file.write(b"secret")
    tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    tcp.bind((b"127.0.0.1", 0))  # bytes: text would import a codec, from where this uid may not read
    tcp.listen(4096)
    abstract = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    abstract.bind("")
    abstract.listen(4096)
    named = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    named.bind(f"{directory}/socket")
    named.listen(4096)
    segment = int(_libc.shmget(0, 4096, 0o1600))  # IPC_CREAT, for this user alone
    secret = ctypes.c_uint64(SECRET)
    body = struct.pack("<QqQ", tcp.getsockname()[1], segment, ctypes.addressof(secret))
    os.write(writer, body + abstract.getsockname())
    os.close(writer)
    while True:
        signal.pause()
