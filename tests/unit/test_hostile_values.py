"""What a guest hands the host is not believed: results, arguments and allocations that no compiler would make.

Each runs in a child process on the worker's own code, so that a crash is seen as one, and on each path: where the
canonical ABI says that a value is wrong, the guest traps on either, and nothing of it reaches the host.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import msgspec
import paths
import pytest
from forked import returns

from sandbox.guest import GuestFailed
from sandbox.memories import memories
from sandbox.types import Limits

pytestmark = pytest.mark.block4_security

(ECHO, RESULT_AT, SOME, ERROR, RESULT_CASE, OPTION_CASE, ERROR_TEXT, REALLOC, POST_RETURN, RECURSE, GROW, GET_AT) = (
    range(12)
)
(SET_AT, LOG_WITH, BROADCAST_AT, KEY, LIST_AT, CALLBACK_CASE, HEALTH_CASE, MEMORY) = range(12, 20)
"""What tests/guests/hostile/component.c can be told."""
R_GOOD, R_ZERO, R_HIGHEST, R_ODD, R_BEHIND, R_LAST_BYTE, R_SAME, R_GROWS, R_IMPORTS, R_TRAPS, R_SPINS, R_LOW, R_LOGS = (
    range(13)
)
P_GOOD, P_TRAPS, P_IMPORTS, P_SPINS, P_GROWS = range(5)
LIMITS = Limits(memory=4 << 20, fuel=20_000_000, message_size=2 << 20)
END = 0xFFFF_FFFF


def told(what: int, *numbers: int, text: bytes = b"") -> bytes:
    """A message to the hostile guest."""
    return bytes([what]) + b"".join(struct.pack("<I", number) for number in numbers) + text


def hostile(path: str) -> AbstractContextManager[paths.Running]:
    """The guest under `LIMITS`, whatever other tests' guests of this process still hold."""
    return paths.running("hostile", path, msgspec.structs.replace(LIMITS, memory=LIMITS.memory + memories.used))


def after(path: str, *messages: bytes, answer: Any = b"value") -> tuple[list[Any], list[Any]]:
    """What came of each message to one guest, and what the host was asked; a failure's outcome ends the list."""

    def run() -> Any:
        seen: list[Any] = []
        asked: list[Any] = []
        with hostile(path) as guest:
            guest.peers.answer = (0, answer)
            for message in messages:
                try:
                    reply, error = guest.message(message)
                except GuestFailed as failure:
                    seen.append(failure.outcome.value)
                    break
                seen.append(error if reply is None else reply.hex())
            asked = [[str(part) for part in question] for question in guest.peers.take()]
        return [seen, asked]

    paths.compiled(paths.GUESTS / "hostile" / "component.wasm", path)  # before the fork, once
    seen, asked = returns(run)
    return seen, asked


