"""T09, T10, T13 to T16, T19, T23, T37: other processes, other programs, and the process's own walls."""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator

from supervisor.selftest import scene
from supervisor.selftest.attack import (
    Attack,
    Case,
    administrator,
    another_program,
    answered,
    attack,
    one,
)
from supervisor.selftest.native import Result
from supervisor.selftest.program import Program

CLONE_VM, CLONE_SIGHAND, CLONE_THREAD, CLONE_PARENT = 0x100, 0x800, 0x10000, 0x8000
NAMESPACES = {
    "mount": 0x20000,
    "cgroup": 0x2000000,
    "uts": 0x4000000,
    "ipc": 0x8000000,
    "user": 0x10000000,
    "pid": 0x20000000,
    "net": 0x40000000,
    "time": 0x80,
}
SIGCHLD = 17
PROGRAM = b"/bin/true\0"


def execution() -> Attack:
    """T10."""
    path = Program()
    path.syscall("execve", path.data(PROGRAM), path.room(8), path.room(8))
    opened = Program()
    fd = opened.syscall("openat", -100, opened.data(PROGRAM), 0, 0)
    opened.syscall("execveat", fd, opened.data(b"\0"), opened.room(8), opened.room(8), 0x1000)
    memory = Program()
    fd = memory.syscall("memfd_create", memory.data(b"x\0"), 0)
    memory.syscall("write", fd, memory.data(b"#!/bin/true\n"), 12)
    memory.syscall("execveat", fd, memory.data(b"\0"), memory.room(8), memory.room(8), 0x1000)
    return attack(
        "T10",
        "another program in the worker's place",
        "seccomp; empty root; landlock",
        [
            Case("execve", path, another_program),
            Case("execveat of a descriptor", opened, another_program),
            Case("execveat of a memfd", memory, another_program, excuse=administrator(errno.EACCES, errno.EPERM)),
            one("execveat alone", "execveat", 3, b"\0", 0, 0, 0x1000, worked=answered),
        ],
    )


def clones() -> Attack:
    """T09."""

    def clone(name: str, flags: int, **more: object) -> Case:
        return one(name, "clone", flags, 0, 0, 0, 0, routine="fork", **more)

    clone3 = struct.pack("<11Q", 0, 0, 0, 0, SIGCHLD, 0, 0, 0, 0, 0, 0)
    return attack(
        "T09",
        "another process or thread",
        "seccomp; RLIMIT_NPROC; pids.max",
        [
            clone("clone", SIGCHLD),
            one("clone3", "clone3", clone3, 88, routine="fork"),
            one("fork", "fork", routine="fork"),
            one("vfork", "vfork", routine="fork"),
            clone("a thread", CLONE_VM | CLONE_SIGHAND | CLONE_THREAD),
            clone("CLONE_NEWUSER", NAMESPACES["user"] | SIGCHLD, excuse=administrator(errno.EPERM)),
            clone("CLONE_PARENT", CLONE_PARENT | SIGCHLD),
        ],
    )


def inspection() -> Iterator[Attack]:
    """T13, T14: looking into processes."""
    yield attack(
        "T13",
        "ptrace",
        "seccomp; not dumpable; pid namespace",
        [
            one("TRACEME", "ptrace", 0, 0, 0, 0),
            one("SEIZE the parent", "ptrace", 0x4206, 1, 0, 0, worked=answered),
            one("ATTACH", "ptrace", 16, 1, 0, 0, worked=answered),
        ],
    )
    vector = bytes(16)
    yield attack(
        "T14",
        "memory and descriptors of processes",
        "seccomp; pid namespace",
        [
            one("process_vm_readv", "process_vm_readv", 1, vector, 1, vector, 1, 0, worked=answered),
            one("process_vm_writev", "process_vm_writev", 1, vector, 1, vector, 1, 0, worked=answered),
            one("process_madvise", "process_madvise", 3, vector, 1, 21, 0, worked=answered),
            one("pidfd_open", "pidfd_open", 1, 0),
            one("pidfd_getfd", "pidfd_getfd", 3, 0, 0, worked=answered),
            one("pidfd_send_signal", "pidfd_send_signal", 3, 0, 0, 0, worked=answered),
            one("kcmp", "kcmp", 1, 1, 0, 0, 0, worked=answered),
        ],
    )


