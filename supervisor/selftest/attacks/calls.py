"""T01 to T08: the system-call surface itself. Every number, every other way in, every upper half of an argument."""

from __future__ import annotations

import errno
from collections.abc import Iterator

from sandbox.policy.rules import allowed_calls
from supervisor.selftest.attack import KILLED, Attack, Case, answered, attack, gained, one
from supervisor.selftest.machine import far_code
from supervisor.selftest.native import Result
from supervisor.selftest.numbers import X32, name, number
from supervisor.selftest.program import Program, Until

SWEEP = range(1024)
UNFILTERED = {335: "uretprobe", 336: "uprobe"}
"""The kernel lets these by every filter (Linux 6.14 on); they do nothing for who was not probed."""
_LOW = 0x20000000
"""An address below 4 GiB where nothing is."""
HIGH = 1 << 32


def allowed() -> tuple[str, ...]:
    """The calls the worker's last filter lets through with some argument."""
    return tuple(allowed_calls("worker"))


class _Anything(frozenset[str]):
    """Whatever becomes of it."""

    def __contains__(self, _: object) -> bool:
        return True


def _survives(result: Result) -> bool:
    return result.answered


def _never(_: Result) -> bool:
    return False


def sweep(numbers: range = SWEEP) -> Iterator[Case]:
    """Every number with zeros and with ones everywhere."""
    permitted = {number(call) for call in allowed()}
    for call in numbers:
        for title, value in (("0", 0), ("-1", -1)):
            case = one(f"{name(call)}({title}...)", call, *[value] * 6)
            if call in permitted:
                # With these arguments most are refused; the rest manage memory, or end the worker.
                yield Case(case.name, case.program, _never, "none", _Anything())
            elif call in UNFILTERED:
                yield Case(case.name, case.program, _never, "none", KILLED | {"internal-error: SIGILL", "ENXIO"})
            else:
                yield Case(case.name, case.program, _survives, "none")


def whole_sweep() -> Attack:
    """T01."""
    title = "every call number 0 to 1023, zeros and ones"
    return Attack("T01", title, ("seccomp",), tuple(sweep()), sweep_control())


def sweep_control() -> Case:
    """One program of all numbers that can be called with zeros without ending, blocking or changing the caller."""
    program = Program()
    for call in SWEEP:
        if name(call) not in _NOT_WITH_ZEROS:
            program.syscall(call, 0, 0, 0, 0, 0, 0)

    def most_are_answered(result: Result) -> bool:
        found = result.answer.results if result.answered and result.answer else ()
        return sum(value != -errno.ENOSYS for value in found) >= _ANSWERED

    return Case("every number with zeros", program, most_are_answered)


_ANSWERED = 250
"""Least numbers a kernel of ours answers by something else than that there is no such call."""
_NOT_WITH_ZEROS = frozenset(
    [
        *("exit", "exit_group", "fork", "vfork", "clone", "clone3", "rt_sigreturn", "uretprobe", "uprobe"),
        *("pause", "select", "pselect6", "ppoll", "wait4", "waitid", "accept", "read", "alarm", "sync"),
        *("ptrace", "seccomp", "close", "close_range", "dup2", "dup3", "setsid", "vhangup"),
    ]
)


def other_ways_in() -> Iterator[Attack]:
    """T02 to T04, T06."""

    def no_32_bit(result: Result) -> str:
        return "this kernel has no 32-bit calls" if result.outcome in ("SIGSEGV", "SIGILL") else ""

    def no_vsyscall(result: Result) -> str:
        return "this kernel maps no vsyscall page" if result.outcome == "SIGSEGV" else ""

    yield attack(
        "T02",
        "calls by int 0x80",
        "seccomp: architecture check",
        [
            one("getpid", 20, routine="int80", excuse=no_32_bit),
            one("execve", 11, 0, 0, 0, routine="int80", worked=answered, excuse=no_32_bit),
            one("socketcall", 102, 0, 0, routine="int80", worked=answered, excuse=no_32_bit),
        ],
    )
    yield attack(
        "T03",
        "x32 calls",
        "seccomp: architecture check",
        [
            one(f"x32 {call}", number(call) | X32, 0, 0, 0, 0, 0, 0, worked=answered)
            for call in (*allowed(), "getpid", "ioctl", "execve")
            if call not in ("exit", "exit_group", "rt_sigreturn", "execve")
        ],
    )
    program = Program()
    program.syscall("mmap", _LOW, 4096, 7, 0x100022, -1, 0, until=Until.OR_GIVE_UP)  # MAP_FIXED_NOREPLACE
    code = far_code(_LOW)
    for at in range(0, len(code), 8):
        program.step("poke", _LOW + at, int.from_bytes(code[at : at + 8], "little"))
    program.step("far", _LOW)
    yield attack(
        "T04",
        "a far jump to 32-bit code",
        "seccomp: no executable mapping, no mapping at a chosen address",
        [Case("int 0x80 from 32-bit code", program, lambda r: gained(r) and r.result() > 0, excuse=no_32_bit)],
    )
    yield attack(
        "T06",
        "the vsyscall page",
        "seccomp, which the kernel's emulation obeys",
        [
            one(title, 0xFFFFFFFFFF600000 + at, *arguments, routine="call", excuse=no_vsyscall)
            for title, at, arguments in (
                ("gettimeofday", 0, (bytes(16), 0)),
                ("time", 0x400, (0,)),
                ("getcpu", 0x800, (bytes(8), bytes(8), 0)),
            )
        ],
    )


