"""The supervisor's channels: packets with descriptors, and everything a peer could send instead."""

from __future__ import annotations

import array
import os
import select
import socket
import types
import typing
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.errors import ProtocolViolation
from sandbox.types import ComponentId, Limits
from sandbox.wire import UNDECODABLE
from sandbox.wire import supervisor_frames as frames
from sandbox.wire.supervisor_frames import MAX, MAX_FDS, recv_packet, send_frame

pytestmark = pytest.mark.block3_actors
Pair = tuple[socket.socket, socket.socket]
VOCABULARIES = {
    "control": frames.FromControl,
    "child": frames.FromChild,
    "to control": frames.ToControl,
    "to bridge": frames.ToBridge,
    "to router": frames.ToRouterProcess,
}


@pytest.fixture
def pair() -> Iterator[Pair]:
    """A channel."""
    with_, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with with_, other:
        yield with_, other


class Gone:
    """A pipe whose writing end is sent away: `everywhere` tells when nobody holds it any more."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe2(os.O_CLOEXEC)

    def everywhere(self) -> bool:
        """Whether all writing ends are closed (hang-up), now."""
        poll = select.poll()
        poll.register(self.reader, select.POLLIN)
        return any(event & select.POLLHUP for _, event in poll.poll(0))

    def let_go(self) -> None:
        """Close our own writing end."""
        os.close(self.writer)

    def close(self) -> None:
        os.close(self.reader)


@pytest.fixture
def gone() -> Iterator[Gone]:
    """One such pipe."""
    pipe = Gone()
    yield pipe
    pipe.close()


def send_raw(sock: socket.socket, body: bytes, fds: list[int]) -> None:
    """A packet as no frame of ours would be."""
    sock.sendmsg([body], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])


# -- transport ----------------------------------------------------------------------------------------------------


def test_descriptors_arrive(pair: Pair, gone: Gone) -> None:
    """A packet's descriptors come with it, close-on-exec, and are the same open files."""
    send_frame(pair[0], frames.Fork(1, 2), [gone.writer, gone.writer])
    gone.let_go()
    body, fds = recv_packet(pair[1])
    assert frames.Fork(1, 2) == msgspec.msgpack.decode(body, type=frames.Fork)
    assert 2 == len(fds)
    assert not any(os.get_inheritable(fd) for fd in fds)
    assert not gone.everywhere(), "positive control: they are open"
    frames.close_all(fds)
    assert gone.everywhere()


def test_as_many_descriptors_as_allowed(pair: Pair, gone: Gone) -> None:
    """Exactly the limit passes."""
    send_frame(pair[0], frames.Up(), [gone.writer] * MAX_FDS)
    gone.let_go()
    _, fds = recv_packet(pair[1])
    assert MAX_FDS == len(fds)
    frames.close_all(fds)


def test_too_many_descriptors(pair: Pair, gone: Gone) -> None:
    """One more than the limit is a violation, and those that arrived are closed."""
    send_raw(pair[0], b"x", [gone.writer] * (MAX_FDS + 1))
    gone.let_go()
    with pytest.raises(ProtocolViolation, match="truncated"):
        recv_packet(pair[1])
    assert gone.everywhere()


def test_too_long(pair: Pair, gone: Gone) -> None:
    """A packet over the limit is a violation, its descriptors are closed, and the next one is whole."""
    pair[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * MAX)
    send_raw(pair[0], b"x" * (MAX + 1), [gone.writer])
    gone.let_go()
    send_frame(pair[0], frames.Up())
    with pytest.raises(ProtocolViolation, match="truncated"):
        recv_packet(pair[1])
    assert gone.everywhere()
    assert frames.Up() == msgspec.msgpack.decode(recv_packet(pair[1])[0], type=frames.Up)


def test_longest(pair: Pair) -> None:
    """Exactly the limit passes; one byte more is refused by the sender."""
    room = MAX - len(msgspec.msgpack.encode(frames.BridgePolicy(ComponentId("a", "b"), b"x" * 60_000, []))) + 60_000
    send_frame(pair[0], frames.BridgePolicy(ComponentId("a", "b"), b"x" * room, []))
    body, _ = recv_packet(pair[1])
    assert MAX == len(body)
    with pytest.raises(ProtocolViolation, match="too long"):
        send_frame(pair[0], frames.BridgePolicy(ComponentId("a", "b"), b"x" * (room + 1), []))


def test_hung_up(pair: Pair) -> None:
    """The end of the peer is EOFError; sending to it is an OSError and no signal."""
    pair[0].close()
    with pytest.raises(EOFError):
        recv_packet(pair[1])
    with pytest.raises(OSError, match="Broken pipe"):
        send_frame(pair[1], frames.Up())


def test_empty_packet_with_descriptors(pair: Pair, gone: Gone) -> None:
    """A packet of no bytes counts as the end; what came with it is closed."""
    send_raw(pair[0], b"", [gone.writer])
    gone.let_go()
    with pytest.raises(EOFError):
        recv_packet(pair[1])
    assert gone.everywhere()


def test_nothing_there_yet(pair: Pair) -> None:
    """A channel that does not block says so."""
    pair[1].setblocking(False)
    with pytest.raises(BlockingIOError):
        recv_packet(pair[1])


def test_queue_full(pair: Pair) -> None:
    """A channel that does not block and whose peer does not read says so instead of waiting."""
    pair[0].setblocking(False)
    with pytest.raises(BlockingIOError):
        while True:
            send_frame(pair[0], frames.Up())


# -- vocabulary ---------------------------------------------------------------------------------------------------

_names = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=12)
_components = st.builds(ComponentId, _names, _names, _names)
_OUTCOMES = st.sampled_from(["killed", "deadline"])


