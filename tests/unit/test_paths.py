"""Values across the wasm boundary are the same on either path: every function of the host, every field of a message.

The guest `test/kitchen` calls what it is told with what it is told and replies what it was answered. Both paths run the
worker's own code from the guest to the bridge's frames; what hypothesis makes up must arrive there and come back.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import kitchen
import msgspec
import paths
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sandbox.abi.types import Case, Err, ResultType, VariantType
from sandbox.guest import GuestFailed
from sandbox.types import LARGEST_GENERAL, ComponentId, Outcome
from sandbox.wire.bridge_ops import Op
from sandbox.wire.router_frames import FAILURES

pytestmark = pytest.mark.block1_runtime

NAME = kitchen.TEXT
IDS = st.builds(ComponentId, NAME, NAME, NAME)
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "sender": IDS,
        "seconds": st.integers(0, (1 << 64) - 1),
        "nanoseconds": st.integers(0, (1 << 32) - 1),
        "correlation": st.none() | NAME,
        "reply_to": st.none() | IDS,
        "content_type": st.none() | NAME,
    },
)
FUEL_TOLERANCE = 150
"""Fuel by which the paths may differ for one message: the adapter's own instructions are returned by estimate."""
LARGEST = 8 << 20
"""Bytes of the largest message and of the largest value there can be."""
ERRORS = kitchen.types()["wasm-error"]


@pytest.fixture(scope="module", params=paths.PATHS)
def guest(request: pytest.FixtureRequest) -> Iterator[paths.Running]:
    """The kitchen on one of the paths, the same for all messages of this module."""
    with ExitStack() as stack:
        yield stack.enter_context(paths.running("kitchen", request.param))


def error_text(case: Case) -> str:
    """How the worker tells a wasm-error."""
    return case.name if case.value is None else f"{case.name}: {case.value}"[: 16 * 1024]


# -- messages ---------------------------------------------------------------------------------------------------------


@given(FIELDS)
def test_a_message_arrives_whole(guest: paths.Running, fields: dict[str, Any]) -> None:
    """Every field of a message is what the guest finds."""
    payload = bytes([kitchen.MESSAGE])
    expected = kitchen.message(fields.get("sender", paths.ASKER), payload, fields)
    assert (expected, "") == guest.message(payload, **fields)


