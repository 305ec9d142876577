"""What a policy must not say, found before a kernel ever sees it: `python -m sandbox.policy.lint [POLICY ...]`.

The tests run this over every policy; a new rule that breaks one of the points below is a finding with the file, the
call and the reason. Types are those the kernel reads, from the SYSCALL_DEFINE line of each call (the second section of
the manual has the C library's prototypes, some of which differ): an `int` is cut to 32 bits in there, so a comparison
of all 64 would let the C library's leftovers decide, and a word is used whole, so a comparison of its lower half would
let the upper one through unseen (CVE-2019-10063).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

from sandbox.kernel import seccomp
from sandbox.policy.rules import MACHINES, WHOLE, Comparison, PolicyError, Rule, covers, names, read_policy, rules

HALF = 0xFFFFFFFF
PROT_EXEC = 4
MAX_WORKER_CALLS = 13
SAID_ONCE = ("base", "no-new-code", "start", "threads", "worker")
"""Policies whose rules another one that includes them need not repeat. What a whole process needs, each of the larger
policies says for itself."""

SIGNATURES: dict[str, str] = {
    # One letter per argument: i = int, unsigned int, enum (32 bits are read); f = a descriptor, 32 bits;
    # w = unsigned long, size_t (all 64 bits are read); p = pointer, 64 bits.
    "clock_getres": "ip",
    "clock_gettime": "ip",
    "clock_nanosleep": "iipp",
    "clone": "ipppw",  # unsigned long clone_flags, of which lower_32_bits() is used
    "clone3": "pw",
    "close": "f",
    "close_range": "iii",
    "fcntl": "fiw",
    "futex": "piippi",
    "getrandom": "pwi",
    "ioctl": "fiw",
    "keyctl": "iwwww",
    "kill": "ii",
    "landlock_create_ruleset": "pwi",
    "landlock_restrict_self": "fi",
    "madvise": "wwi",
    "memfd_create": "pi",
    "mmap": "pwwwfw",  # unsigned long fd, of which fget() takes 32 bits
    "mount": "pppwp",
    "mprotect": "wwwi",
    "mremap": "pwwwp",
    "mseal": "wwi",
    "munmap": "pw",
    "openat": "fpii",
    "pread64": "fpww",
    "prctl": "iwwww",
    "prlimit64": "iipp",
    "pwrite64": "fpww",
    "recvfrom": "fpwipp",
    "recvmsg": "fpi",
    "seccomp": "iip",
    "sendmsg": "fpi",
    "sendto": "fpwipi",
    "setns": "fi",
    "socket": "iii",
    "socketpair": "iiip",
    "tgkill": "iii",
    "unshare": "w",
    "write": "fpw",
}
"""Argument types of every call whose arguments a policy compares, or whose descriptor it must pin."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


AUTHORITY: dict[str, frozenset[str]] = {
    "names a path": _words(
        """open openat openat2 creat access faccessat faccessat2 stat lstat statx newfstatat readlink readlinkat rename
        renameat renameat2 link linkat symlink symlinkat unlink unlinkat mkdir mkdirat mknod mknodat rmdir chdir chroot
        chmod fchmodat chown lchown fchownat truncate utimensat getcwd name_to_handle_at open_by_handle_at inotify_init1
        inotify_add_watch fanotify_init fanotify_mark setxattr getxattr swapon quotactl acct statfs"""
    ),
    "makes a socket or an address": _words(
        "socket socketpair connect bind listen accept accept4 sendmsg recvmsg sendmmsg recvmmsg shutdown"
    ),
    "makes a process or a program": _words("clone clone3 fork vfork execve execveat"),
    "makes a descriptor": _words(
        """dup dup2 dup3 fcntl pipe pipe2 eventfd eventfd2 epoll_create epoll_create1 memfd_create memfd_secret
        timerfd_create signalfd4 userfaultfd io_uring_setup io_uring_enter io_uring_register perf_event_open bpf
        pidfd_open pidfd_getfd landlock_create_ruleset fsopen fspick fsmount open_tree"""
    ),
    "reaches another process": _words(
        """kill tkill tgkill rt_sigqueueinfo rt_tgsigqueueinfo pidfd_send_signal ptrace process_vm_readv
        process_vm_writev process_madvise kcmp setpriority sched_setscheduler sched_setattr migrate_pages move_pages
        shmget shmat semget msgget mq_open keyctl add_key request_key"""
    ),
    "changes what the process is": _words(
        """prctl arch_prctl personality setuid setgid setresuid setresgid setgroups capset setrlimit prlimit64 unshare
        setns mount umount2 pivot_root move_mount mount_setattr seccomp modify_ldt ioperm iopl rt_sigaction sigaltstack
        ioctl pkey_mprotect mremap remap_file_pages mlock"""
    ),
    "changes the machine": _words(
        """reboot kexec_load init_module finit_module delete_module settimeofday clock_settime adjtimex sethostname
        setdomainname swapoff syslog vhangup nfsservctl lookup_dcookie"""
    ),
}
"""Calls that a sealed worker has no business with, by what they would give it."""


def lint(name: str) -> list[str]:
    """Everything that is wrong with a policy, in words; empty when nothing is.

    Raises:
        PolicyError: the file cannot be read as a policy at all.
    """
    own = read_policy(name).rules
    found = [] if len(read_policy(name).description) > 20 else [f"{name}: no description"]
    found += [finding for rule in own for finding in (*_reasons(rule), *_arguments(rule), *_calls(rule))]
    found += _overlaps(name, own)
    if name == "worker":
        found += _worker(own)
    for inner, outer in (("worker", "worker-load"), ("worker-load", "zygote")):
        if name == outer:
            found += _covers(outer, inner)
    if name == "supervisor":
        found += [finding for inner in names() if inner != name for finding in _covers(name, inner)]
    return found


