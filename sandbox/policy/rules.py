"""The system-call policies: what a file says, read strictly into rules.

One TOML file per policy beside this module:

    description = "..."                   what the filter is for
    include = ["base"]                    rules of other policies, first

    [[rule]]
    call = "sendto"                       or `calls = [...]` that share a reason and comparisons
    why = "..."                           one sentence: who needs it, for what
    args = [{ arg = 0, op = "masked_eq", mask = 0xFFFFFFFF, value = 3 }]
    answer = "ENOSYS"                     instead of letting the call through: this error (errno(3))
    kept_for = "..."                      nothing needs the rule on the machine of the tests; who does
    only_on = ["x86_64"]                  the call exists on these machines alone
    number = { x86_64 = 462, ... }        the call's numbers, where libseccomp has no name for it

What no rule allows kills the process. A misspelt key must not turn a narrow rule into a wide one, so unknown keys are
errors.
"""

from __future__ import annotations

import errno
import platform
import tomllib
from dataclasses import dataclass
from importlib import resources
from typing import Any

from sandbox.errors import AirssysError

WHOLE = (1 << 64) - 1
"""A mask of all bits of an argument."""
MACHINES = ("aarch64", "x86_64")
OPERATORS = ("eq", "masked_eq", "le")
_RULE_KEYS = {"call", "calls", "why", "args", "answer", "kept_for", "only_on", "number"}


class PolicyError(AirssysError):
    """A system-call policy file is wrong."""

    code = "E_SECCOMP_POLICY"


@dataclass(frozen=True)
class Comparison:
    """What one argument must be: `argument & mask == value`, or for "le" `argument <= value`."""

    argument: int
    op: str
    value: int
    mask: int = WHOLE

    def holds(self, argument: int) -> bool:
        """Whether a 64-bit argument passes."""
        return argument <= self.value if self.op == "le" else argument & self.mask == self.value


@dataclass(frozen=True)
class Rule:
    """One call that passes (or is answered), with everything that must hold of its arguments.

    Attributes:
        policy: the file it stands in.
        answer: "" lets the call through; else the error it gets, as "ENOSYS".
        kept_for: "" for a rule that is needed on every machine.
        machines: where the call exists.
        numbers: by machine, for a call libseccomp has no name for; else empty.
    """

    policy: str
    call: str
    why: str
    comparisons: tuple[Comparison, ...] = ()
    answer: str = ""
    kept_for: str = ""
    machines: tuple[str, ...] = MACHINES
    numbers: tuple[tuple[str, int], ...] = ()

    def number_on(self, machine: str) -> int | None:
        """The call's number where the rule itself says it."""
        return dict(self.numbers).get(machine)


@dataclass(frozen=True)
class Policy:
    """One file."""

    name: str
    description: str
    include: tuple[str, ...]
    rules: tuple[Rule, ...]


def read_policy(name: str) -> Policy:
    """The policy `sandbox/policy/NAME.toml`, checked for shape.

    Raises:
        PolicyError: see `parse_policy`; or there is no such policy.
    """
    try:
        text = (resources.files("sandbox") / "policy" / f"{name}.toml").read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise PolicyError("there is no such policy", subject=f"{name}.toml") from error
    return parse_policy(name, text)


def names() -> list[str]:
    """Every policy there is, sorted."""
    found = (entry.name for entry in (resources.files("sandbox") / "policy").iterdir())
    return sorted(name.removesuffix(".toml") for name in found if name.endswith(".toml"))


