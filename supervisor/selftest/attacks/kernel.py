"""T17, T18: parts of the kernel a component has no business with, and mounts."""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator

from supervisor.selftest.attack import Attack, Case, Judge, administrator, answered, attack, gained, one

_TMPFS = b"tmpfs\0"


def facilities() -> Attack:
    """T17. Most ask for more than an ordinary user has: that the kernel answers at all is what a filter prevents."""
    descriptor = struct.pack("<IIII", 0, 0, 0xFFFFF, 0x51)
    return attack(
        "T17",
        "kernel facilities",
        "seccomp; no capability",
        [
            one("bpf", "bpf", 0, bytes(64), 64, worked=answered),
            one("perf_event_open", "perf_event_open", bytes(112), 0, -1, -1, 0, worked=answered),
            one("userfaultfd", "userfaultfd", 1, worked=answered),
            one("fanotify_init", "fanotify_init", 0, 0, worked=answered),
            one("inotify_init1", "inotify_init1", 0),
            one("keyctl", "keyctl", 0, -3, 0),
            one("add_key", "add_key", b"user\0", b"selftest\0", b"x", 1, -2),
            one("request_key", "request_key", b"user\0", b"selftest\0", 0, 0, worked=answered),
            one("modify_ldt", "modify_ldt", 1, descriptor, 16, excuse=administrator(errno.ENOSYS)),
            one("kexec_load", "kexec_load", 0, 0, 0, 0, worked=answered),
            one("kexec_file_load", "kexec_file_load", -1, -1, 0, 0, 0, worked=answered),
            one("init_module", "init_module", 0, 0, 0, worked=answered),
            one("finit_module", "finit_module", -1, 0, 0, worked=answered),
            one("delete_module", "delete_module", b"none\0", 0, worked=answered),
            one("reboot", "reboot", 0, 0, 0, 0, worked=answered),
            one("syslog", "syslog", 10, 0, 0, worked=answered),
            one("iopl", "iopl", 3, worked=answered),
            one("ioperm", "ioperm", 0, 1, 1, worked=answered),
            one("settimeofday", "settimeofday", 0, 0, worked=answered),
            one("sethostname", "sethostname", b"x", -1, worked=answered),
            one("swapon", "swapon", 0, 0, worked=answered),
            one("quotactl", "quotactl", 0, 0, 0, 0, worked=answered),
            one("open_by_handle_at", "open_by_handle_at", -100, bytes(16), 0, worked=answered),
            one("name_to_handle_at", "name_to_handle_at", -100, b".\0", bytes(256), bytes(8), 0, worked=answered),
            one("timer_create", "timer_create", 0, 0, bytes(8)),
            one("timerfd_create", "timerfd_create", 1, 0),
            one("signalfd4", "signalfd4", -1, bytes(8), 8, 0),
            one("eventfd2", "eventfd2", 0, 0),
            one("epoll_create1", "epoll_create1", 0),
            one("io_setup", "io_setup", 1, bytes(8), worked=answered),
            one("mq_open", "mq_open", b"selftest\0", 0, 0, 0, worked=answered),
            one("shmget", "shmget", 1, 4096, 0, worked=answered),
            one("semget", "semget", 1, 1, 0, worked=answered),
            one("msgget", "msgget", 1, 0, worked=answered),
            one("pipe2", "pipe2", bytes(8), 0),
            one("uname", "uname", bytes(400)),
            one("sysinfo", "sysinfo", bytes(128)),
            one("getuid", "getuid"),
            one("getdents64", "getdents64", 3, bytes(64), 64, worked=answered),
        ],
    )


def files() -> Attack:
    """T28's native half: names, through every call that takes one."""
    path, stat = b"/etc/passwd\0", bytes(256)
    return attack(
        "T28",
        "files by name",
        "seccomp; empty root; landlock",
        [
            one("open", "open", path, 0, 0),
            one("openat", "openat", -100, path, 0, 0),
            one("openat2", "openat2", -100, path, bytes(24), 24),
            one("creat", "creat", b"/tmp\0", 0o600, worked=answered),
            one("stat", "stat", path, stat),
            one("statx", "statx", -100, path, 0, 0x7FF, stat),
            one("access", "access", path, 4),
            one("readlink", "readlink", b"/proc/self/exe\0", stat, 200),
            one("getcwd", "getcwd", stat, 200),
            one("chdir", "chdir", b"/\0"),
            one("mkdir", "mkdir", b"/tmp\0", 0o700, worked=answered),
            one("unlink", "unlink", b"/none\0", worked=answered),
            one("symlink", "symlink", b"/\0", b"/tmp\0", worked=answered),
            one("mknod", "mknod", b"/tmp\0", 0o10600, 0, worked=answered),
            one("truncate", "truncate", b"/none\0", 0, worked=answered),
            one("statfs", "statfs", b"/\0", stat),
            one("fstat of a channel", "fstat", 3, stat),
            one("read a channel", "read", 3, stat, 16),
            one("write a channel", "write", 4, b"x", 1),
            one("close a channel", "close", 3),
            one("dup a channel", "dup", 3),
        ],
    )


def mounts() -> Attack:
    """T18."""

    def contained(name: str, *words: int | bytes, worked: Judge = gained) -> Case:
        return one(name, name, *words, worked=worked, scene="contained", excuse=administrator(errno.EPERM))

    return attack(
        "T18",
        "mounts",
        "seccomp; no capability; landlock",
        [
            contained("mount", _TMPFS, b"/tmp\0", _TMPFS, 0, 0),
            contained("open_tree", -100, b"/\0", 0x8001),
            contained("move_mount", -1, b"\0", -100, b"/tmp\0", 4, worked=answered),
            contained("fsopen", _TMPFS, 0),
            contained("fsconfig", -1, 6, 0, 0, 0, worked=answered),
            contained("fsmount", -1, 0, 0, worked=answered),
            contained("mount_setattr", -100, b"/\0", 0, bytes(32), 32, worked=answered),
            contained("pivot_root", b"/\0", b"/\0", worked=answered),
            contained("chroot", b"/\0"),
            contained("umount2", b"/none\0", 2, worked=answered),
            contained("statmount", 0, 0, 0, 0, worked=answered),
            contained("listmount", 0, 0, 0, 0, worked=answered),
        ],
    )


def attacks() -> Iterator[Attack]:
    """Everything of this module."""
    yield facilities()
    yield mounts()
    yield files()
