"""T11, T12: executable memory, and the code that is there."""

from __future__ import annotations

import errno
from collections.abc import Iterator

from supervisor.selftest.attack import KILLED, Attack, Case, administrator, attack, gained, one
from supervisor.selftest.native import Result
from supervisor.selftest.program import CODE, Place, Program, Until

READ, WRITE, EXECUTE = 1, 2, 4
PRIVATE_ANONYMOUS = 0x22
_PAGE = 4096
_ANSWER = bytes.fromhex("b8 2a000000 c3 9090")
"""mov eax, 42; ret: code of the attacker's, eight bytes."""


def _ran(result: Result) -> bool:
    return result.answered and result.result() == 42


def executable() -> Attack:
    """T11: each way to a page that runs what was written."""

    def on_page(name: str, call: str, *words: int, **more: object) -> Case:
        program = Program()
        page = program.data(bytes(_PAGE))
        program.syscall(call, page, _PAGE, *words)
        return Case(name, program, **more)  # type: ignore[arg-type]

    fresh = Program()
    at = fresh.syscall("mmap", 0, _PAGE, READ | WRITE | EXECUTE, PRIVATE_ANONYMOUS, -1, 0, until=Until.OR_GIVE_UP)
    fresh.step("poke", at, int.from_bytes(_ANSWER, "little"))
    fresh.step("call", at)
    later = Program()
    page = later.data(_ANSWER.ljust(_PAGE, b"\0"))
    later.syscall("mprotect", page, _PAGE, READ | EXECUTE, until=Until.OR_GIVE_UP)
    later.step("call", page)
    shared = Program()
    segment = shared.syscall("shmget", 0, _PAGE, 0o1777, until=Until.OR_GIVE_UP)
    shared.syscall("shmctl", segment, 0, 0)  # removed once nobody has it
    shared.syscall("shmat", segment, 0, 0o100000)  # SHM_EXEC
    return attack(
        "T11",
        "a page that runs what was written",
        "seccomp; MDWE",
        [
            Case("mmap writable and executable", fresh, _ran),
            Case("mprotect executable", later, _ran),
            Case("shmat SHM_EXEC", shared, excuse=administrator(errno.EINVAL)),
            on_page("pkey_mprotect", "pkey_mprotect", READ | EXECUTE, -1),
            on_page("remap_file_pages", "remap_file_pages", 0, 0, 0, worked=_looked_at),
            on_page("mremap", "mremap", 2 * _PAGE, 1),
            one("READ_IMPLIES_EXEC", "personality", 0x0400000),
            one("a memfd to map", "memfd_create", b"x\0", 0),
        ],
    )


def _looked_at(result: Result) -> bool:
    return result.answered and result.result() != -errno.ENOSYS


def code_pages() -> Attack:
    """T12: the compiled code that is there already. The page after the attack's own is the target."""

    def page() -> tuple[Program, Place]:
        program = Program()
        return program, program.step("page") + _PAGE

    rewritten, target = page()
    rewritten.syscall("mprotect", target, _PAGE, READ | WRITE, until=Until.OR_GIVE_UP)
    rewritten.step("poke", target, int.from_bytes(_ANSWER, "little"))
    rewritten.syscall("mprotect", target, _PAGE, READ | EXECUTE, until=Until.OR_GIVE_UP)
    rewritten.step("call", target)
    over, target = page()
    over.syscall("mmap", target, _PAGE, READ | WRITE | EXECUTE, PRIVATE_ANONYMOUS | 0x10, -1, 0)
    straight = Program()
    straight.step("poke", CODE, 0)
    return attack(
        "T12",
        "other code in the place of the compiled code",
        "seccomp; MDWE; mseal where the pages were found",
        [
            Case("mprotect, write, mprotect", rewritten, _ran, stopped_by=KILLED | {"EPERM", "EACCES"}),
            Case("mmap MAP_FIXED over it", over),
            Case(
                "write into it",
                straight,
                gained,
                stopped_by=KILLED | {"internal-error: SIGSEGV", "trap"},
            ),
        ],
    )


def attacks() -> Iterator[Attack]:
    """Everything of this module."""
    yield executable()
    yield code_pages()
