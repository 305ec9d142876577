"""The other end of `airssys selftest serve`: a subprocess, JSON lines, answers by id.

The server lives as long as its standard input, which is a pipe of this process: however this process ends, the server
hears of it and removes its host.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

PROTOCOL = 1
ANSWER_SECONDS = 120.0
"""Longest wait for an answer, beyond what the request itself may take."""
END_SECONDS = 60.0


class HostError(Exception):
    """The host, or the server, refused.

    Attributes:
        code: stable, as in docs/reference/errors.md; `E_GONE`: the server is gone, `E_COMMAND`: a command failed.
        message: what happened.
        subject: to which object, or "".
        hint: what to do, or "".
    """

    def __init__(self, code: str, message: str, subject: str = "", hint: str = "") -> None:
        text = f"{code}: {message}" + (f" [{subject}]" if subject else "") + (f"; {hint}" if hint else "")
        super().__init__(text)
        self.code, self.message, self.subject, self.hint = code, message, subject, hint


def find_command() -> list[str]:
    """The command `airssys`: beside this interpreter, else wherever PATH has it. Raises HostError."""
    beside = os.path.join(os.path.dirname(sys.executable), "airssys")
    found = beside if os.access(beside, os.X_OK) else shutil.which("airssys")
    if found is None:
        raise HostError("E_GONE", "there is no command airssys", hint="install airssys-wasm, or give --airssys-command")
    return [found]


class Link:
    """One server. Threads may share it.

    Args:
        command: what stands for `airssys`.

    Raises:
        HostError: it does not start, or speaks another protocol.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._numbers = itertools.count(1)
        self._waiting: dict[int, Future[Any]] = {}
        self._lock = threading.Lock()
        self._gone = False
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the link
        try:
            self._process = subprocess.Popen(
                [*command, "selftest", "serve"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                cwd="/",
                start_new_session=True,  # Ctrl-C is for the tests; they end the server in their own time
            )
        except OSError as error:
            self._errors.close()
            raise HostError("E_GONE", f"{command[0]} cannot be run: {error.strerror}") from error
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        try:
            self.hello: dict[str, Any] = json.loads(line)
            if self.hello["protocol"] != PROTOCOL:
                raise HostError("E_GONE", f"it speaks protocol {self.hello['protocol']}, not {PROTOCOL}")
        except (ValueError, KeyError, HostError) as error:
            self._stop()
            why = error.message if isinstance(error, HostError) else self._said() or "it ended"
            self._errors.close()
            raise HostError("E_GONE", f"`{' '.join(command)} selftest serve` does not serve: {why}") from error
        self._reader = threading.Thread(target=self._read, name="airssys-link", daemon=True)
        self._reader.start()

    def begin(self, op: str, **fields: Any) -> Future[Any]:
        """Ask; the answer's value, or HostError, comes later."""
        number = next(self._numbers)
        future: Future[Any] = Future()
        body = {"op": op, "id": number} | {name.replace("_", "-"): value for name, value in fields.items()}
        line = json.dumps(body, default=_encoded).encode() + b"\n"
        assert self._process.stdin is not None
        with self._lock:
            if self._gone:
                raise self._lost()
            self._waiting[number] = future
            try:
                self._process.stdin.write(line)
                self._process.stdin.flush()
            except OSError as error:
                self._waiting.pop(number, None)
                raise self._lost() from error
        return future

    def ask(self, op: str, *, within: float = 0.0, **fields: Any) -> Any:
        """Ask and wait.

        Args:
            within: seconds the request itself may take.

        Raises:
            HostError: refused, or the server is gone.
            TimeoutError: no answer.
        """
        return self.begin(op, **fields).result(within + ANSWER_SECONDS)

    @property
    def gone(self) -> bool:
        """Whether the server has ended."""
        return self._gone

    def close(self) -> None:
        """End the server; whatever it started is removed when this returns."""
        self._stop()
        self._reader.join(END_SECONDS)
        self._errors.close()

    def _stop(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(OSError):  # what was not written is for nobody any more
            self._process.stdin.close()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if not hasattr(self, "_reader"):
            self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                answer = json.loads(line)
                with self._lock:
                    future = self._waiting.pop(answer["id"], None)
                if future is None:
                    continue  # of a request whose asker did not wait
                if "error" in answer:
                    future.set_exception(HostError(**answer["error"]))
                else:
                    future.set_result(answer.get("value"))
        with self._lock:
            self._gone = True
            left, self._waiting = list(self._waiting.values()), {}
        for future in left:
            future.set_exception(self._lost())

    def _lost(self) -> HostError:
        return HostError("E_GONE", "the server is gone", hint=self._said())

    def _said(self) -> str:
        try:
            size = self._errors.seek(0, os.SEEK_END)
            self._errors.seek(max(0, size - 2000))
            return self._errors.read().decode(errors="replace").strip()
        except ValueError:
            return ""  # closed


def _encoded(value: object) -> str:
    if isinstance(value, bytes | bytearray):
        return base64.b64encode(value).decode()
    raise TypeError(f"no JSON for {type(value).__name__}")
