"""What the host's configuration says of messages: `[messaging] [[client]] [[group]] [[target]]`.

Implements those tables of `docs/reference/config.md`. They are read once into the structures the router is sent
(`sandbox.wire.router_frames.Settings`), so that nothing is said twice and nothing is parsed behind the command line.
"""

from __future__ import annotations

import pwd
from collections.abc import Iterable
from typing import Any, get_args

import msgspec

from bridge.capabilities import (
    MESSAGING_ACCESS,
    TOPIC_ACCESS,
    validate_component_pattern,
    validate_topic_pattern,
)
from sandbox.errors import AirssysError
from sandbox.types import MAX_NAME, Limits, valid_package_name
from sandbox.wire.router_frames import ClientRights, Group, MessagingRule, Routing, Settings, TargetPolicy
from supervisor.packages.toml_source import Table, integer, string, strings
from supervisor.packages.units import format_duration, format_size, parse_duration, parse_size
from supervisor.users import MAX_UID, user_name

MAX_CLIENTS = 32
"""Most `[[client]]` tables: what the router keeps free for each is bounded by its own memory."""
MAX_RULES = 100
MAX_GROUPS = 1_000
MAX_TARGETS = 1_000
EVERYTHING = (
    MessagingRule(target="*", access=sorted(MESSAGING_ACCESS)),
    MessagingRule(topic=">", access=sorted(TOPIC_ACCESS)),
)
"""Rules of those who may operate the host."""


class MessagingConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[messaging] [[client]] [[group]] [[target]]`. Bytes and milliseconds."""

    clients: tuple[ClientRights, ...] = ()
    """[[client]]: the operating system's users that may use the clients' socket."""
    groups: tuple[Group, ...] = ()
    """[[group]]: how one replica of a package is picked."""
    targets: tuple[TargetPolicy, ...] = ()
    """[[target]]: retries and circuit breakers, in the order of the file; the first that covers a component counts."""
    record: tuple[str, ...] = ()
    """[messaging] record: components whose allowed messages are recorded one by one."""
    dead_letters: int = 1_000
    """[messaging] dead-letters: how many are kept."""
    dead_letter_size: int = 16 << 20
    """[messaging] dead-letter-size: bytes of all that are kept."""

    def settings(self, operators: Iterable[int]) -> Settings:
        """What the router is told; `operators` (uids) without a `[[client]]` of their own may do everything."""
        named = {client.uid for client in self.clients}
        others = [
            ClientRights(uid, user_name(uid), list(EVERYTHING)) for uid in dict.fromkeys(operators) if uid not in named
        ]
        return Settings(
            groups=list(self.groups),
            targets=list(self.targets),
            clients=[*self.clients, *others],
            record=list(self.record),
            dead_letters=self.dead_letters,
            dead_letter_bytes=self.dead_letter_size,
        )


def read_messaging(root: Table) -> MessagingConfig:
    """The four tables of `airssys.toml`.

    Raises:
        ConfigError: E_CONFIG with file, key and line.
    """
    usual = MessagingConfig()
    table = root.table("messaging")
    return MessagingConfig(
        clients=_clients(root),
        groups=_groups(root),
        targets=tuple(_target(each) for each in root.tables("target", most=MAX_TARGETS)),
        record=table.take("record", _patterns, default=usual.record),
        dead_letters=_number(table, "dead-letters", usual.dead_letters, 0, 1_000_000),
        dead_letter_size=_size(table, "dead-letter-size", usual.dead_letter_size, 0, 256 << 20),
    )


# -- clients ----------------------------------------------------------------------------------------------------


def _clients(root: Table) -> tuple[ClientRights, ...]:
    clients: dict[int, ClientRights] = {}
    for table in root.tables("client", most=MAX_CLIENTS):
        uid = table.take("user", _user)
        if uid in clients:
            raise table.refuse("user", "this user has a [[client]] already")
        rules = [_rule(line) for line in table.tables("messaging", most=MAX_RULES)]
        if not rules:
            raise table.refuse(None, 'messaging is missing: what this user may do, as [{ target = "acme/api", ... }]')
        rate = _number(table, "message-rate", Limits().message_rate, 1, 1_000_000)
        clients[uid] = ClientRights(uid, user_name(uid), rules, rate)
    return tuple(clients.values())


def _user(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        if not 0 <= value <= MAX_UID:
            raise ValueError(f"a user id lies between 0 and {MAX_UID}")
        return value
    name = string(value)
    try:
        return pwd.getpwnam(name).pw_uid
    except (KeyError, ValueError) as error:
        raise ValueError(f"this machine knows no user {name[:60]!a}") from error


def _rule(line: Table) -> MessagingRule:
    given = [key for key in ("target", "topic", "from") if key in line]
    if len(given) != 1:
        raise line.refuse(None, "a messaging line names one of target, topic (both with access) and from")
    match given[0]:
        case "from":
            return MessagingRule(source=line.take("from", _pattern))
        case "topic":
            topic = line.take("topic", _topic_pattern)
            return MessagingRule(topic=topic, access=_access(line, TOPIC_ACCESS))
        case _:
            target = line.take("target", _pattern)
            return MessagingRule(target=target, access=_access(line, MESSAGING_ACCESS - {"broadcast"}))


def _access(line: Table, known: frozenset[str]) -> list[str]:
    words = line.take("access", strings)
    if not words or len(set(words)) != len(words) or not set(words) <= known:
        raise line.refuse("access", f"must be some of {', '.join(sorted(known))}, each once")
    return list(words)


# -- groups and targets -----------------------------------------------------------------------------------------


def _groups(root: Table) -> tuple[Group, ...]:
    groups: dict[str, Group] = {}
    for table in root.tables("group", most=MAX_GROUPS):
        package = table.take("component", _package)
        if package in groups:
            raise table.refuse("component", "this component has a [[group]] already")
        groups[package] = Group(package, table.take("routing", _routing))
    return tuple(groups.values())


def _target(table: Table) -> TargetPolicy:
    usual = TargetPolicy("*")
    component = table.take("component", _pattern)
    if "retry" not in table and "breaker" not in table:
        raise table.refuse(None, "a target says what its requests get: retry, breaker, or both")
    retry, breaker = table.table("retry"), table.table("breaker")
    first, most = retry.take("backoff", _backoff, default=(usual.retry_first_ms, usual.retry_most_ms))
    if not 1 <= first <= most <= 3_600_000:
        raise retry.refuse("backoff", "the first delay is at least 1ms, the longest no shorter, and at most 1h")
    return TargetPolicy(
        component=component,
        attempts=_number(retry, "attempts", 3, 2, 100) if "retry" in table else usual.attempts,
        retry_first_ms=first,
        retry_most_ms=most,
        breaker_failures=_number(breaker, "failures", 5, 1, 10_000) if "breaker" in table else usual.breaker_failures,
        breaker_open_ms=_duration(breaker, "open-for", usual.breaker_open_ms, 10, 3_600_000),
        breaker_successes=_number(breaker, "successes", usual.breaker_successes, 1, 1_000),
    )


# -- values -----------------------------------------------------------------------------------------------------


def _pattern(value: Any) -> str:
    try:
        return validate_component_pattern(string(value))
    except AirssysError as error:
        raise ValueError(f"{error.message}; {error.hint}") from error


def _patterns(value: Any) -> tuple[str, ...]:
    patterns = strings(value)
    if len(patterns) > MAX_RULES:
        raise ValueError(f"more than {MAX_RULES} entries")
    return tuple(_pattern(pattern) for pattern in patterns)


def _topic_pattern(value: Any) -> str:
    try:
        return validate_topic_pattern(string(value))
    except AirssysError as error:
        raise ValueError(f"{error.message}; {error.hint}") from error


def _package(value: Any) -> str:
    name = string(value)
    if not valid_package_name(name) or max(map(len, name.split("/"))) > MAX_NAME:
        raise ValueError("must be a component's name without an instance, as acme/worker")
    return name


def _routing(value: Any) -> Routing:
    words: tuple[Routing, ...] = get_args(Routing)
    for each in words:
        if value == each:
            return each
    raise ValueError(f"must be one of {', '.join(words)}")


def _backoff(value: Any) -> tuple[int, int]:
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError('must be the first and the longest delay, as ["100ms", "5s"]')
    return parse_duration(value[0]), parse_duration(value[1])


def _number(table: Table, key: str, default: int, low: int, high: int) -> int:
    value = table.take(key, integer, default=default)
    if not low <= value <= high:
        raise table.refuse(key, f"must be between {low} and {high}")
    return value


def _duration(table: Table, key: str, default: int, low: int, high: int) -> int:
    value = table.take(key, parse_duration, default=default)
    if not low <= value <= high:
        raise table.refuse(key, f"must be between {format_duration(low)} and {format_duration(high)}")
    return value


def _size(table: Table, key: str, default: int, low: int, high: int) -> int:
    value = table.take(key, parse_size, default=default)
    if not low <= value <= high:
        raise table.refuse(key, f"must be between {format_size(low)} and {format_size(high)}")
    return value
