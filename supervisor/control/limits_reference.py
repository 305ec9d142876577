"""The page docs/reference/limits.md: every limit, who holds it, what happens, and the tests that show it.

The manifest's limits come from `supervisor.packages.limit_table`; what nobody may set, from the constants themselves.
"""

from __future__ import annotations

from typing import NamedTuple

from bridge.filesystem import MAX_DATA, MAX_ENTRIES
from bridge.server import MAX_LOG_MESSAGE
from bridge.session import MAX_REQUEST
from bridge.storage import MAX_KEY, MAX_KEYS
from sandbox.engine import MAX_WASM_STACK
from sandbox.host.wasi.handles import MAX_HANDLES, MAX_POLLABLES
from sandbox.host.wasi.io import CALL_BYTES, CALL_LINES, MAX_WRITE
from sandbox.host.wasi.random import MAX_BYTES
from sandbox.types import Limits
from sandbox.wire.router_frames import MAX_TARGETS
from supervisor.config import HostConfig
from supervisor.control.environment import MAX_BYTES as MAX_ENVIRONMENT
from supervisor.packages.limit_table import TABLE, held_by, spelled
from supervisor.packages.units import format_duration, format_size
from supervisor.router.channels import HALF_SECONDS, INPUT_BYTES, MAX_QUEUED, OUT_ALLOWANCE
from supervisor.router.client_asks import MAX_ASKS
from supervisor.router.clients import IN_BYTES, MAX_ALL_CONNECTIONS, MAX_CONNECTIONS, OUT_BYTES
from supervisor.router.connections import EVENT_BYTES, MAX_PAYLOAD, MAX_SUBSCRIPTIONS
from supervisor.router.correlation import MAX_SUBMITS, MAX_TIMEOUT_MS
from supervisor.router.inbound import MAX_HEAD
from supervisor.router.mailbox import TOTAL_BYTES

TESTS: dict[str, tuple[str, ...]] = {
    "memory": (
        "unit/test_memories.py::test_the_sum_is_what_is_limited",
        "e2e/test_limits_alone.py::test_a_refused_growth_is_on_record",
        "e2e/test_limits_alone.py::test_the_kernels_memory_killer_ends_one_worker",
        "unit/test_kernel_walls.py::test_control_group",
    ),
    "fuel": ("e2e/test_limits_alone.py::test_fuel_alone",),
    "deadline": (
        "e2e/test_limits_alone.py::test_wall_clock_alone",
        "e2e/test_limits_alone.py::test_wall_clock_while_the_router_waits_for_the_auditor",
        "unit/test_router_delivery.py::test_deadline_is_per_message",
    ),
    "mailbox": ("unit/test_router_delivery.py::test_queue_full_between_components",),
    "storage": ("e2e/test_limits.py::test_storage_quota", "unit/bridge/test_storage.py::test_the_quota_is_exact"),
    "message-size": ("e2e/test_limits.py::test_message_size",),
    "cpu": ("e2e/test_limits_alone.py::test_cpu_time_alone", "unit/test_router_delivery.py::test_cpu_time"),
    "memories": ("unit/test_guest_limits.py::test_each_count_alone",),
    "tables": ("unit/test_guest_limits.py::test_each_count_alone",),
    "table-elements": ("unit/test_guest_limits.py::test_each_count_alone",),
    "instances": ("unit/test_guest_limits.py::test_each_count_alone",),
    "mailbox-size": ("unit/test_router_delivery.py::test_mailbox_size",),
    "storage-keys": ("unit/bridge/test_storage.py::test_the_number_of_keys_has_a_limit",),
    "requests": ("unit/test_router_delivery.py::test_open_requests_are_bounded",),
    "log-lines": ("unit/bridge/test_bridge_server.py::test_a_log_flood_is_shed_and_said",),
    "log-size": ("unit/bridge/test_bridge_server.py::test_a_log_flood_is_shed_and_said",),
    "message-rate": ("unit/test_router_rates.py::test_a_sender_is_held_to_its_rate",),
    "timers": ("unit/test_router_alarms.py::test_timers_are_bounded",),
    "subscriptions": ("unit/test_router_topics.py::test_subscriptions_are_bounded",),
}
"""The tests that show each limit of the manifest alone, below tests/."""


class Fixed(NamedTuple):
    """A limit that no manifest changes."""

    what: str
    value: str
    held_by: str
    reached: str