def _where(rule: Rule) -> str:
    return f"{rule.policy}.toml: {rule.call}"


def _reasons(rule: Rule) -> Iterable[str]:
    if len(rule.why.split()) < 3:
        yield f"{_where(rule)}: the reason is no sentence: {rule.why!r}"


def _arguments(rule: Rule) -> Iterable[str]:
    signature = SIGNATURES.get(rule.call)
    for entry in rule.comparisons:
        if signature is None:
            yield f"{_where(rule)}: compares arguments whose types are not in the linter's table"
            return
        if entry.argument >= len(signature):
            yield f"{_where(rule)}: argument {entry.argument} does not exist"
            continue
        kind = signature[entry.argument]
        if kind in "if" and (entry.op != "masked_eq" or entry.mask > HALF):
            yield f"{_where(rule)}: argument {entry.argument} is an int; compare its 32 bits (masked_eq), not 64"
        # A rule that answers with an error may look at single bits: what it leaves open is killed or allowed by others.
        if kind in "wp" and entry.op == "masked_eq" and entry.mask >> 32 != HALF and not rule.answer:
            yield f"{_where(rule)}: argument {entry.argument} is 64 bits wide; the mask leaves bits of it open"


def _calls(rule: Rule) -> Iterable[str]:
    for machine in rule.machines:
        try:
            seccomp.compile_rules([rule], machine)
        except PolicyError as error:
            yield f"{_where(rule)}: {error.message}"
    known = {machine: seccomp.number_of(rule.call, machine) for machine in MACHINES}
    for machine, number in rule.numbers:
        if known[machine] not in (None, number):
            yield f"{_where(rule)}: {number} on {machine}, where libseccomp says {known[machine]}"
    missing = [machine for machine in MACHINES if machine not in rule.machines and known[machine] is not None]
    if missing and not rule.kept_for:
        yield f"{_where(rule)}: left out on {', '.join(missing)}, where the call exists"


def _disjoint(one: Comparison, other: Comparison) -> bool:
    if "le" in (one.op, other.op):
        return False  # nothing compares so yet; treated as if it might overlap
    return bool((one.value ^ other.value) & one.mask & other.mask)


def _apart(one: Rule, other: Rule) -> bool:
    """Whether no call can match both."""
    return any(
        _disjoint(mine, theirs)
        for mine in one.comparisons
        for theirs in other.comparisons
        if mine.argument == theirs.argument
    )


def _overlaps(name: str, own: tuple[Rule, ...]) -> Iterable[str]:
    for at, rule in enumerate(own):
        for other in own[at + 1 :]:
            if rule.call == other.call and set(rule.machines) & set(other.machines) and not _apart(rule, other):
                yield f"{_where(rule)}: two rules speak of the same call: {rule.why!r} and {other.why!r}"
    included = [rule for rule in rules(name) if rule.policy in SAID_ONCE]
    for rule in own:
        for other in included:
            if rule.policy != other.policy and rule.answer == other.answer and covers(other, rule):
                yield f"{_where(rule)}: {other.policy}.toml lets it through already"


def _covers(outer: str, inner: str) -> Iterable[str]:
    """Filters add up: what an inner one lets through must pass the outer one as well, on every machine."""
    for machine in MACHINES:
        around = rules(outer, machine)
        for rule in rules(inner, machine):
            # An error that the inner filter answers with must not be a death in the outer one.
            if not any(covers(wide, rule) and wide.answer in ("", rule.answer) for wide in around):
                yield f"{outer}.toml: does not let {rule.call} of {inner}.toml through ({machine})"


def _worker(own: tuple[Rule, ...]) -> Iterable[str]:
    calls = {rule.call for rule in own}
    if len(calls) > MAX_WORKER_CALLS:
        yield f"worker.toml: {len(calls)} calls, at most {MAX_WORKER_CALLS}"
    for what, members in AUTHORITY.items():
        yield from (f"worker.toml: {call} {what}" for call in sorted(calls & members))
    for rule in own:
        signature = SIGNATURES.get(rule.call, "")
        by_argument = {entry.argument: entry for entry in rule.comparisons}
        for position, kind in enumerate(signature):
            entry = by_argument.get(position)
            wanted = {HALF} if rule.call == "mmap" else {3, 4}
            if kind == "f" and (entry is None or entry.mask != HALF or entry.value not in wanted):
                yield f"{_where(rule)}: the descriptor is not pinned"
        if rule.call in ("mmap", "mprotect"):
            entry = by_argument.get(2, Comparison(2, "masked_eq", 0, 0))
            if not entry.mask & PROT_EXEC or entry.value & PROT_EXEC or entry.op == "le":
                yield f"{_where(rule)}: lets a page become executable"
        if rule.call == "mmap":
            address, flags = by_argument.get(0), by_argument.get(3)
            if address is None or (address.value, address.mask) != (0, WHOLE):
                yield f"{_where(rule)}: lets the caller choose the address"
            if flags is None or flags.mask & 0x3F != 0x3F or flags.value & 0x3F != 0x22:
                yield f"{_where(rule)}: memory that is not private and anonymous"


def main(arguments: list[str]) -> int:
    """Print every finding; 1 when there is one."""
    found = [finding for name in arguments or names() for finding in lint(name)]
    for finding in found:
        print(finding)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
