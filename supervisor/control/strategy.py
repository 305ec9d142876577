"""Which children a supervisor stops and starts when one of them ends: Erlang's strategies, as functions of lists.

one-for-one          the child alone
one-for-all          every child
rest-for-one         the child and those started after it
simple-one-for-one   the child alone; its siblings are replicas, without an order among them
"""

from __future__ import annotations

from collections.abc import Sequence

from supervisor.config_tree import Strategy

Batches = tuple[tuple[str, ...], ...]
"""Components in the order in which they are started or stopped; those of one batch at the same time."""


def restarted(strategy: Strategy, children: Sequence[str], failed: str) -> list[str]:
    """The children that are started again when `failed` ended, in start order."""
    if strategy == "one-for-all":
        return list(children)
    if strategy == "rest-for-one":
        return list(children[children.index(failed) :])
    return [failed]


def backwards(batches: Batches, without: Sequence[str] = ()) -> Batches:
    """The batches in the order in which they are stopped: the last started first; empty ones are left out."""
    reverse = (tuple(name for name in reversed(batch) if name not in without) for batch in reversed(batches))
    return tuple(batch for batch in reverse if batch)