@given(FIELDS, kitchen.BLOB)
def test_a_callback_arrives_whole(guest: paths.Running, fields: dict[str, Any], payload: bytes) -> None:
    """The same for callbacks, with any payload."""
    assert "" == guest.callback(payload, **fields)
    expected = kitchen.message(fields.get("sender", paths.ASKER), payload, fields)
    assert (expected, "") == guest.message(bytes([kitchen.CALLBACK]))


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 65_535, 65_536, 65_537, 131_072, 200_000, 1 << 20, LARGEST])
@pytest.mark.parametrize("path", paths.PATHS)
def test_payloads_of_any_size_come_back(path: str, size: int) -> None:
    """Text and binary, around each size at which something changes."""
    size = min(size, paths.LARGEST[path])
    with paths.running("echo", path) as echo:
        for payload in (b"a" * size, (bytes(range(256)) * (size // 256 + 1))[:size]):
            assert (payload, "") == echo.message(payload)


def test_what_the_general_path_cannot_carry() -> None:
    """The engine lets one call copy 128 MiB of its own values, 48 bytes for each byte of a list; then it traps."""
    with paths.running("echo", "general") as echo:
        for size, said in ((LARGEST_GENERAL, "too much data is being copied"), (LARGEST_GENERAL + 1, "are the most")):
            with pytest.raises(GuestFailed, match=said) as caught:
                echo.message(bytes(size))
            assert Outcome.TRAP == caught.value.outcome
        assert (b"x", "") == echo.message(b"x")


@given(kitchen.values(ERRORS))
def test_errors_of_the_guest(guest: paths.Running, case: Case) -> None:
    """Each case of wasm-error is told with its name and text."""
    assert (None, error_text(case)) == guest.message(bytes([kitchen.FAIL]) + kitchen.written(ERRORS, case))


@given(kitchen.values(ERRORS))
def test_errors_of_callbacks(guest: paths.Running, case: Case) -> None:
    """The same out of handle-callback; the next callback is fine again."""
    assume(len(kitchen.written(ERRORS, case)) < 4096)
    assert (b"", "") == guest.message(bytes([kitchen.REFUSE_NEXT]) + kitchen.written(ERRORS, case))
    assert error_text(case) == guest.callback(b"x")
    assert "" == guest.callback(b"x")


def test_no_reply(guest: paths.Running) -> None:
    """none is no reply and no error; an empty reply is one."""
    assert (None, "") == guest.message(bytes([kitchen.NONE]))
    assert (b"", "") == guest.message(bytes([kitchen.REFUSE_NEXT, 3]))
    assert "timeout" == guest.callback(b"")


# -- functions of the host --------------------------------------------------------------------------------------------


@st.composite
def calls(draw: st.DrawFn, name: str) -> tuple[tuple[Any, ...], Any]:
    """Arguments and result of a function."""
    function = kitchen.functions()[name]
    arguments = tuple(draw(kitchen.values(kind)) for _, kind in function.parameters)
    return arguments, draw(kitchen.values(function.result))


def test_the_kitchen_knows_every_function() -> None:
    """No function of the two packages is left out here."""
    assert set(kitchen.NUMBERS) == set(kitchen.functions())


@pytest.mark.parametrize("name", kitchen.BRIDGED)
@settings(max_examples=40)
@given(st.data())
def test_what_the_bridge_does(guest: paths.Running, name: str, data: st.DataObject) -> None:
    """Arguments reach the bridge as the guest gave them, the result is what it answered: ok and every error."""
    arguments, result = data.draw(calls(name))
    guest.peers.answer = kitchen.bridge_answer(name, result)
    guest.peers.take()
    expected = kitchen.written(kitchen.functions()[name].result, result)
    assert (expected, "") == guest.message(kitchen.call(name, *arguments))
    assert [kitchen.bridge_question(name, arguments)] == guest.peers.take()


@pytest.mark.parametrize("name", kitchen.ROUTED)
@settings(max_examples=40)
@given(st.data())
def test_what_the_router_does(guest: paths.Running, name: str, data: st.DataObject) -> None:
    """The same for messages: ids, lists of ids, payloads."""
    arguments, result = data.draw(calls(name))
    guest.peers.ack, result = kitchen.router_answer(name, arguments, result)
    guest.peers.take()
    expected = kitchen.written(kitchen.functions()[name].result, result)
    assert (expected, "") == guest.message(kitchen.call(name, *arguments))
    assert [kitchen.router_question(name, arguments)] == guest.peers.take()


@pytest.mark.parametrize("name", kitchen.TYPED)
@settings(max_examples=40)
@given(st.data())
def test_what_the_router_does_of_messaging(guest: paths.Running, name: str, data: st.DataObject) -> None:
    """The same for the package airssys:messaging; what the router could not read is refused before it is asked."""
    arguments, result = data.draw(calls(name))
    question = kitchen.typed_question(name, arguments)
    guest.peers.ack = kitchen.typed_answer(result)
    guest.peers.take()
    answer, error = guest.message(kitchen.call(name, *arguments))
    if question is None:
        assert (b"\1" + bytes([FAILURES.index("invalid")]), "", []) == ((answer or b"")[:2], error, guest.peers.take())
    else:
        assert (kitchen.written(kitchen.functions()[name].result, result), "") == (answer, error)
        assert [question] == guest.peers.take()


@pytest.mark.parametrize("reason", FAILURES)
def test_every_reason_of_a_failure(guest: paths.Running, reason: str) -> None:
    """Not one reason is mistaken for another, and each call tells the one it was answered."""
    for name in kitchen.TYPED:
        arguments = tuple(_least(member) for _, member in kitchen.functions()[name].parameters)
        result = Err((reason, "why"))
        guest.peers.ack = kitchen.typed_answer(result)
        expected = kitchen.written(kitchen.functions()[name].result, result)
        assert (expected, "") == guest.message(kitchen.call(name, *arguments)), name


@given(FIELDS, kitchen.TEXT, kitchen.BLOB)
def test_a_publication_arrives_whole(guest: paths.Running, fields: dict[str, Any], topic: str, payload: bytes) -> None:
    """Topic and message are what the guest finds; there is no correlation and nobody to reply to."""
    assert "" == guest.topic(topic, payload, **fields)
    plain = {key: value for key, value in fields.items() if key not in ("correlation", "reply_to")}
    length = len(topic.encode()).to_bytes(4, "little")
    expected = length + topic.encode() + kitchen.message(fields.get("sender", paths.ASKER), payload, plain)
    assert (expected, "") == guest.message(bytes([kitchen.CALLBACK]))


def test_a_component_without_the_handler(guest: paths.Running) -> None:
    """One that exports no topic-handler says so of a publication, and goes on; one that has it is positive control."""
    assert "" == guest.topic("a.b", b"x")
    with paths.running("echo", guest.path) as echo:
        assert "the component exports no topic-handler" == echo.topic("a.b", b"x")
        assert (b"y", "") == echo.message(b"y")


def test_every_error_case_of_every_function(guest: paths.Running) -> None:
    """Not one case of an error is mistaken for another."""
    for name in (*kitchen.BRIDGED, *kitchen.ROUTED):
        kind = kitchen.functions()[name].result
        if not isinstance(kind, ResultType):
            continue
        assert isinstance(kind.err, VariantType)
        arguments = tuple(_least(member) for _, member in kitchen.functions()[name].parameters)
        for case, payload in kind.err.cases:
            result: Any = Err(Case(case, None if payload is None else _least(payload)))
            if name in kitchen.ROUTED:
                guest.peers.ack, result = kitchen.router_answer(name, arguments, result)
            else:
                guest.peers.answer = kitchen.bridge_answer(name, result)
            assert (kitchen.written(kind, result), "") == guest.message(kitchen.call(name, *arguments)), (name, case)


def _least(kind: Any) -> Any:
    """Some value of a type."""
    if isinstance(kind, type(kitchen.BYTES)):
        return b"" if kind == kitchen.BYTES else []
    if hasattr(kind, "fields"):
        return tuple(_least(member) for _, member in kind.fields)
    if hasattr(kind, "payload"):
        return None
    if hasattr(kind, "cases"):
        return kind.cases[0]
    return "t" if kind.kind == "string" else 0


def test_the_host_knows_who_the_guest_is(guest: paths.Running) -> None:
    """self-id is the worker's, whatever path."""
    expected = kitchen.written(kitchen.types()["component-id"], kitchen.tuple_of(paths.SELF))
    assert (expected, "") == guest.message(kitchen.call("host-messaging.self-id"))


@pytest.mark.parametrize("size", [0, 1, 4064, 4096, 65_536, 131_072 - 48, 131_072, 200_000, LARGEST])
def test_stored_values_of_any_size(guest: paths.Running, size: int) -> None:
    """What does not fit at first is answered again with more room."""
    size = min(size, paths.LARGEST[guest.path] - 64)  # the kitchen writes a few bytes around it
    guest.peers.answer = (0, b"v" * size)
    expected = b"\0\1" + size.to_bytes(4, "little") + b"v" * size
    assert (expected, "") == guest.message(kitchen.call("storage.get", "k"))
    guest.peers.take()
    guest.peers.answer = (0, None)
    assert (b"\0", "") == guest.message(kitchen.call("storage.set", "k", b"v" * size))
    assert [(Op.STORAGE_SET, "k", b"v" * size)] == guest.peers.take()


def test_many_keys_and_entries(guest: paths.Running) -> None:
    """Lists of ten thousand strings and records."""
    keys = [f"key/{number}" * (number % 3) for number in range(10_000)]
    guest.peers.answer = (0, keys)
    kind = kitchen.functions()["storage.list-keys"].result
    assert (kitchen.written(kind, kitchen.Ok(keys)), "") == guest.message(kitchen.call("storage.list-keys", "key"))
    entries = [(f"n{number}", ("file", "directory", "other")[number % 3], number) for number in range(10_000)]
    guest.peers.answer = (0, [(name, number % 3, number) for name, _, number in entries])
    kind = kitchen.functions()["filesystem.list"].result
    assert (kitchen.written(kind, kitchen.Ok(entries)), "") == guest.message(kitchen.call("filesystem.list", "/d"))


# -- the same on both -----------------------------------------------------------------------------------------------


def used(path: str, message: bytes, answer: Any = None, **fields: Any) -> int:
    """Fuel of a message to the kitchen."""
    with paths.running("kitchen", path) as guest:
        guest.peers.answer = (0, answer)
        guest.message(message, **fields)
        return guest.use().fuel_used()


@pytest.mark.parametrize("size", [0, 100, 4096, 65_536, 1 << 20])
@pytest.mark.parametrize("what", ["message", "get", "set"])
def test_fuel_means_the_same(what: str, size: int) -> None:
    """A message uses about as much of its budget on one path as on the other, however many bytes it carries."""
    messages = {
        "message": (bytes([kitchen.NONE]) + bytes(size), None),
        "get": (kitchen.call("storage.get", "k"), bytes(size)),
        "set": (kitchen.call("storage.set", "k", bytes(size)), None),
    }
    found = [used(path, *messages[what]) for path in paths.PATHS]
    assert max(found) - min(found) <= FUEL_TOLERANCE, found


def test_a_small_budget_carries_a_large_message() -> None:
    """Bytes on their way to a guest are not paid for out of its fuel."""
    for path in paths.PATHS:
        with paths.running("echo", path, msgspec.structs.replace(paths.WIDE, fuel=5_000)) as echo:
            assert (bytes(1 << 20), "") == echo.message(bytes(1 << 20))


@pytest.mark.parametrize("path", paths.PATHS)
def test_a_reply_over_the_message_size(path: str) -> None:
    """It is told apart from a handler's own error; one of exactly the size is a reply."""
    with paths.running("echo", path, msgspec.structs.replace(paths.WIDE, message_size=100)) as echo:
        assert ((bytes(100), ""), False) == (echo.message(bytes(100)), echo.too_large)
        assert ((None, "reply of 101 bytes is over the limit of 100"), True) == (
            echo.message(bytes(101)),
            echo.too_large,
        )


def test_a_guest_is_not_called_while_it_runs(guest: paths.Running) -> None:
    """A host function that would call the guest again is refused; the call it belongs to goes on undisturbed."""
    refused: list[str] = []
    message = kitchen.call("storage.set", "key", b"value")
    guest.peers.answer = (0, None)
    assert (b"\0", "") == guest.message(message)
    fuel = guest.use().fuel_used()
    live, ask = guest.use(), guest.peers.ask

    def again(op: Op, *arguments: Any) -> tuple[int, Any]:
        with pytest.raises(GuestFailed) as caught:
            live.handle_message(paths.deliver(), bytes(100_000))
        refused.append(str(caught.value))
        with pytest.raises(GuestFailed):
            live.health()
        return ask(op, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(guest.peers, "ask", again)
        assert (b"\0", "") == guest.message(message)
    assert ["while a guest is running"] == [text.partition("called ")[2][:24] for text in refused]
    assert fuel == live.fuel_used()
    assert (b"\0", "") == guest.message(message)


# -- sleeping -------------------------------------------------------------------------------------------------------


def test_sleep_is_bounded_by_the_deadline(guest: paths.Running) -> None:
    """The bridge is told until when the guest's call may last, and a guest that would sleep longer ends there; one
    that is past its time already (positive control) asks nobody."""
    guest.peers.take()
    before = time.monotonic_ns()
    guest.peers.answer = (1, "too long")
    with pytest.raises(GuestFailed) as caught:
        guest.message(kitchen.call("host-services.sleep-millis", (1 << 64) - 1))
    assert (Outcome.DEADLINE, "asleep until its deadline") == (caught.value.outcome, str(caught.value))
    ((op, until, deadline),) = guest.peers.take()
    assert (Op.SLEEP, (1 << 63) - 1) == (op, until)
    assert before < deadline <= time.monotonic_ns() + guest.limits.deadline_ms * 1_000_000
    guest.peers.answer = (0, None)
    assert (b"", "") == guest.message(kitchen.call("host-services.sleep-millis", 0))
    assert [] == guest.peers.take()
