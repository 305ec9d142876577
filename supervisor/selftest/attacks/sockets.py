"""T20: sockets of every family, and more than is allowed with the two that are there."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from supervisor.selftest.attack import Attack, Case, answered, attack, one
from supervisor.selftest.program import Program

FAMILIES = range(46)
_UNIX = struct.pack("<H", 1) + b"\0selftest-nobody"
_INET = struct.pack("<HH", 2, 9 << 8) + bytes([127, 0, 0, 1]) + bytes(8)


def families() -> Attack:
    """A socket of each family there is."""
    cases = [one(f"socket of family {family}", "socket", family, 2, 0, worked=answered) for family in FAMILIES]
    cases.append(one("socketpair", "socketpair", 1, 1, 0, bytes(8)))
    return attack("T20", "sockets of families 0 to 45", "seccomp; RLIMIT_NOFILE; network namespace", cases)


def channels() -> Attack:
    """What the kernel could do with descriptors 3 and 4 beside receiving and sending."""
    passing = Program()
    data = passing.data(b"x")
    vector = passing.data(bytes(16))
    passing.step("poke", vector, data)
    passing.step("poke", vector + 8, 1)
    control = passing.data(struct.pack("<QiiI", 20, 1, 1, 4) + bytes(4))  # SOL_SOCKET, SCM_RIGHTS, descriptor 4
    header = passing.data(struct.pack("<QIIQQQQi", 0, 0, 0, 0, 1, 0, 24, 0) + bytes(4))
    passing.step("poke", header + 16, vector)
    passing.step("poke", header + 32, control)
    passing.syscall("sendmsg", 3, header, 0)
    return attack(
        "T20",
        "more than sending and receiving on the channels",
        "seccomp",
        [
            Case("sendmsg with a descriptor", passing),
            one("recvmsg", "recvmsg", 3, bytes(56), 0x40, worked=answered),
            one("sendmmsg", "sendmmsg", 3, bytes(64), 1, 0, worked=answered),
            one("recvmmsg", "recvmmsg", 3, bytes(64), 1, 0x40, 0, worked=answered),
            one("sendto with an address", "sendto", 4, b"x", 1, 0, _UNIX, len(_UNIX), worked=answered),
            one("sendto, out of band", "sendto", 4, b"x", 1, 1, 0, 0, worked=answered),
            one("recvfrom with an address", "recvfrom", 3, bytes(16), 16, 0x40, bytes(128), bytes(4)),
            one("recvfrom, peeking", "recvfrom", 3, bytes(16), 16, 2, 0, 0),
            one("bind", "bind", 3, _UNIX, len(_UNIX), worked=answered),
            one("connect", "connect", 3, _INET, len(_INET), worked=answered),
            one("listen", "listen", 3, 1, worked=answered),
            one("accept4", "accept4", 3, 0, 0, 0, worked=answered),
            one("shutdown", "shutdown", 3, 0),
            one("setsockopt", "setsockopt", 3, 1, 7, bytes(4), 4),
            one("getsockopt", "getsockopt", 3, 1, 3, bytes(4), struct.pack("<I", 4)),
            one("getpeername", "getpeername", 3, bytes(128), struct.pack("<I", 128)),
            one("SO_PEERCRED of the other end", "getsockopt", 3, 1, 17, bytes(12), struct.pack("<I", 12)),
            one("splice", "splice", 3, 0, 4, 0, 16, 0, worked=answered),
            one("sendfile", "sendfile", 4, 3, 0, 16, worked=answered),
            one("poll", "poll", struct.pack("<ihh", 3, 1, 0), 1, 0),
        ],
    )


def attacks() -> Iterator[Attack]:
    """Everything of this module."""
    yield families()
    yield channels()
