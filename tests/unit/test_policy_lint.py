"""The linter of the system-call policies: ours pass, and each kind of mistake is found.

Each mistake is made in a policy that is right otherwise (the positive control is the first test: nothing is found in
what is right).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from sandbox.policy import lint, rules
from sandbox.policy.rules import MACHINES, Comparison, Policy, Rule

pytestmark = pytest.mark.block4_security
WHY = "because a test says so"


def fd(value: int) -> Comparison:
    """The first argument, an int, pinned."""
    return Comparison(0, "masked_eq", value, lint.HALF)


def rule(call: str, *comparisons: Comparison, policy: str = "worker", why: str = WHY, **more: Any) -> Rule:
    """A rule."""
    return Rule(policy, call, why, comparisons, **more)


@pytest.mark.parametrize("name", rules.names())
def test_ours(name: str) -> None:
    """No policy of the tree has a finding."""
    assert [] == lint.lint(name)


def test_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """`python -m sandbox.policy.lint` prints findings and says 1; without any it is silent and says 0."""
    assert 0 == lint.main(["worker", "compiler"])
    assert "" == capsys.readouterr().out
    monkeypatch.setattr(lint, "lint", lambda name: [f"{name}: wrong"])
    assert 1 == lint.main(["worker"])
    assert "worker: wrong\n" == capsys.readouterr().out


def test_the_documents_count() -> None:
    """The page of the cage says how many calls each process's filter lets through (x86-64)."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "cage.md").read_text()
    said = dict(re.findall(r"^\| (\w+) \|[^|]+\| `\w+\.toml`[^|]*\| (\d+) \|$", page, re.MULTILINE))
    assert {"supervisor", "zygote", "auditor", "bridge", "router", "control"} == set(said)
    assert {name: len(rules.allowed_calls(name, "x86_64")) for name in said} == {k: int(v) for k, v in said.items()}


def found(*listed: Rule, name: str = "worker", monkeypatch: pytest.MonkeyPatch) -> str:
    """What the linter says of a policy of these rules, in one text."""
    policy = Policy(name, "a description of enough words", (), listed)
    monkeypatch.setattr(lint, "read_policy", lambda _: policy)
    monkeypatch.setattr(lint, "rules", lambda _name, machine="x86_64": list(listed))
    return "\n".join(lint.lint(name))


RECEIVE = rule("recvfrom", fd(3), Comparison(3, "masked_eq", 0, lint.HALF), Comparison(4, "eq", 0))
MMAP = (
    Comparison(0, "eq", 0),
    Comparison(2, "masked_eq", 0, rules.WHOLE & ~3),
    Comparison(3, "eq", 0x22),
    Comparison(4, "masked_eq", lint.HALF, lint.HALF),
)


def without(argument: int, *instead: Comparison) -> Rule:
    """The good mmap rule with another comparison of one argument."""
    return rule("mmap", *(entry for entry in MMAP if entry.argument != argument), *instead)


