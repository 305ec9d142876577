"""A zygote whose workers leave out one step of the cage (the argument says which); else it is the real one.

Started by `test_outside_check` in place of `python -m sandbox.zygote`, to see that the outside check finds
what is missing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from sandbox import cage, worker, zygote
from sandbox.kernel import caps, landlock, mounts, process, seccomp
from sandbox.policy import rules

_load = seccomp.load
_loaded: list[bytes] = []


def _nothing(*arguments: object) -> None:
    return None


def _load_only(count: int) -> None:
    def load(bpf: bytes) -> None:
        if len(_loaded) <= count:  # the first is the zygote's own
            _load(bpf)
        _loaded.append(bpf)

    seccomp.load = load


def _unfiltered_zygote() -> None:
    """Its own filter knows one way to clone."""

    def load(bpf: bytes) -> None:
        seccomp.load = _load

    seccomp.load = load


def _refuse(*arguments: object) -> None:
    raise OSError(5, "refused on purpose")


def _fail_in_turn(number: int) -> None:
    """The first worker fails in its first step, the second in its second, and so on; the error has this number."""
    clone, call, worker = zygote.libc_clone, cage._Steps.__call__, 0

    def count() -> int:
        nonlocal worker
        worker += 1
        return clone()

    taken = 0

    def step(self: cage._Steps, name: str, action: Callable[..., object], *arguments: object) -> object:
        nonlocal taken
        taken += 1
        if taken == worker:
            action = partial(_refuse_with, number)
        return call(self, name, action, *arguments)

    zygote.libc_clone, cage._Steps.__call__ = count, step


def _refuse_with(number: int, *arguments: object) -> None:
    raise OSError(number, "refused on purpose")


def variants() -> list[tuple[str, rules.Rule | None]]:
    """Each rule that a worker's two filters have, by the filter that is to lack it; first none at all."""
    own = [("worker", rule) for rule in rules.rules("worker")]
    first = [("worker-load", rule) for rule in rules.rules("worker-load") if rule.policy == "worker-load"]
    return [("", None), *own, *first]


def _without(name: str, lacking: tuple[str, rules.Rule | None]) -> bytes:
    policy, left_out = lacking
    return seccomp.compile_rules(rule for rule in rules.rules(name) if (policy, rule) != (name, left_out))


def _each_rule_left_out() -> None:
    """The first two workers have both filters, the next two lack the first rule, and so on (`variants`)."""
    filters = [(_without("worker-load", lacking), _without("worker", lacking)) for lacking in variants()]
    clone, main, count = zygote.libc_clone, worker.main, 0

    def counted() -> int:
        nonlocal count
        count += 1
        return clone()

    def filtered(engine: Any, linker: Any, blueprint: cage.Blueprint, *arguments: Any) -> None:
        first, last = filters[(count - 1) // 2]
        main(engine, linker, msgspec.structs.replace(blueprint, first_filter=first, last_filter=last), *arguments)

    zygote.libc_clone, worker.main = counted, filtered


def leave_out(step: str) -> None:
    """Patch the cage."""
    if step == "descriptors":
        cage._three_descriptors = cage._two_descriptors = _nothing
    elif step == "last filter":
        _load_only(1)
    elif step == "both filters":
        _load_only(0)
    elif step == "capabilities":
        caps.drop_all = _nothing
    elif step == "network":
        cage.SIX_NAMESPACES &= ~process.CLONE_NEWNET
    elif step == "root":
        mounts.enter_empty_root = _nothing
    elif step == "pid":
        zygote.libc_clone = lambda: process.raw_clone(process.CLONE_PARENT)
        _unfiltered_zygote()
    elif step == "parent":
        zygote.libc_clone = lambda: process.raw_clone(process.CLONE_NEWPID)
        _unfiltered_zygote()
    elif step == "landlock refuses":
        landlock.restrict_all = _refuse
    elif step == "each rule in turn":
        _each_rule_left_out()
    elif step.startswith("each in turn "):
        _fail_in_turn(int(step.rsplit(" ", 1)[1]))
    elif step != "nothing":
        raise ValueError(step)


if __name__ == "__main__":
    leave_out(sys.argv[1])
    zygote.main()
