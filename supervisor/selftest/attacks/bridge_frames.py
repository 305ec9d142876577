"""T50 and T51 on descriptor 3: what is no request, as `sandbox.wire.packet` and `bridge.dispatch` have it."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import msgspec

from bridge.session import MAX_REQUEST
from sandbox.wire.bridge_ops import ANSWER, SEALED, SETUP_ERROR, SPEC, Op
from sandbox.wire.packet import CHUNK, HEADER, PACKET, split
from supervisor.selftest.attacks.frames import FrameAttack

_encode = msgspec.msgpack.encode


def request(op: int, *arguments: object) -> bytes:
    """A request of one packet."""
    return split(op, _encode(arguments))[0]


def raw(op: int, body: bytes) -> bytes:
    """A packet with this body, which its header tells."""
    return HEADER.pack(op, 0, len(body)) + body


SEEDS = (
    request(Op.FS_READ, "/data/f"),
    request(Op.FS_READ_RANGE, "/data/f", 3, 100),
    request(Op.FS_WRITE, "/data/f", b"content"),
    request(Op.FS_RENAME, "/data/f", "/data/g"),
    request(Op.STORAGE_GET, "key"),
    request(Op.STORAGE_SET, "key", b"value"),
    request(Op.STORAGE_LIST_KEYS, None),
    request(Op.STORAGE_USAGE),
    request(Op.LOG, 2, "a line", [("key", "value")]),
    request(Op.SLEEP, 1 << 40, 1 << 41),
)
"""Good requests, one of each shape."""
_GET = request(Op.STORAGE_GET, "key")
_LONG_SLEEP = request(Op.SLEEP, 1 << 62, 1 << 62)
_DEEP = b"\x91" * 60_000
_LONG = split(Op.STORAGE_SET, _encode(("key", bytes(2 * CHUNK))))
_ODD = "wrong arguments of"
_TOO_DEEP = "wrong arguments of STORAGE_GET"


def attacks() -> Iterator[FrameAttack]:
    """All of them; ids T50 (what the state does not allow) and T51 (what is malformed)."""

    def state(name: str, *packets: bytes, why: str) -> FrameAttack:
        return FrameAttack("T50", f"bridge: {name}", packets, why)

    def malformed(name: str, *packets: bytes, why: str) -> FrameAttack:
        return FrameAttack("T51", f"bridge: {name}", packets, why)

    yield state("an operation that does not exist", raw(99, b"\x90"), why="unknown operation [99]")
    yield state("an answer in place of a request", raw(Op.STORAGE_GET | ANSWER, b"\x92\0\xc0"), why="unknown operation")
    yield state("sealed, a second time", raw(SEALED, b""), why="unknown operation")
    yield state("a set-up error after the set-up", raw(SETUP_ERROR, b"step"), why="unknown operation")
    yield state("a specification for the bridge", raw(SPEC, b"\x90"), why="unknown operation")
    yield state("a second request while one is open", _LONG_SLEEP, _GET, why="a second request while one is in hand")
    yield state(
        "another component's name with the key",
        request(Op.STORAGE_GET, "key", "selftest/neighbour/0"),
        why=f"{_ODD} STORAGE_GET",
    )
    yield state("a request during another's chunks", _LONG[0], _GET, why="chunk out of order")

    yield malformed("a packet of no bytes", b"", why="empty packet")
    yield malformed("a packet of one byte", b"\x01", why="packet of impossible length [1]")
    yield malformed("half a header", HEADER.pack(14, 0, 0)[:7], why="packet of impossible length [7]")
    yield malformed("a packet that is too long", bytes(PACKET + 1), why="packet of impossible length")
    yield malformed("kind 0", raw(0, b"\x90"), why="message of kind 0")
    yield malformed(
        "a length of 4 GiB", HEADER.pack(Op.STORAGE_GET, 0, 0xFFFFFFFF) + bytes(CHUNK), why="over the limit"
    )
    yield malformed(
        "a length one over the limit", HEADER.pack(Op.FS_WRITE, 0, MAX_REQUEST + 1) + bytes(CHUNK), why="over the limit"
    )
    yield malformed("shorter than it says", HEADER.pack(Op.STORAGE_GET, 0, 100) + b"\x90", why="whole first chunk")
    yield malformed("longer than it says", HEADER.pack(Op.STORAGE_GET, 0, 1) + b"\x91\xa1k", why="whole first chunk")
    yield malformed("begins with the second chunk", _LONG[1], _LONG[0], why="whole first chunk")
    yield malformed("chunks out of order", _LONG[0], _LONG[2], _LONG[1], why="chunk out of order")
    yield malformed("a chunk twice", _LONG[0], _LONG[0], *_LONG[1:], why="chunk out of order")
    yield malformed(
        "another length half way",
        _LONG[0],
        HEADER.pack(Op.STORAGE_SET, 1, 100) + _LONG[1][HEADER.size :],
        why="chunk out of order",
    )
    yield malformed(
        "another operation half way",
        _LONG[0],
        struct.pack("<H", Op.FS_WRITE) + _LONG[1][2:],
        why="chunk out of order",
    )
    yield malformed("no MessagePack", raw(Op.STORAGE_GET, b"\xc1"), why=_ODD)
    yield malformed("no body", raw(Op.STORAGE_GET, b""), why=_ODD)
    yield malformed("bytes behind the arguments", raw(Op.STORAGE_GET, b"\x91\xa1k\0"), why=_ODD)
    yield malformed("60,000 arrays in one another", raw(Op.STORAGE_GET, _DEEP), why=_TOO_DEEP)
    yield malformed("an array of 4 billion elements", raw(Op.STORAGE_GET, b"\xdd\xff\xff\xff\xff"), why=_ODD)
    yield malformed("a text of 4 GiB", raw(Op.STORAGE_GET, b"\x91\xdb\xff\xff\xff\xff"), why=_ODD)
    yield malformed("a map with a key twice", raw(Op.STORAGE_GET, b"\x82\xa1k\xa1k\xa1k\xa1l"), why=_ODD)
    yield malformed("an extension type", raw(Op.STORAGE_GET, b"\x91\xd4\x01\x00"), why=_ODD)
    yield malformed("too few arguments", request(Op.STORAGE_SET, "key"), why=f"{_ODD} STORAGE_SET")
    yield malformed("too many arguments", request(Op.STORAGE_USAGE, 1), why=f"{_ODD} STORAGE_USAGE")
    yield malformed("a number in place of a text", request(Op.STORAGE_GET, 1), why=f"{_ODD} STORAGE_GET")
    yield malformed("bytes in place of a text", request(Op.STORAGE_GET, b"\xff"), why=f"{_ODD} STORAGE_GET")
    yield malformed("nothing in place of a text", request(Op.STORAGE_GET, None), why=f"{_ODD} STORAGE_GET")
    yield malformed("a text in place of bytes", request(Op.FS_WRITE, "/data/f", "text"), why=f"{_ODD} FS_WRITE")
    yield malformed("a text that is no UTF-8", raw(Op.FS_READ, b"\x91\xa7/data/\xff"), why=f"{_ODD} FS_READ")
    yield malformed("half a surrogate pair", raw(Op.FS_READ, b"\x91\xa3\xed\xa0\x80"), why=f"{_ODD} FS_READ")
    yield malformed("an overlong dot", raw(Op.FS_READ, b"\x91\xa8/data/\xc0\xae"), why=f"{_ODD} FS_READ")
    yield malformed("a negative offset", request(Op.FS_READ_RANGE, "/data/f", -1, 1), why=f"{_ODD} FS_READ_RANGE")
    yield malformed("a fraction of a byte", request(Op.FS_READ_RANGE, "/data/f", 0, 0.5), why=f"{_ODD} FS_READ_RANGE")
    yield malformed("a level of log that is none", request(Op.LOG, 5, "line", None), why=f"{_ODD} LOG")
    yield malformed("context that is no list of pairs", request(Op.LOG, 0, "line", [("k",)]), why=f"{_ODD} LOG")
    yield malformed("a sleep until before the beginning", request(Op.SLEEP, -1, 1), why=f"{_ODD} SLEEP")
