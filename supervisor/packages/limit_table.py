"""Every limit a manifest may set: its name, its bounds, who holds it, and what happens when it is reached.

One table for the manifest, the operator's maxima, `airssys info`, and `docs/reference/manifest.md`. Defaults stand in
`sandbox.types.Limits`. The row says who holds a limit on every machine; what a machine may hold it with besides (the
control group) is put together by `held_by`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

from sandbox.types import Limits
from supervisor.packages.toml_source import integer
from supervisor.packages.units import format_duration, format_size, parse_duration, parse_size


class Row(NamedTuple):
    """One limit."""

    key: str
    """As `[limits]` spells it."""
    field: str
    """As `sandbox.types.Limits` does."""
    unit: Literal["bytes", "ms", "count"]
    low: int
    high: int
    holders: tuple[str, ...]
    """What holds it wherever the host runs."""
    reached: str
    """What happens then; a cell of the manifest's page."""


TABLE: tuple[Row, ...] = (
    Row(
        "memory",
        "memory",
        "bytes",
        64 << 10,
        4 << 30,
        ("engine", "RLIMIT_DATA"),
        "`memory.grow` answers -1, and the refusal is recorded. All linear memories together.",
    ),
    Row(
        "fuel",
        "fuel",
        "count",
        1,
        10**15,
        ("engine",),
        "The message in hand ends with a trap, outcome `fuel`. Counted per message.",
    ),
    Row(
        "deadline",
        "deadline_ms",
        "ms",
        1,
        600_000,
        ("router",),
        "The worker is killed, outcome `deadline`. Wall clock per message, also while it waits for the host.",
    ),
    Row("mailbox", "mailbox", "count", 1, 100_000, ("router",), "Senders get `queue-full`. Waiting messages."),
    Row(
        "storage",
        "storage",
        "bytes",
        0,
        1 << 40,
        ("bridge",),
        "A write answers `quota-exceeded`. Keys and values together.",
    ),
    Row(
        "message-size",
        "message_size",
        "bytes",
        1,
        8 << 20,
        ("router", "worker"),
        "A longer message is refused, in either direction.",
    ),
    Row(
        "cpu",
        "cpu_ms",
        "ms",
        1,
        600_000,
        ("router",),
        "The worker is killed, outcome `deadline`, detail `CPU time`. CPU time per message, the host's functions "
        "included, which use no fuel. Not below `deadline` it changes nothing.",
    ),
    Row("memories", "memories", "count", 1, 100, ("engine",), "A component with more linear memories does not start."),
    Row("tables", "tables", "count", 1, 10_000, ("engine",), "A component with more tables does not start."),
    Row(
        "table-elements",
        "table_elements",
        "count",
        1,
        10_000_000,
        ("engine",),
        "`table.grow` answers -1. Entries of each table.",
    ),
    Row(
        "instances",
        "instances",
        "count",
        1,
        100_000,
        ("engine",),
        "A component of more core instances does not start.",
    ),
    Row(
        "mailbox-size",
        "mailbox_bytes",
        "bytes",
        1 << 10,
        512 << 20,
        ("router",),
        "Senders get `queue-full`. Bytes that wait, and again for callbacks; one message always fits.",
    ),
    Row(
        "storage-keys",
        "storage_keys",
        "count",
        0,
        100_000_000,
        ("bridge",),
        "A write of a new key answers `quota-exceeded`.",
    ),
    Row(
        "requests",
        "requests",
        "count",
        0,
        10_000,
        ("router",),
        "`request` answers `queue-full`. Requests without an answer, callbacks that wait included.",
    ),
    Row(
        "log-lines",
        "log_lines",
        "count",
        0,
        10_000,
        ("bridge",),
        "Lines are dropped, and the log says so once. A second's; five seconds' may come at once.",
    ),
    Row(
        "log-size",
        "log_bytes",
        "bytes",
        0,
        64 << 20,
        ("bridge",),
        "As `log-lines`. Bytes of a second.",
    ),
    Row(
        "message-rate",
        "message_rate",
        "count",
        1,
        10_000_000,
        ("router",),
        "Senders get `queue-full`, or `rate-limited`. Messages sent in a second, of all kinds; as many may come at "
        "once.",
    ),
    Row("timers", "timers", "count", 0, 1_000, ("router",), "`send-after` and `send-every` answer `queue-full`."),
    Row("subscriptions", "subscriptions", "count", 0, 1_000, ("router",), "`subscribe` answers `queue-full`."),
)
BY_KEY: Mapping[str, Row] = {row.key: row for row in TABLE}

_FORMATS: dict[str, Callable[[int], str]] = {"bytes": format_size, "ms": format_duration, "count": str}
_PARSERS: dict[str, Callable[[Any], int]] = {"bytes": parse_size, "ms": parse_duration, "count": integer}
_KERNEL = {"memory": "memory"}
"""Limits that a control group's controller holds, too."""


def spelled(row: Row, value: int) -> str:
    """The value as a manifest spells it."""
    return _FORMATS[row.unit](value)


def parser(row: Row) -> Callable[[Any], int]:
    """What reads the value out of TOML; raises ValueError."""
    return _PARSERS[row.unit]


def problems(limits: Limits) -> Iterator[tuple[str, str]]:
    """Key and fault of each value that is out of bounds."""
    for row in TABLE:
        if not row.low <= getattr(limits, row.field) <= row.high:
            yield row.key, f"must be between {spelled(row, row.low)} and {spelled(row, row.high)}"


def beyond(limits: Limits, maxima: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    """Key and fault of each value over what the operator allows (`[limits]` of `airssys.toml`)."""
    for row in TABLE:
        most, value = maxima.get(row.key), getattr(limits, row.field)
        if most is not None and value > most:
            yield row.key, f"the component needs {spelled(row, value)}, this host allows {spelled(row, most)}"


def beside(controllers: Mapping[str, str]) -> dict[str, list[str]]:
    """Who holds what a worker may use and no manifest speaks of: its one process, its share of the processors."""
    backend = {name: [f"cgroup {version}"] for name, version in controllers.items()}
    processes = ["filter", "RLIMIT_NPROC", *backend.get("pids", [])]
    return {"processes": processes} | ({"cpu-share": backend["cpu"]} if "cpu" in backend else {})


def held_by(row: Row, controllers: Mapping[str, str]) -> list[str]:
    """Who holds the limit here.

    Args:
        row: the limit.
        controllers: controller of the control group to its backend, as `{"memory": "v1"}`.
    """
    backend = controllers.get(_KERNEL.get(row.key, ""))
    return [*row.holders, *([f"cgroup {backend}"] if backend else [])]