def filters() -> Iterator[Attack]:
    """T15, T16: taking the walls down again."""

    def filter_case(name: str, call: str, *words: int) -> Case:
        program = Program()
        code = scene.allow_all()
        at = program.data(code)
        pointer = program.data(struct.pack("<Q", len(code) // 8) + bytes(8))
        program.step("poke", pointer + 8, at)
        program.syscall(call, *words, pointer)
        return Case(name, program, scene="unlimited")

    yield attack(
        "T15",
        "another filter, or a listener that decides",
        "seccomp",
        [
            filter_case("seccomp", "seccomp", 1, 0),
            filter_case("seccomp NEW_LISTENER", "seccomp", 1, 8),
            filter_case("prctl PR_SET_SECCOMP", "prctl", 22, 2),
            one("strict mode", "seccomp", 0, 0, 0, worked=_strict, scene="unlimited"),
        ],
    )
    yield attack(
        "T16",
        "prctl: its own switches",
        "seccomp",
        [
            one("dumpable again", "prctl", 4, 1, 0, 0, 0),
            one("MDWE off", "prctl", 65, 0, 0, 0, 0),
            one("a tracer allowed", "prctl", 0x59616D61, -1, 0, 0, 0, worked=answered),
            one("an ambient capability", "prctl", 47, 2, 21, 0, 0, worked=answered),
            one("no death with the parent", "prctl", 1, 0, 0, 0, 0),
            one("another name", "prctl", 15, b"sshd\0", 0, 0, 0),
            one("the clock's instruction", "prctl", 26, 1, 0, 0, 0, worked=answered),
            one("securebits", "prctl", 28, 0, 0, 0, 0, worked=answered),
            one("capset", "capset", struct.pack("<Ii", 0x20080522, 0), bytes(24), worked=answered),
            one("setresuid", "setresuid", 0, 0, 0, worked=answered),
            one("setgroups", "setgroups", 0, 0, worked=answered),
            one("landlock_restrict_self", "landlock_restrict_self", 3, 0, worked=answered),
            one("arch_prctl", "arch_prctl", 0x1003, bytes(8)),
        ],
    )


def _strict(result: Result) -> bool:
    # It takes effect: the child cannot even end as it should.
    return result.outcome == "SIGKILL" or result.answered


def namespaces() -> Attack:
    """T19."""
    refused = administrator(errno.EPERM, errno.ENOSPC)
    cases = [
        one(f"unshare {name}", "unshare", flag, scene="ordinary" if name == "user" else "contained", excuse=refused)
        for name, flag in NAMESPACES.items()
    ]
    cases += [
        one("setns", "setns", 3, 0, worked=answered),
        one("unshare descriptors", "unshare", 0x400),
    ]
    return attack("T19", "other namespaces", "seccomp; max_user_namespaces; no capability", cases)


def signals() -> Attack:
    """T23."""
    info = struct.pack("<iii", 0, 0, -1).ljust(128, b"\0")
    return attack(
        "T23",
        "signals to others, and from them",
        "seccomp; landlock scope; pid namespace",
        [
            one("kill everybody", "kill", -1, 0, worked=answered),
            one("kill the group", "kill", 0, 0),
            one("kill process 1", "kill", 1, 0, worked=answered),
            one("tgkill", "tgkill", 1, 1, 0, worked=answered),
            one("tkill", "tkill", 1, 0, worked=answered),
            one("rt_sigqueueinfo", "rt_sigqueueinfo", 1, 0, info, worked=answered),
            one("rt_tgsigqueueinfo", "rt_tgsigqueueinfo", 1, 1, 0, info, worked=answered),
            one("F_SETOWN", "fcntl", 3, 8, 1, worked=answered),
            one("F_SETSIG", "fcntl", 3, 10, 9),
            one("another handler", "rt_sigaction", 11, 0, bytes(32), 8),
            one("another signal stack", "sigaltstack", 0, bytes(24)),
            one("a mask", "rt_sigprocmask", 0, bytes(8), 0, 8),
        ],
    )


def limits() -> Attack:
    """T37."""
    nothing = struct.pack("<QQ", 0, 0)
    return attack(
        "T37",
        "resource limits, its own and others'",
        "seccomp; the hard limits",
        [
            one("setrlimit", "setrlimit", 4, nothing),
            one("prlimit64", "prlimit64", 0, 4, nothing, 0),
            one("prlimit64 of process 1", "prlimit64", 1, 7, 0, bytes(16), worked=answered),
            one("sched_setscheduler", "sched_setscheduler", 0, 3, bytes(4)),
            one("setpriority", "setpriority", 0, 0, 19),
            one("sched_setaffinity", "sched_setaffinity", 0, 8, struct.pack("<Q", 1)),
            one("ioprio_set", "ioprio_set", 1, 0, 0x4000),
        ],
    )


def attacks() -> Iterator[Attack]:
    """Everything of this module."""
    yield clones()
    yield execution()
    yield from inspection()
    yield from filters()
    yield namespaces()
    yield signals()
    yield limits()
