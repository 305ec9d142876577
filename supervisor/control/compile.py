"""From verified .wasm bytes to a sealed .cwasm: out of the cache, else by a caged compiler that the supervisor runs."""

from __future__ import annotations

import asyncio
import hashlib
import os
import weakref
from collections.abc import Mapping

from sandbox.errors import ProtocolViolation
from sandbox.types import CallPath
from sandbox.wire.compile_result import MAX_CWASM, CompileResult, parse_header
from supervisor.control import memfd
from supervisor.control.audit_link import AuditLink
from supervisor.control.cache import Cache
from supervisor.control.errors import CacheError, CompileError, SupervisorError
from supervisor.control.shelf import CompiledComponent
from supervisor.control.supervisor_link import SupervisorLink

COMPILER_CODES = frozenset(
    {"E_COMPILE", "E_COMPILE_LIMIT", "E_INVALID_COMPONENT", "E_IMPORTS", "E_EXPORTS", "E_RESERVED_NAME"}
)
"""What the compiler may say. It is untrusted: any other code from it becomes `E_COMPILE`."""


AT_ONCE = 2
"""Compilations at work: one that takes all the time it may must not hold up all others."""
MAX_WAITING = 16
"""Packages of installers that wait for their turn; each is a whole component in memory."""


class Compiler:
    """Compiles, a few components at a time; what is in the cache waits for nobody.

    Args:
        caches: the compiled components, one cache for each path.
        memory: bytes of address space for one compilation.
        seconds: CPU time for one compilation; it gets a little more of wall clock.
    """

    def __init__(
        self,
        supervisor: SupervisorLink,
        audit: AuditLink,
        caches: Mapping[CallPath, Cache],
        memory: int,
        seconds: int,
    ) -> None:
        self._supervisor, self._audit, self._caches = supervisor, audit, caches
        self._memory, self._seconds = memory, seconds
        self._places = asyncio.Semaphore(AT_ONCE)
        self._same: weakref.WeakValueDictionary[tuple[str, CallPath], asyncio.Lock] = weakref.WeakValueDictionary()
        self._waiting = 0

    async def get(self, wasm: bytes, name: str, path: CallPath, *, patient: bool = True) -> CompiledComponent:
        """The compiled component; the caller closes its descriptor.

        Args:
            wasm: verified bytes.
            name: the package, for errors and records.
            path: whether it is patched if it can be.
            patient: wait however many wait already (a start), or be refused (an install, which can be tried again).

        Raises:
            CompileError: the component is refused by the compiler, or the compiler was ended, or too many wait.
            UnavailableError: the supervisor is gone.
        """
        # A task of its own: descriptors and a thread are in use until it ends, whoever stops waiting for it.
        task = asyncio.create_task(self._get(wasm, name, path, patient))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_close_unused)
            raise

    async def _get(self, wasm: bytes, name: str, path: CallPath, patient: bool) -> CompiledComponent:
        digest = await asyncio.to_thread(_digest, wasm)
        cached = await self._cached(digest, name, path)
        if cached is not None:
            return cached
        if not patient and self._waiting >= MAX_WAITING:
            raise CompileError(
                "too many packages wait for the compiler", subject=name, hint="try again later", code="E_COMPILE_BUSY"
            )
        key = (digest, path)
        same = self._same.get(key) or self._same.setdefault(key, asyncio.Lock())
        self._waiting += 1
        try:
            # The same bytes are compiled once, whoever wants them; then a place.
            async with same, self._places:
                return await self._cached(digest, name, path) or await self._compile(wasm, digest, name, path)
        finally:
            self._waiting -= 1

    async def _cached(self, digest: str, name: str, path: CallPath) -> CompiledComponent | None:
        try:
            return await asyncio.to_thread(self._caches[path].get, digest)
        except CacheError as error:
            await self._audit.record(
                "cache.refused", "denied", object=name, result=error.code, detail={"why": str(error)}
            )
            return None

    async def _compile(self, wasm: bytes, digest: str, name: str, path: CallPath) -> CompiledComponent:
        source = memfd.sealed("wasm", wasm)
        output = memfd.create("compiled")
        try:
            try:
                await self._supervisor.compile(source, output, self._memory, self._seconds, path)
            except SupervisorError as error:
                # A compiler that refuses writes its reason first and then exits badly: its word is the better one.
                said = _said(output)
                raise said or CompileError(
                    f"the compiler failed: {error.message}", subject=name, code=_compile_code(error)
                ) from error
            return await asyncio.to_thread(self._take, output, digest, name, path)
        finally:
            os.close(source)
            os.close(output)

    def _take(self, output: int, digest: str, name: str, path: CallPath) -> CompiledComponent:
        size = os.fstat(output).st_size
        if not 0 < size <= MAX_CWASM:
            raise CompileError("the compiler left nothing usable", subject=name)
        memfd.seal(output)
        with memfd.view(output) as whole, memoryview(whole) as data:
            try:
                info, start = parse_header(data)
            except ProtocolViolation as error:
                raise CompileError(f"the compiler's output is malformed: {error.message}", subject=name) from error
            if info.error is not None:
                raise _refusal(info, name)
            with data[start:] as cwasm:
                try:
                    self._caches[path].put(digest, info, cwasm)
                except OSError as error:
                    raise CompileError(f"the compiled component could not be cached: {error.strerror}") from error
        try:
            compiled = self._caches[path].get(digest)
        except CacheError as error:
            raise CompileError(f"the compiled component was changed in the cache: {error.message}") from error
        if compiled is None:
            raise CompileError("the compiled component was taken out of the cache", subject=name)
        return compiled


def _digest(wasm: bytes) -> str:
    return hashlib.sha256(wasm).hexdigest()


def _close_unused(task: asyncio.Task[CompiledComponent]) -> None:
    if not task.cancelled() and task.exception() is None:
        os.close(task.result().fd)


def _compile_code(error: SupervisorError) -> str:
    return error.code if error.code in COMPILER_CODES | {"E_COMPILE_BUSY", "E_EXHAUSTED"} else CompileError.code


def _refusal(info: CompileResult, name: str) -> CompileError:
    assert info.error is not None
    code, message, subject = info.error
    known = code if code in COMPILER_CODES else CompileError.code
    return CompileError(message[:500], subject=(subject or name)[:200], code=known)


def _said(output: int) -> CompileError | None:
    size = os.fstat(output).st_size
    if not 0 < size <= 1 << 20:
        return None
    try:
        info, _ = parse_header(os.pread(output, size, 0))
    except ProtocolViolation:
        return None
    return _refusal(info, "") if info.error is not None else None