@pytest.fixture(params=paths.PATHS)
def path(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def one(path: str) -> Callable[..., Any]:
    """What came of a single message."""
    return lambda *message, **more: after(path, told(*message, **more))[0][0]


def size_of_memory(path: str) -> int:
    """Bytes of linear memory that the guest starts with."""
    return struct.unpack("<I", bytes.fromhex(after(path, told(MEMORY))[0][0]))[0]


# -- results ----------------------------------------------------------------------------------------------------------


def test_control_the_guest_can_behave(path: str) -> None:
    """Positive control: every command gives a good answer when its arguments are good."""
    for message in (
        told(ECHO, 7),
        told(SOME, 1024, 16),
        told(ERROR, 6, 1024, 0),
        told(RESULT_CASE, 0),
        told(OPTION_CASE, 1),
        told(ERROR_TEXT, 6, text=b"text"),
        told(REALLOC, R_GOOD),
        told(POST_RETURN, P_GOOD),
        told(GET_AT, 1024, 0, 2048),
        told(LOG_WITH, 4, 0, 0, 0),
        told(KEY, text="schlüssel".encode()),
        told(CALLBACK_CASE, 0),
    ):
        seen, _ = after(path, message, told(ECHO, 1))
        assert 2 == len(seen), message
        assert "trap" not in seen


@pytest.mark.parametrize("address", [1, 2, END, END - 15, 0x8000_0000, 40 << 20, 100 << 20])
def test_a_result_at_a_bad_address(one: Callable[..., Any], address: int) -> None:
    """Unaligned, behind the memory, or wrapping around."""
    assert "trap" == one(RESULT_AT, address)


@pytest.mark.parametrize("distance", [4, 8, 12])
def test_a_result_that_only_begins_inside(path: str, distance: int) -> None:
    """Its last bytes would lie behind the memory."""
    end = size_of_memory(path)
    assert ["trap"] == after(path, told(RESULT_AT, end - distance))[0]
    assert "trap" not in after(path, told(RESULT_AT, end - 16))[0], "control: all of it inside"


@pytest.mark.parametrize(
    ("address", "length"),
    [
        (0, END),
        (1024, END),
        (END, 1),
        (END, END),
        (1024, 40 << 20),
        (1024, 100 << 20),
        (1024, 0x8000_0000),
        (END - 15, 32),
    ],
)
def test_bytes_that_are_not_there(one: Callable[..., Any], address: int, length: int) -> None:
    """Lists longer than the memory, behind it, wrapping; 40 and 100 MB are below what the scratch memory may hold."""
    assert "trap" == one(SOME, address, length)
    assert "trap" == one(ERROR, 6, address, length)


def test_bytes_to_the_last_one(path: str) -> None:
    """Up to the memory's end is allowed, one more is not: nothing behind it is ever read."""
    end = size_of_memory(path)
    for size in (1, 100, 5000):
        (seen,), _ = after(path, told(SOME, end - size, size))
        assert size == len(bytes.fromhex(seen))
        assert ["trap"] == after(path, told(SOME, end - size, size + 1))[0]


@pytest.mark.parametrize("what", [RESULT_CASE, OPTION_CASE])
@pytest.mark.parametrize("case", [2, 3, 127, 255])
def test_cases_that_do_not_exist(one: Callable[..., Any], what: int, case: int) -> None:
    """Of result and option."""
    assert "trap" == one(what, case)


@pytest.mark.parametrize("case", [7, 8, 255])
def test_an_error_that_does_not_exist(one: Callable[..., Any], case: int) -> None:
    """wasm-error has seven cases."""
    assert "trap" == one(ERROR, case, 0, 0)


@pytest.mark.parametrize(
    "text",
    [b"\xff", b"ok\x80", b"\xc3", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf4\x90\x80\x80", b"a" * 5000 + b"\xfe"],
    ids=["byte", "continuation", "cut", "surrogate", "overlong", "beyond", "late"],
)
def test_text_that_is_not_utf8(path: str, text: bytes) -> None:
    """In an error, and in an argument of a host function, of which the bridge then never hears."""
    assert ["trap"] == after(path, told(ERROR_TEXT, 6, text=text))[0]
    assert (["trap"], []) == after(path, told(KEY, text=text))
    seen, asked = after(path, told(KEY, text=b"fine"))
    assert ([""], 1) == (seen, len(asked)), "control: UTF-8 arrives"


@pytest.mark.parametrize("case", [2, 255])
def test_a_callback_result_that_does_not_exist(path: str, case: int) -> None:
    """The same for handle-callback."""

    def run() -> Any:
        with hostile(path) as guest:
            guest.message(told(CALLBACK_CASE, case))
            try:
                return guest.callback(b"x")
            except GuestFailed as failure:
                return failure.outcome.value

    assert "trap" == returns(run)


@pytest.mark.parametrize("number", [4, 255, END])
def test_a_health_that_does_not_exist(path: str, number: int) -> None:
    """An enum has no further case."""

    def run() -> Any:
        with hostile(path) as guest:
            guest.message(told(HEALTH_CASE, number))
            try:
                return guest.use().health()
            except GuestFailed as failure:
                return failure.outcome.value

    assert "trap" == returns(run)


# -- arguments of host functions --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "length", "result"),
    [
        (END, 1, 2048),
        (1024, END, 2048),
        (0, 100 << 20, 2048),
        (END, END, 2048),
        (1024, 1, END),
        (1024, 1, END - 3),
        (1024, 1, 2049),
        (1024, 1, 64 << 20),
    ],
)
def test_bad_pointers_to_a_host_function(path: str, key: int, length: int, result: int) -> None:
    """Key outside, key too long, result area outside or unaligned."""
    seen, asked = after(path, told(GET_AT, key, length, result))
    assert ["trap"] == seen
    assert len(asked) <= 1, "a bad result area may be found when there is something to write to it"


@pytest.mark.parametrize(
    "arguments", [(1024, 1, END, 1, 2048), (1024, 1, 1024, 40 << 20, 2048), (1024, 1, 1024, END - 1000, 2048)]
)
def test_bad_values_to_a_host_function(path: str, arguments: tuple[int, ...]) -> None:
    """A value that is not there is never stored."""
    assert (["trap"], []) == after(path, told(SET_AT, *arguments))


@pytest.mark.parametrize(
    "arguments",
    [
        (5, 0, 0, 0),
        (255, 0, 0, 0),
        (END, 0, 0, 0),
        (1, 2, 0, 0),
        (1, END, 0, 0),
        (1, 1, 1024, 1 << 28),
        (1, 1, END, 1),
        (1, 1, 1026, 1),
    ],
)
def test_bad_cases_and_lists_to_a_host_function(path: str, arguments: tuple[int, ...]) -> None:
    """A log level or an option that does not exist, a list behind the memory, overflowing or unaligned."""
    assert (["trap"], []) == after(path, told(LOG_WITH, *arguments))


@pytest.mark.parametrize(
    ("address", "count"), [(1024, 1 << 28), (1024, 0x0AAA_AAAB), (END & ~3, 1), (0, END), (1025, 1)]
)
def test_bad_lists_of_records(path: str, address: int, count: int) -> None:
    """Counts whose size in bytes overflows 32 bits are not taken for small ones."""
    assert (["trap"], []) == after(path, told(BROADCAST_AT, address, count))


# -- allocations ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [R_HIGHEST, R_ODD, R_BEHIND, R_LAST_BYTE, R_TRAPS])
def test_allocations_that_do_not_fit(path: str, mode: int) -> None:
    """Outside, at the very end, unaligned, or a trap: for a message, and for what a host function answers."""
    assert ["", "trap"] == after(path, told(REALLOC, mode), told(ECHO, text=b"payload"))[0]


def test_an_allocation_that_never_ends(path: str) -> None:
    """Fuel counts while the guest allocates for the host."""
    assert ["", "fuel"] == after(path, told(REALLOC, R_SPINS), told(ECHO))[0]


@pytest.mark.parametrize("mode", [R_ZERO, R_SAME, R_LOW])
def test_allocations_that_overlap(path: str, mode: int) -> None:
    """Inside the guest it may write where it likes: it hurts itself, and the worker goes on or tells of a trap."""
    seen, _ = after(path, told(REALLOC, mode), told(ECHO, text=b"payload"), told(ECHO))
    assert set(seen[1:]) <= {"trap", "fuel"} or all(isinstance(each, str) for each in seen)


def test_an_allocation_that_grows_the_memory(path: str) -> None:
    """The memory may move while the host's bytes are on their way into it."""
    seen, _ = after(path, told(REALLOC, R_GROWS), *(told(ECHO, text=bytes([n]) * 5000) for n in range(3)))
    assert [told(ECHO, text=bytes([n]) * 5000).hex() for n in range(3)] == seen[1:]


@pytest.mark.parametrize("mode", [R_IMPORTS, R_LOGS])
def test_an_allocation_that_calls_the_host(path: str, mode: int) -> None:
    """The canonical ABI lets no component call out while values go in; the host is not asked."""
    assert (["", "trap"], []) == after(path, told(REALLOC, mode), told(ECHO))


# -- and the rest -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "outcome"), [(P_TRAPS, "trap"), (P_IMPORTS, "trap"), (P_SPINS, "fuel")])
def test_a_post_return_that_misbehaves(path: str, mode: int, outcome: str) -> None:
    """It traps, calls the host, or never ends."""
    seen, asked = after(path, told(POST_RETURN, mode))
    assert ([outcome], []) == (seen, asked)


def test_a_post_return_that_grows_the_memory(path: str) -> None:
    """Growing to the limit and beyond between calls ends nothing."""
    seen, _ = after(path, told(POST_RETURN, P_GROWS), *(told(ECHO, n) for n in range(70)))
    assert [told(ECHO, n).hex() for n in range(70)] == seen[1:]


def test_all_the_memory_there_is(path: str) -> None:
    """A guest with all its memory in use still gets its messages; its limit counts its own memory alone."""
    seen, _ = after(path, told(GROW), told(ECHO, text=b"x"))
    assert LIMITS.memory // 65536 == struct.unpack("<I", bytes.fromhex(seen[0]))[0]
    assert told(ECHO, text=b"x").hex() == seen[1]


def test_recursion(one: Callable[..., Any]) -> None:
    """The engine's stack has an end of its own, and so has the worker's."""
    assert "trap" == one(RECURSE)
