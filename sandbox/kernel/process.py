"""What a process can say about itself: prctl switches, resource limits, descriptors, keyring, clone.

References: prctl(2), setrlimit(2), close_range(2), keyctl(2), clone(2), pidfd_open(2).
"""

from __future__ import annotations

import fcntl
import os
import resource
import signal

from sandbox.kernel import libc, memory

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_GET_DUMPABLE = 3
PR_SET_KEEPCAPS = 8
PR_SET_NAME = 15
PR_CAPBSET_DROP = 24
PR_SET_SECUREBITS = 28
PR_SET_NO_NEW_PRIVS = 38
PR_GET_NO_NEW_PRIVS = 39
PR_SET_THP_DISABLE = 41
PR_CAP_AMBIENT = 47
PR_SET_SPECULATION_CTRL = 53
PR_SET_MDWE = 65
PR_GET_MDWE = 66

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_PARENT = 0x00008000

ALL_FDS = 0x7FFFFFFF


def set_name(name: str) -> None:
    """The name in /proc/PID/comm, at most 15 bytes."""
    import ctypes

    buffer = ctypes.create_string_buffer(name.encode()[:15])
    libc.prctl(PR_SET_NAME, ctypes.addressof(buffer), name="prctl(PR_SET_NAME)")


def die_with_parent() -> None:
    """SIGKILL when the parent dies. Cleared by fork and by changes of credentials: call it after them."""
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, name="prctl(PR_SET_PDEATHSIG)")


def no_dump() -> None:
    """No core dump, and /proc/PID closed to processes of the same uid."""
    libc.prctl(PR_SET_DUMPABLE, 0, name="prctl(PR_SET_DUMPABLE)")


def no_new_privileges() -> None:
    """execve can never grant a privilege again; asserted by reading it back."""
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, name="prctl(PR_SET_NO_NEW_PRIVS)")
    if libc.prctl(PR_GET_NO_NEW_PRIVS) != 1:
        raise OSError(0, "prctl(PR_SET_NO_NEW_PRIVS) did not hold")


def deny_write_execute(*, inherited: bool = True) -> None:
    """MDWE: no mapping may become executable any more (Linux 6.3); in children neither, unless told (Linux 6.6)."""
    libc.prctl(PR_SET_MDWE, 1 if inherited else 3, name="prctl(PR_SET_MDWE)")  # PR_MDWE_NO_INHERIT
    if libc.prctl(PR_GET_MDWE) & 1 != 1:
        raise OSError(0, "prctl(PR_SET_MDWE) did not hold")


def seal_pages(spans: list[tuple[int, int]]) -> None:
    """mseal(2) each span (address, length). Raises OSError."""
    for address, length in spans:
        memory.seal(address, length)


def seal_executable() -> int:
    """mseal(2) every executable mapping (needs /proc), for this process and its children; how many there were.

    Raises:
        OSError: the kernel has no mseal (before Linux 6.10).
    """
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as file:
        lines = file.read().splitlines()
    spans = []
    for line in lines:
        span, mode, *rest = line.split()
        # The vsyscall page is the kernel's own and no mapping of this process.
        if "x" in mode and rest[-1] != "[vsyscall]":
            start, end = (int(text, 16) for text in span.split("-"))
            spans.append((start, end - start))
    seal_pages(spans)
    return len(spans)


def no_writable_code() -> int:
    """Take writing from every page that is both writable and executable (needs /proc); how many mappings there were.

    ctypes keeps the entry points of its callbacks in such a page, and MDWE does not take back what was given before.
    Afterwards no callback can be made or freed in this process or its children, only called.
    """
    count = 0
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as file:
        lines = file.read().splitlines()
    for line in lines:
        span, mode = line.split()[:2]
        if "w" in mode and "x" in mode:
            start, end = (int(text, 16) for text in span.split("-"))
            libc.syscall("mprotect", start, end - start, 5)  # PROT_READ | PROT_EXEC
            count += 1
    return count


def no_speculation() -> bool:
    """Force-disable speculative store bypass and indirect branch speculation where the CPU lets it be chosen.

    Returns False when the kernel says that this CPU cannot be controlled per process (ENXIO, ENODEV) or that an
    administrator fixed the setting (EPERM): the mitigation is then the machine's.
    """
    done = True
    for feature in (0, 1):  # PR_SPEC_STORE_BYPASS, PR_SPEC_INDIRECT_BRANCH
        try:
            libc.prctl(PR_SET_SPECULATION_CTRL, feature, 8, name="prctl(PR_SET_SPECULATION_CTRL)")
        except OSError as error:
            import errno

            if error.errno not in (errno.ENXIO, errno.ENODEV, errno.EPERM, errno.EINVAL):
                raise
            done = False
    return done


def no_huge_pages() -> None:
    """No transparent huge pages for this process."""
    libc.prctl(PR_SET_THP_DISABLE, 1, name="prctl(PR_SET_THP_DISABLE)")


def new_session_keyring() -> None:
    """Join a fresh anonymous session keyring, so that no key of the starter is reachable."""
    libc.syscall("keyctl", 1, 0, 0, 0, 0)  # KEYCTL_JOIN_SESSION_KEYRING


def close_range(first: int, last: int = ALL_FDS) -> None:
    """Close all descriptors from `first` to `last` inclusive."""
    if first <= last:
        libc.syscall("close_range", first, last, 0)


def move_high(fd: int) -> int:
    """A close-on-exec copy of `fd` numbered 100 or more, out of the way of the numbers we hand out."""
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 100)


def place_fds(*fds: int, keep_open: tuple[int, ...] = ()) -> None:
    """Make `fds` the descriptors 3, 4, 5, ... (inheritable, blocking state kept) and close everything above.

    Works when some of `fds` already sit on a wanted number: all are first moved out of the way. `keep_open` names high
    descriptors that stay (close-on-exec ones, until exec).
    """
    high = [move_high(fd) for fd in fds]
    for target, fd in enumerate(high, start=3):
        os.dup2(fd, target, inheritable=True)
    first = 3 + len(fds)
    for kept in sorted(keep_open):
        close_range(first, kept - 1)
        first = kept + 1
    close_range(first)


def reset_signals() -> None:
    """Default dispositions (SIGPIPE stays ignored) and an empty mask."""
    for number in range(1, signal.NSIG):
        if number in (signal.SIGKILL, signal.SIGSTOP, signal.SIGPIPE):
            continue
        try:
            signal.signal(number, signal.SIG_DFL)
        except (OSError, ValueError):
            continue  # numbers the C library keeps for itself
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def set_limit(which: int, value: int) -> None:
    """Set a resource limit, soft and hard alike, to `value` or to the present hard limit if that is lower."""
    hard = resource.getrlimit(which)[1]
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(which, (value, value))


def all_descriptors() -> None:
    """Raise the soft limit of open descriptors to the hard one: a host holds a few per worker."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def raw_clone(flags: int) -> int:
    """clone(2) with the semantics of fork: 0 in the child, its pid in the caller.

    Python's own fork cannot take flags. The caller must have one thread only (no lock can then be held by a thread
    that does not exist in the child) and hold no thread-local state that a fork hook would have to renew.
    """
    return libc.syscall("clone", flags | int(signal.SIGCHLD), 0, 0, 0, 0)


def thread_count() -> int:
    """Tasks of this process (needs /proc)."""
    return len(os.listdir("/proc/self/task"))


def data() -> int:
    """Bytes of writable private memory this process has mapped, its stack included (needs /proc)."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[5]) * resource.getpagesize()


def address_space() -> int:
    """Bytes this process has mapped (needs /proc)."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[0]) * resource.getpagesize()