def _values(kind: Any) -> st.SearchStrategy[Any]:
    """Values of a field, within its bounds."""
    if typing.get_origin(kind) is typing.Annotated:
        meta = next(m for m in typing.get_args(kind)[1:] if isinstance(m, msgspec.Meta))
        if typing.get_args(kind)[0] is int:
            return st.integers(meta.ge if meta.ge is not None else 0, meta.le if meta.le is not None else 2**63 - 1)
        return st.text(max_size=meta.max_length or 20)
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return st.one_of(*map(_values, typing.get_args(kind)))
    if typing.get_origin(kind) is typing.Literal:
        return st.sampled_from(typing.get_args(kind))
    if typing.get_origin(kind) is list:
        return st.lists(_values(typing.get_args(kind)[0]), max_size=3)
    if typing.get_origin(kind) is dict:
        return st.dictionaries(_names, _values(typing.get_args(kind)[1]), max_size=3)
    if kind is ComponentId:
        return _components
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return _frame(kind)
    return {
        int: st.integers(0, 2**63 - 1),
        bool: st.booleans(),
        str: st.text(max_size=20),
        bytes: st.binary(max_size=40),
        type(None): st.none(),
    }[kind]


def _frame(kind: type[msgspec.Struct]) -> st.SearchStrategy[msgspec.Struct]:
    hints = typing.get_type_hints(kind, include_extras=True)
    return st.builds(kind, *[_values(hints[name]) for name in kind.__struct_fields__])


@pytest.mark.parametrize("name", VOCABULARIES)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_round_trip(name: str, data: st.DataObject) -> None:
    """Every frame of a vocabulary comes back equal, and as its own class."""
    vocabulary = VOCABULARIES[name]
    kind = data.draw(st.sampled_from(typing.get_args(vocabulary)))
    frame = data.draw(_frame(kind))
    decoded = msgspec.msgpack.decode(msgspec.msgpack.encode(frame), type=vocabulary)
    assert frame == decoded
    assert kind is type(decoded)


@pytest.mark.parametrize("name", VOCABULARIES)
@given(noise=st.binary(max_size=80))
@settings(max_examples=100, deadline=None)
def test_noise(name: str, noise: bytes) -> None:
    """Any bytes decode to a frame or raise one of `UNDECODABLE`, which is what receivers catch."""
    try:
        decoded = msgspec.msgpack.decode(noise, type=VOCABULARIES[name])
    except UNDECODABLE:
        return
    assert isinstance(decoded, typing.get_args(VOCABULARIES[name]))


UP = msgspec.msgpack.encode(frames.Up())


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (UP[:-1], msgspec.DecodeError),
        (UP + b"\0", msgspec.DecodeError),
        (msgspec.msgpack.encode(["Nothing", 1]), msgspec.ValidationError),
        (msgspec.msgpack.encode(["Up", 1]), msgspec.ValidationError),
        (msgspec.msgpack.encode({"type": "Up"}), msgspec.ValidationError),
        (msgspec.msgpack.encode(["EndWorker", "1", "deadline", ""]), msgspec.ValidationError),
        (b"\x93\xa9EndWorker\x01\xa2\xff\xfe\xa0"[:1] + b"", msgspec.DecodeError),
        (b"\x94\xa9EndWorker\x01\xa2\xff\xfe\xa0", UnicodeDecodeError),
        (b"\x91" * 60_000, RecursionError),
        (b"\x91\xa2\xff\xfe", msgspec.MsgspecError),
    ],
    ids=["cut", "tail", "unknown", "too many fields", "map", "wrong type", "short", "UTF-8", "deep", "UTF-8 tag"],
)
def test_undecodable(body: bytes, kind: type[Exception]) -> None:
    """Each way of being no frame raises an error that `UNDECODABLE` covers, invalid UTF-8 and deep nesting included."""
    with pytest.raises((kind, *UNDECODABLE)) as caught:
        msgspec.msgpack.decode(body, type=frames.FromChild)
    assert isinstance(caught.value, UNDECODABLE)


@pytest.mark.parametrize(
    "frame",
    [
        frames.StartWorker(1, ComponentId("a", "b"), -1, Limits()),
        frames.StartWorker(-1, ComponentId("a", "b"), 1, Limits()),
        frames.StartWorker(1, ComponentId("a", "b"), 1 << 63, Limits()),
        frames.KillWorker(1, 1, "because"),
        frames.KillWorker(1, 1, "exited"),
        frames.Compile(1, -1, 1),
        frames.Compile(1, 1, 0),
        frames.Compile(1, 1, 1 << 40),
    ],
    ids=lambda frame: type(frame).__name__,
)
def test_numbers_and_words_out_of_range(frame: msgspec.Struct) -> None:
    """What control cannot mean is no frame: a number the kernel would choke on, a reason that is none."""
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(msgspec.msgpack.encode(frame), type=frames.FromControl)


@pytest.mark.parametrize("pid", [-5000, 1 << 31, 1 << 40], ids=str)
def test_pids_out_of_range(pid: int) -> None:
    """A number that is neither a pid nor an errno is no answer of the zygote."""
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(msgspec.msgpack.encode(frames.Forked(1, pid)), type=frames.Forked)


def test_what_control_means_is_decoded() -> None:
    """Positive control of the ranges."""
    for frame in (
        frames.StartWorker(1, ComponentId("a", "b"), 1, Limits()),
        frames.KillWorker(1, 1, "killed"),
        frames.KillWorker(1, 1, "deadline"),
        frames.Compile(1, 2 << 30, 120),
    ):
        assert frame == msgspec.msgpack.decode(msgspec.msgpack.encode(frame), type=frames.FromControl)