def _fixed() -> list[Fixed]:
    host = HostConfig("/", "/", "/")
    rows = [
        ("Stack of the guest", format_size(MAX_WASM_STACK), "engine", "Trap `call stack exhausted`, outcome `trap`."),
        ("Processes of a worker", "1", "filter, RLIMIT_NPROC, cgroup", "No call that makes one is let through."),
        ("Open files of a worker", "2", "filter, RLIMIT_NOFILE", "Its two channels; it can open no other."),
        ("Requests of a worker to the bridge", "1", "bridge", "A second one while one is in hand ends it, `policy`."),
        ("One request to the bridge", format_size(MAX_REQUEST), "bridge", "A longer one ends it, `policy`."),
        (
            "Descriptors the bridge holds for a worker",
            "its channel, its bound directories",
            "bridge",
            "A file is open while one request is carried out, never between two.",
        ),
        ("Data of one read or write", format_size(MAX_DATA), "bridge", "`too-large`."),
        ("Entries of one listing", str(MAX_ENTRIES), "bridge", "`too-large`."),
        ("A storage key", f"{MAX_KEY} B", "bridge", "`invalid-key`."),
        ("Keys of one listing", str(MAX_KEYS), "bridge", "The first so many, sorted."),
        ("A log message", format_size(MAX_LOG_MESSAGE), "bridge", "It is cut."),
        (
            "What one call prints, by WASI",
            f"{format_size(CALL_BYTES)}, {CALL_LINES} lines",
            "worker",
            "The rest is counted and dropped.",
        ),
        ("Handles by WASI", f"{MAX_HANDLES}, of them {MAX_POLLABLES} pollables", "worker", "Trap."),
        ("One write by WASI", f"{MAX_WRITE} B", "worker", "Trap; `check-write` tells."),
        ("Random bytes of one call", format_size(MAX_BYTES), "worker", "Trap."),
        ("Environment and arguments", f"{format_size(MAX_ENVIRONMENT)} each", "control", "`E_VALIDATION`."),
        ("Targets of a broadcast", str(MAX_TARGETS), "worker, router", "`invalid-message`."),
        (
            "Frames of a worker's message",
            "2, a structure and a payload",
            "router",
            "A third, a command or a reserved bit ends it, `policy`.",
        ),
        (
            "Structure in front of a payload",
            format_size(MAX_HEAD),
            "router",
            "A longer one ends it, `policy`, when it is announced.",
        ),
        (
            "From a message's first byte to its last",
            format_duration(int(HALF_SECONDS * 1000)),
            "router",
            "The worker is ended, `policy`.",
        ),
        (
            "Messages that are coming in, all workers together",
            format_size(INPUT_BYTES),
            "router",
            "Who announces more is not read until there is room.",
        ),
        (
            "What waits for a worker to read",
            f"{MAX_QUEUED} messages; `message-size` and {format_size(OUT_ALLOWANCE)}",
            "router",
            "The worker is ended, `policy`.",
        ),
        ("Wait for an answer", format_duration(MAX_TIMEOUT_MS), "router", "A longer wish is cut to it."),
        (
            "All mailboxes, and what waits for workers to read, together",
            format_size(TOTAL_BYTES),
            "router",
            "Senders get `queue-full`.",
        ),
        ("Requests from outside", str(MAX_SUBMITS), "router", "`E_QUEUE_FULL`."),
        (
            "Clients' connections, of one user and of all",
            f"{MAX_CONNECTIONS}, {MAX_ALL_CONNECTIONS}",
            "router",
            "They are closed, `300`.",
        ),
        (
            "What one connection has asked and was not answered yet; its subscriptions",
            f"{MAX_ASKS}, {MAX_SUBSCRIPTIONS}",
            "router",
            "`queue-full`.",
        ),
        ("Payload of a client", format_size(MAX_PAYLOAD), "router", "The connection is closed when it is announced."),
        (
            "Messages that are coming in, of one user's clients",
            format_size(IN_BYTES // (MAX_PAYLOAD + MAX_HEAD) * MAX_PAYLOAD),
            "router",
            "Who announces more is not read until there is room.",
        ),
        (
            "What waits for one user's clients to read: answers, events",
            f"{format_size(OUT_BYTES)}, {format_size(EVENT_BYTES)}",
            "router",
            "The connection is closed; the oldest events are shed and counted.",
        ),
        (
            "Memory of a compiler",
            f"{format_size(host.compile_memory)}, `[compile] memory`",
            "RLIMIT_AS, RLIMIT_DATA, cgroup",
            "The package is refused, `E_COMPILE_LIMIT`.",
        ),
        (
            "Time of a compilation",
            f"{format_duration(host.compile_timeout_ms)}, `[compile] timeout`",
            "supervisor, RLIMIT_CPU",
            "The package is refused, `E_COMPILE_LIMIT`.",
        ),
    ]
    return [Fixed(*row) for row in rows]


def markdown() -> str:
    """The page."""
    usual = Limits()
    lines = [
        "# Limits",
        "",
        "Generated by `scripts/make-reference limits`; change the tables in the program, not this page.",
        "",
        "## Of the manifest",
        "",
        "What each means and what it may be stands in the [manifest](manifest.md#limits). `airssys info` shows the",
        "values of one component and who holds them on this machine. The tests are below `tests/`; each shows the",
        "limit changing behaviour with the others wide open.",
        "",
        "| Key | Default | Held by | Shown by |",
        "|---|---|---|---|",
    ]
    for row in TABLE:
        default = spelled(row, getattr(usual, row.field))
        tests = ", ".join(f"`{test}`" for test in TESTS[row.key])
        lines.append(f"| `{row.key}` | {default} | {', '.join(held_by(row, {}))} | {tests} |")
    lines += [
        "",
        "## Of the host",
        "",
        "No manifest changes these.",
        "",
        "| What | Limit | Held by | When it is reached |",
        "|---|---|---|---|",
    ]
    lines += [f"| {row.what} | {row.value} | {row.held_by} | {row.reached} |" for row in _fixed()]
    return "\n".join(lines) + "\n"