def parse_policy(name: str, text: str) -> Policy:
    """A policy's text, checked for shape.

    Raises:
        PolicyError: no TOML, an unknown key, a rule without call or reason, an unknown operator, error name or machine,
            an argument or a value out of range, two comparisons of one argument.
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise PolicyError(f"not TOML: {error}", subject=f"{name}.toml") from error
    _keys(name, table, {"description", "include", "rule"})
    description, include, listed = table.get("description", ""), table.get("include", []), table.get("rule", [])
    if not isinstance(description, str) or not _all(include, str) or not _all(listed, dict):
        raise PolicyError("`include` is a list of names and `rule` a list of tables", subject=f"{name}.toml")
    rules: list[Rule] = []
    for rule in listed:
        rules += _rule(name, rule)
    return Policy(name, description, tuple(include), tuple(rules))


def _rule(name: str, rule: dict[str, Any]) -> list[Rule]:
    where = f"{name}.toml: {rule.get('call', rule.get('calls', '?'))}"
    _keys(where, rule, _RULE_KEYS)
    if ("call" in rule) == ("calls" in rule):
        raise PolicyError("a rule has either `call` or `calls`", subject=where)
    calls = rule["calls"] if "calls" in rule else [rule["call"]]
    if not _all(calls, str) or not calls or not all(calls):
        raise PolicyError("calls are names", subject=where)
    for key in ("why", "answer", "kept_for"):
        if key in rule and (not isinstance(rule[key], str) or not rule[key]):
            raise PolicyError(f"`{key}` is a text", subject=where)
    if "why" not in rule:
        raise PolicyError("a rule needs a reason, `why`", subject=where)
    answer = rule.get("answer", "")
    if answer and answer not in errno.errorcode.values():
        raise PolicyError("`answer` is the name of an error", subject=f"{where}: {answer}")
    machines = rule.get("only_on", list(MACHINES))
    if not _all(machines, str) or not machines or not set(machines) <= set(MACHINES):
        raise PolicyError(f"`only_on` names machines of {', '.join(MACHINES)}", subject=where)
    numbers = rule.get("number", {})
    if "number" in rule and (
        len(calls) != 1
        or not isinstance(numbers, dict)
        or set(numbers) != set(machines)
        or not all(type(number) is int and 0 <= number < 1 << 16 for number in numbers.values())
    ):
        raise PolicyError("`number` says one call's number on each of its machines", subject=where)
    comparisons = _comparisons(where, rule)
    return [
        Rule(
            name,
            call,
            rule["why"],
            comparisons,
            answer,
            rule.get("kept_for", ""),
            tuple(machines),
            tuple(sorted(numbers.items())),
        )
        for call in calls
    ]


def _comparisons(where: str, rule: dict[str, Any]) -> tuple[Comparison, ...]:
    arguments = rule.get("args", [])
    if not _all(arguments, dict) or ("args" in rule and not arguments):
        raise PolicyError("`args` is a list of comparisons, not an empty one", subject=where)
    for argument in arguments:
        masked = argument.get("op") == "masked_eq"
        _keys(where, argument, {"arg", "op", "value", "mask"} if masked else {"arg", "op", "value"})
        if argument.get("op") not in OPERATORS or argument.get("arg") not in range(6):
            raise PolicyError("an argument needs `arg` 0..5 and a known `op`", subject=where)
        for key in ("value", "mask") if masked else ("value",):
            if type(argument.get(key)) is not int or not 0 <= argument[key] <= WHOLE:
                raise PolicyError(f"`{key}` is a number of 64 bits", subject=where)
        if masked and argument["value"] & ~argument["mask"]:
            raise PolicyError("no call can match: `value` has bits outside `mask`", subject=where)
    if len({argument["arg"] for argument in arguments}) != len(arguments):
        raise PolicyError("one comparison per argument", subject=where)
    return tuple(Comparison(a["arg"], a["op"], a["value"], a.get("mask", WHOLE)) for a in arguments)


def _keys(where: str, table: dict[str, Any], known: set[str]) -> None:
    for key in table:
        if key not in known:
            raise PolicyError("unknown key", subject=f"{where}: {key}")


def _all(value: object, kind: type) -> bool:
    return isinstance(value, list) and all(isinstance(item, kind) for item in value)


def covers(wide: Rule, narrow: Rule) -> bool:
    """Whether `wide` speaks of every call that `narrow` speaks of, whatever either answers."""
    if wide.call != narrow.call:
        return False
    said = {entry.argument: entry for entry in narrow.comparisons}
    for entry in wide.comparisons:
        other = said.get(entry.argument)
        if other is None or entry.op == "le" or other.op == "le":
            if other == entry:
                continue
            return False
        if entry.mask & ~other.mask or other.value & entry.mask != entry.value:
            return False
    return True


def rules(name: str, machine: str = platform.machine()) -> list[Rule]:
    """All rules of a policy that a machine has the calls for, those of the policies it includes first.

    A rule that several included policies say in the same words counts once. What one rule lets through no other answers
    with an error.

    Raises:
        PolicyError: see `read_policy`; or policies that include each other.
    """
    found: dict[Rule, None] = {}
    for rule in _rules(name, ()):
        if machine in rule.machines:
            found[rule] = None
    passing = [rule for rule in found if not rule.answer]
    return [rule for rule in found if not rule.answer or not any(covers(wide, rule) for wide in passing)]


def _rules(name: str, including: tuple[str, ...]) -> list[Rule]:
    if name in including:
        raise PolicyError("policies include each other", subject=" > ".join((*including, name)))
    policy = read_policy(name)
    found: list[Rule] = []
    for other in policy.include:
        found += _rules(other, (*including, name))
    return found + list(policy.rules)


def allowed_calls(name: str, machine: str = platform.machine()) -> list[str]:
    """The calls a policy lets through, sorted."""
    return sorted({rule.call for rule in rules(name, machine) if not rule.answer})
