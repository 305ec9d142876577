"""System-call filters: a policy (`sandbox.policy.rules`) compiled to BPF by libseccomp, loaded with seccomp(2).

libseccomp adds the architecture check in front (calls of other ABIs are killed as well). Compiling needs the library;
loading needs only the bytes, so a zygote compiles once and each worker loads.
"""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import errno
import os
from collections.abc import Iterable, Iterator
from typing import Any

from sandbox.kernel import libc
from sandbox.policy.rules import PolicyError, Rule, rules

SECCOMP_SET_MODE_FILTER = 1
FLAG_TSYNC = 1
FLAG_TSYNC_ESRCH = 1 << 4
_LIBRARY = "libseccomp.so.2"


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


@contextlib.contextmanager
def _found_by_name() -> Iterator[None]:
    # The bindings look for libraries by starting ldconfig or a compiler, which not every process may.
    # The loader finds this one by its name just as well; None is what is loaded already, the C library.
    find = ctypes.util.find_library
    ctypes.util.find_library = lambda name: _LIBRARY if name == "seccomp" else None
    try:
        yield
    finally:
        ctypes.util.find_library = find


def bindings() -> Any:
    """The module `pyseccomp`.

    Raises:
        ImportError, RuntimeError, OSError: it or libseccomp cannot be loaded.
    """
    with _found_by_name():
        import pyseccomp

    return pyseccomp


def _architecture(machine: str) -> int:
    return int(getattr(bindings().Arch, {"x86_64": "X86_64", "aarch64": "AARCH64"}[machine]))


def number_of(call: str, machine: str = libc.MACHINE) -> int | None:
    """A call's number as libseccomp knows it; None where the machine has no such call, or the library no such name."""
    number = int(bindings().resolve_syscall(_architecture(machine), call))
    return number if number >= 0 else None


def compile_policy(name: str, machine: str = libc.MACHINE) -> bytes:
    """Compile a policy to BPF instructions (8 bytes each) for a machine, by default this one.

    Raises:
        PolicyError: the policy is wrong, or names a call that the machine does not have.
        ImportError, RuntimeError, OSError: libseccomp cannot be loaded.
    """
    return compile_rules(rules(name, machine), machine)


def compile_rules(listed: Iterable[Rule], machine: str = libc.MACHINE) -> bytes:
    """Compile rules; see `compile_policy`.

    For another machine than this one, to be looked at, rules with a `number` are left out: libseccomp takes numbers for
    this machine's.
    """
    pyseccomp = bindings()
    program = pyseccomp.SyscallFilter(pyseccomp.KILL_PROCESS)
    # The library's own answer to another architecture's table ends the calling thread alone.
    program.set_attr(pyseccomp.Attr.ACT_BADARCH, pyseccomp.KILL_PROCESS)
    if machine != libc.MACHINE:
        program.remove_arch(pyseccomp.Arch.NATIVE)
        program.add_arch(_architecture(machine))
    operators = {"eq": pyseccomp.EQ, "le": pyseccomp.LE}
    for rule in listed:
        number = rule.number_on(machine)
        if number is None and number_of(rule.call, machine) is None:
            raise PolicyError(f"not a call of {machine}", subject=f"{rule.policy}.toml: {rule.call}")
        if number is not None and machine != libc.MACHINE:
            continue
        arguments = [
            pyseccomp.Arg(entry.argument, pyseccomp.MASKED_EQ, entry.mask, entry.value)
            if entry.op == "masked_eq"
            else pyseccomp.Arg(entry.argument, operators[entry.op], entry.value)
            for entry in rule.comparisons
        ]
        action = pyseccomp.ERRNO(getattr(errno, rule.answer)) if rule.answer else pyseccomp.ALLOW
        program.add_rule(action, rule.call if number is None else number, *arguments)
    return _export(program)


def _export(program: Any) -> bytes:
    file = os.memfd_create("filter", os.MFD_CLOEXEC)
    try:
        with open(file, "r+b", closefd=False) as stream:
            program.export_bpf(stream)
        return os.pread(file, 1 << 20, 0)
    finally:
        os.close(file)


def load(bpf: bytes) -> None:
    """Install a compiled filter on all threads. Needs no_new_privs or CAP_SYS_ADMIN over the user namespace."""
    buffer = ctypes.create_string_buffer(bpf, len(bpf))
    program = _Program(len(bpf) // 8, ctypes.addressof(buffer))
    # With TSYNC_ESRCH a thread that cannot be synchronised is an error, not a positive thread id.
    libc.syscall("seccomp", SECCOMP_SET_MODE_FILTER, FLAG_TSYNC | FLAG_TSYNC_ESRCH, ctypes.pointer(program))


def available() -> bool:
    """Whether the kernel takes filters that kill the whole process."""
    action = ctypes.create_string_buffer((0x80000000).to_bytes(4, "little"), 4)
    try:
        libc.syscall("seccomp", 2, 0, action)  # SECCOMP_GET_ACTION_AVAIL
    except OSError as error:
        return error.errno not in (errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
    return True


def library_available() -> bool:
    """Whether libseccomp can be loaded."""
    try:
        bindings()
    except (ImportError, RuntimeError, OSError):
        return False
    return os.name == "posix"