def io_uring() -> Attack:
    """T05."""

    def excuse(result: Result) -> str:
        refused = result.answered and -result.result() in (errno.EPERM, errno.ENOSYS, errno.ENOMEM)
        return "this machine refuses io_uring to ordinary users" if refused else ""

    return attack(
        "T05",
        "io_uring, whose operations no filter sees",
        "seccomp",
        [
            one("io_uring_setup", "io_uring_setup", 8, bytes(120), excuse=excuse),
            one("io_uring_enter", "io_uring_enter", 3, 1, 1, 1, 0, 0, worked=answered),
            one("io_uring_register", "io_uring_register", 3, 2, 0, 0, worked=answered),
        ],
    )


def upper_halves() -> Attack:
    """T07: what a filter that compares 32 of 64 bits, or 64 where the kernel takes 32, would let through."""
    cases = [
        one("recvfrom, flags DONTWAIT", "recvfrom", 3, bytes(16), 16, HIGH | 0x40, 0, 0),
        one("recvfrom, descriptor 5", "recvfrom", HIGH | 5, bytes(16), 16, 0, 0, 0, worked=answered),
        one("sendto, flags DONTWAIT", "sendto", 4, b"x", 1, HIGH | 0x40, 0, 0),
        one("sendto, descriptor 0", "sendto", HIGH, b"x", 1, 0, 0, 0, worked=answered),
        one("mmap, executable", "mmap", 0, 4096, HIGH | 7, 0x22, -1, 0, worked=answered),
        one("mmap, chosen address", "mmap", _LOW, 4096, 3, HIGH | 0x32, -1, 0, worked=answered),
        one("mmap, shared", "mmap", 0, 4096, 3, HIGH | 0x21, -1, 0, worked=answered),
        one("madvise, other advice", "madvise", 0, 0, HIGH | 21),
        one("futex, other operation", "futex", bytes(4), HIGH | 1, 1, 0, 0, 0),
        one("clock_gettime, other clock", "clock_gettime", HIGH | 7, bytes(16)),
        one("getrandom, flag GRND_RANDOM", "getrandom", bytes(8), 8, HIGH | 2),
    ]
    program = Program()
    program.room(4096)
    page = program.step("page")
    program.syscall("mprotect", page, 4096, HIGH | 7)
    cases.append(Case("mprotect, writable and executable", program, answered))
    return attack("T07", "upper 32 bits of a checked argument", "seccomp: whole-width comparisons", cases)


def terminal() -> Iterator[Attack]:
    """T08, T21, T22: typing into a terminal."""

    def excuse(result: Result) -> str:
        return "this kernel has legacy_tiocsti off" if result.answered and result.result() == -errno.EIO else ""

    def no_console(result: Result) -> str:
        return "no virtual console here" if result.answered and result.result() == -errno.ENOTTY else ""

    tiocsti, tioclinux = 0x5412, 0x541C
    yield attack(
        "T08",
        "ioctl TIOCSTI with a bit above the 32nd",
        "seccomp; no terminal; setsid",
        [one("type a letter", "ioctl", 0, HIGH | tiocsti, b"x", scene="terminal", excuse=excuse)],
    )
    yield attack(
        "T21",
        "TIOCSTI: type into the starter's terminal",
        "seccomp; no terminal; setsid",
        [one("type a letter", "ioctl", 0, tiocsti, b"x", scene="terminal", excuse=excuse)],
    )
    yield attack(
        "T22",
        "TIOCLINUX: paste into the console",
        "seccomp; no terminal",
        [one("paste", "ioctl", 0, tioclinux, b"\x03", scene="terminal", excuse=no_console)],
    )


def attacks() -> Iterator[Attack]:
    """Everything of this module but the sweep, which is long."""
    yield from other_ways_in()
    yield io_uring()
    yield upper_halves()
    yield from terminal()
