"""When a failed request is delivered again: exponential backoff with jitter, within its timeout and its attempts."""

from __future__ import annotations

import random

import msgspec

from sandbox.wire.router_frames import TargetPolicy
from supervisor.router.mailbox import Message
from supervisor.router.timers import Timer

RETRIED = frozenset({"target-ended", "queue-full", "stopping"})
"""Failures after which another attempt may do better and the guest's code has not answered."""
_MOST_DOUBLINGS = 30


def pause(policy: TargetPolicy, attempts: int, roll: float) -> float:
    """Seconds to wait after `attempts` of them: first * 2^(n-1), at most the policy's most, less up to half by `roll`.

    Args:
        roll: from 0 to 1, even: so that requests that failed together do not come back together.
    """
    whole = min(policy.retry_first_ms << min(attempts - 1, _MOST_DOUBLINGS), policy.retry_most_ms)
    return whole / 1000 * (1 - roll / 2)


def again(policy: TargetPolicy | None, error: str, attempts: int, now: float, deadline: float) -> float | None:
    """When to try again, monotonic seconds; None: not at all.

    Args:
        error: one of `FAILURES`.
        attempts: deliveries and refusals so far.
        deadline: when the request's timeout is over.
    """
    if policy is None or error not in RETRIED or attempts >= policy.attempts:
        return None
    when = now + pause(policy, attempts, random.random())  # noqa: S311 (nobody gains from guessing it)
    return when if when < deadline else None


class Asleep(msgspec.Struct, eq=False):
    """A request between two attempts. Its bytes count in the account."""

    message: Message
    timer: Timer