def test_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """Positive control: nothing is found in rules that are right."""
    assert "" == found(RECEIVE, rule("mmap", *MMAP), rule("brk"), monkeypatch=monkeypatch)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (rule("brk", why="heap"), "no sentence"),
        (rule("recvfrom", Comparison(0, "eq", 3)), "argument 0 is an int"),
        (rule("recvfrom", fd(3), Comparison(3, "masked_eq", 0, rules.WHOLE)), "argument 3 is an int"),
        (rule("recvfrom", fd(3), Comparison(3, "le", 4)), "argument 3 is an int"),
        (rule("recvfrom", fd(3), Comparison(4, "masked_eq", 0, lint.HALF)), "argument 4 is 64 bits wide"),
        (rule("mprotect", Comparison(2, "masked_eq", 0, lint.HALF & ~3)), "argument 2 is 64 bits wide"),
        (rule("brk", Comparison(0, "eq", 0)), "not in the linter's table"),
        (rule("munmap", Comparison(5, "eq", 0)), "argument 5 does not exist"),
        (rule("no_such_call"), "not a call of"),
        (rule("open", machines=("aarch64",)), "not a call of aarch64"),
        (rule("brk", machines=("aarch64",)), "left out on x86_64, where the call exists"),
        (rule("brk", numbers=(("aarch64", 214), ("x86_64", 13))), "13 on x86_64, where libseccomp says 12"),
        (rule("recvfrom"), "the descriptor is not pinned"),
        (rule("recvfrom", fd(5)), "the descriptor is not pinned"),
        (rule("close", fd(7)), "the descriptor is not pinned"),
        (without(4, Comparison(4, "masked_eq", 3, lint.HALF)), "the descriptor is not pinned"),
        (rule("mprotect"), "lets a page become executable"),
        (rule("mprotect", Comparison(2, "eq", 5)), "lets a page become executable"),
        (without(2), "lets a page become executable"),
        (without(2, Comparison(2, "masked_eq", 0, rules.WHOLE & ~7)), "lets a page become executable"),
        (without(0), "choose the address"),
        (without(3), "not private and anonymous"),
        (without(3, Comparison(3, "eq", 0x21)), "not private and anonymous"),
        (without(3, Comparison(3, "eq", 0x2)), "not private and anonymous"),
    ],
)
def test_wrong(wrong: Rule, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each mistake alone is named."""
    assert said in found(wrong, monkeypatch=monkeypatch)


@pytest.mark.parametrize("what", lint.AUTHORITY)
def test_authority(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call that makes or takes authority is refused for a worker by what it would give."""
    for call in lint.AUTHORITY[what]:
        machines = tuple(machine for machine in MACHINES if lint.seccomp.number_of(call, machine) is not None)
        assert f"worker.toml: {call} {what}" in found(rule(call, machines=machines), monkeypatch=monkeypatch)


def test_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fourteenth call is one too many."""
    calls = ["brk", "munmap", "exit", "exit_group", "getpid", "gettid", "getuid", "geteuid", "getgid", "getegid",
             "sched_yield", "rt_sigreturn", "uname"]  # fmt: skip
    assert "at most 13" not in found(*map(rule, calls), monkeypatch=monkeypatch)
    assert "14 calls, at most 13" in found(*map(rule, [*calls, "sysinfo"]), monkeypatch=monkeypatch)


def test_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rules that one call can match are two reasons for it; rules for different descriptors are not."""
    again = rule("recvfrom", fd(3), Comparison(4, "eq", 0))
    assert "two rules speak of the same call" in found(RECEIVE, again, monkeypatch=monkeypatch)
    other = rule("recvfrom", fd(4), Comparison(4, "eq", 0))
    assert "two rules" not in found(RECEIVE, other, monkeypatch=monkeypatch)
    halves = (rule("ioctl", fd(3), policy="x"), rule("ioctl", Comparison(1, "masked_eq", 5, lint.HALF), policy="x"))
    assert "two rules" in found(*halves, name="x", monkeypatch=monkeypatch), "fd 3 with command 5 matches both"


def test_included_already(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule that an included policy makes superfluous is found; one that widens it is not."""
    wide, narrow = rule("mprotect", policy="base"), rule("mprotect", Comparison(2, "eq", 1), policy="outer")
    policy = Policy("outer", "a description of enough words", ("base",), (narrow,))
    monkeypatch.setattr(lint, "read_policy", lambda _: policy)
    monkeypatch.setattr(lint, "rules", lambda _name, machine="x86_64": [wide, narrow])
    assert ["outer.toml: mprotect: base.toml lets it through already"] == lint.lint("outer")
    monkeypatch.setattr(lint, "read_policy", lambda _: Policy("base", policy.description, (), (wide,)))
    assert [] == lint.lint("base")


def test_a_filter_inside_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the last filter lets through and the first one does not is found, whole or in an argument."""
    outer = [rule("brk", policy="worker-load"), rule("mprotect", Comparison(2, "eq", 1), policy="worker-load")]
    inner = [rule("brk"), rule("munmap"), rule("mprotect", Comparison(2, "masked_eq", 0, rules.WHOLE & ~3))]
    said = {"worker": inner, "worker-load": outer}
    monkeypatch.setattr(lint, "read_policy", lambda name: Policy(name, "a description of enough words", (), ()))
    monkeypatch.setattr(lint, "rules", lambda name, machine="x86_64": said[name])
    text = "\n".join(lint.lint("worker-load"))
    assert "does not let munmap of worker.toml through (x86_64)" in text
    assert "does not let mprotect of worker.toml through" in text
    assert "brk" not in text


@pytest.mark.parametrize(
    ("wide", "narrow", "verdict"),
    [
        (rule("brk"), rule("brk"), True),
        (rule("brk"), rule("munmap"), False),
        (rule("brk"), rule("brk", answer="EPERM"), True),
        (rule("close"), rule("close", fd(3)), True),
        (rule("close", fd(3)), rule("close"), False),
        (rule("close", fd(3)), rule("close", fd(4)), False),
        (rule("mprotect", Comparison(2, "masked_eq", 0, 4)), rule("mprotect", Comparison(2, "eq", 3)), True),
        (rule("mprotect", Comparison(2, "masked_eq", 0, 4)), rule("mprotect", Comparison(2, "eq", 5)), False),
        (rule("mprotect", Comparison(2, "eq", 3)), rule("mprotect", Comparison(2, "masked_eq", 0, 4)), False),
        (rule("mprotect", Comparison(2, "le", 3)), rule("mprotect", Comparison(2, "le", 3)), True),
        (rule("mprotect", Comparison(2, "le", 3)), rule("mprotect", Comparison(2, "eq", 3)), False),
    ],
)
def test_covers(wide: Rule, narrow: Rule, verdict: bool) -> None:
    """One rule speaks of all that another speaks of, or not. Where it cannot tell, the answer is no."""
    assert verdict == lint.covers(wide, narrow)
