"""`[messaging] [[client]] [[group]] [[target]]`: values, errors with key and line, and what the router is told."""

from __future__ import annotations

import os
import pwd

import msgspec
import pytest

from sandbox.wire.router_frames import ClientRights, Group, MessagingRule, Settings, TargetPolicy
from supervisor.config import HostConfig, parse_config
from supervisor.config_messaging import EVERYTHING, MessagingConfig
from supervisor.packages.errors import ConfigError
from supervisor.users import user_name

pytestmark = pytest.mark.block5_messaging

PLACES = HostConfig("/c", "/s", "/r")
FULL = """[messaging]
record = ["acme/*"]
dead-letters = 7
dead-letter-size = "1MiB"
[[client]]
user = 4000000
message-rate = 9
messaging = [
    { target = "acme/api", access = ["send", "request"] },
    { topic = "orders.>", access = ["publish"] },
    { from = "acme/*" },
]
[[group]]
component = "acme/worker"
routing = "sticky"
[[target]]
component = "acme/*"
retry = { attempts = 4, backoff = ["10ms", "1s"] }
breaker = { failures = 3, open-for = "2s", successes = 2 }
[[target]]
component = "acme/db/0"
retry = {}
[[target]]
component = "acme/web"
breaker = {}
"""
CLIENT = ClientRights(
    4_000_000,
    "uid-4000000",
    [
        MessagingRule(target="acme/api", access=["send", "request"]),
        MessagingRule(topic="orders.>", access=["publish"]),
        MessagingRule(source="acme/*"),
    ],
    9,
)


def test_every_key() -> None:
    """Each key arrives in its field, in base units; an empty retry or breaker means their defaults."""
    assert (
        MessagingConfig(
            clients=(CLIENT,),
            groups=(Group("acme/worker", "sticky"),),
            targets=(
                TargetPolicy("acme/*", 4, 10, 1_000, 3, 2_000, 2),
                TargetPolicy("acme/db/0", 3, 100, 5_000, 0),
                TargetPolicy("acme/web", 1, 100, 5_000, 5, 30_000, 1),
            ),
            record=("acme/*",),
            dead_letters=7,
            dead_letter_size=1 << 20,
        )
        == parse_config(FULL, PLACES).messaging
    )
    assert MessagingConfig() == parse_config("", PLACES).messaging


def test_it_travels_as_messagepack() -> None:
    """Control gets exactly what was read."""
    full = parse_config(FULL, PLACES)
    assert full == msgspec.msgpack.decode(msgspec.msgpack.encode(full), type=HostConfig)


def test_a_name_is_looked_up() -> None:
    """A user may be named; what the router is told is the number and the name components see."""
    me = pwd.getpwuid(os.geteuid()).pw_name
    text = FULL.replace("4000000", f'"{me}"')
    client = parse_config(text, PLACES).messaging.clients[0]
    assert (os.geteuid(), user_name(os.geteuid())) == (client.uid, client.user)


def test_what_the_router_is_told() -> None:
    """Operators may do everything, once each, unless the file says otherwise of them."""
    settings = parse_config(FULL, PLACES).messaging.settings([4_000_000, 0, 0])
    assert (
        Settings(
            groups=[Group("acme/worker", "sticky")],
            targets=list(parse_config(FULL, PLACES).messaging.targets),
            clients=[CLIENT, ClientRights(0, user_name(0), list(EVERYTHING))],
            record=["acme/*"],
            dead_letters=7,
            dead_letter_bytes=1 << 20,
        )
        == settings
    )
    assert settings == msgspec.msgpack.decode(msgspec.msgpack.encode(settings), type=Settings)


@pytest.mark.parametrize(
    ("old", "new", "key", "line"),
    [
        ('["acme/*"]\n', '["acme"]\n', "messaging.record", 2),
        ("= 7", "= -1", "messaging.dead-letters", 3),
        ('"1MiB"', '"1GiB"', "messaging.dead-letter-size", 4),
        ("dead-letters", "dead", "messaging.dead", 3),
        ("4000000", '"no-such-user-here"', "client[0].user", 6),
        ("4000000", "-1", "client[0].user", 6),
        ("4000000", "4294967295", "client[0].user", 6),
        ("4000000", "true", "client[0].user", 6),
        ("= 9", "= 0", "client[0].message-rate", 7),
        ('"send", "request"', '"broadcast"', "client[0].messaging[0].access", 9),
        ('"send", "request"', '"send", "send"', "client[0].messaging[0].access", 9),
        ('"send", "request"', "", "client[0].messaging[0].access", 9),
        ('"acme/api"', '"acme"', "client[0].messaging[0].target", 9),
        ('"publish"', '"send"', "client[0].messaging[1].access", 10),
        ('"orders.>"', '"orders.>.x"', "client[0].messaging[1].topic", 10),
        ('{ from = "acme/*" }', '{ from = "acme/*", topic = "a" }', "client[0].messaging[2]", 11),
        ('"acme/worker"', '"acme/worker/0"', "group[0].component", 14),
        ('"sticky"', '"fair"', "group[0].routing", 15),
        ("attempts = 4", "attempts = 1", "target[0].retry.attempts", 18),
        ('["10ms", "1s"]', '["1s", "10ms"]', "target[0].retry.backoff", 18),
        ('["10ms", "1s"]', '"1s"', "target[0].retry.backoff", 18),
        ("failures = 3", "failures = 0", "target[0].breaker.failures", 19),
        ('"2s"', '"2h"', "target[0].breaker.open-for", 19),
        ("successes = 2", "successes = 0", "target[0].breaker.successes", 19),
        ("successes", "success", "target[0].breaker.success", 19),
        ("retry = {}", "", "target[1]", 20),
    ],
)
def test_errors_name_key_and_line(old: str, new: str, key: str, line: int) -> None:
    """What is wrong is refused with its place."""
    assert old in FULL
    with pytest.raises(ConfigError) as caught:
        parse_config(FULL.replace(old, new, 1), PLACES, file="airssys.toml")
    assert ("E_CONFIG", key, line) == (caught.value.code, caught.value.key, caught.value.line), caught.value


@pytest.mark.parametrize(
    ("more", "key"),
    [
        ('[[client]]\nuser = 4000000\nmessaging = [{ from = "acme/*" }]\n', "client[1].user"),
        ("[[client]]\nuser = 1\n", "client[1]"),
        ('[[group]]\ncomponent = "acme/worker"\nrouting = "random"\n', "group[1].component"),
    ],
)
def test_nobody_is_named_twice(more: str, key: str) -> None:
    """One table for a user, one for a group; a client without rights is none."""
    with pytest.raises(ConfigError) as caught:
        parse_config(FULL + more, PLACES)
    assert key == caught.value.key
