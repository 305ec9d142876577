"""Filters as programs: an interpreter of the BPF that seccomp(2) takes, and what a policy says, to compare with it."""

from __future__ import annotations

import errno
import functools
import struct

from sandbox.kernel import libc, seccomp
from sandbox.kernel.seccomp import compile_policy
from sandbox.policy.rules import Rule, rules

KILL, ALLOW = 0x80000000, 0x7FFF0000
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


def run(bpf: bytes, number: int, arguments: tuple[int, ...], architecture: int) -> int:
    """What a filter answers: an interpreter of the BPF that seccomp(2) takes."""
    data = struct.pack("<iIQ6Q", number, architecture, 0, *arguments)
    accumulator, at = 0, 0
    while True:
        code, jump_true, jump_false, constant = struct.unpack_from("<HBBI", bpf, at * 8)
        at += 1
        if code == 0x20:  # ld [k]
            (accumulator,) = struct.unpack_from("<I", data, constant)
        elif code == 0x54:  # and k
            accumulator &= constant
        elif code == 0x05:  # ja
            at += constant
        elif code in (0x15, 0x25, 0x35, 0x45):  # jeq, jgt, jge, jset
            taken = {
                0x15: accumulator == constant,
                0x25: accumulator > constant,
                0x35: accumulator >= constant,
                0x45: bool(accumulator & constant),
            }[code]
            at += jump_true if taken else jump_false
        elif code == 0x06:  # ret k
            return int(constant)
        else:
            raise AssertionError(f"instruction {code:#x} is new to this interpreter")


def number_of(rule: Rule, machine: str) -> int:
    """The call's number."""
    number = rule.number_on(machine)
    found = seccomp.number_of(rule.call, machine) if number is None else number
    assert found is not None
    return found


def answer(rule: Rule) -> int:
    """What a filter answers to a call that the rule speaks of."""
    return 0x00050000 | int(getattr(errno, rule.answer)) if rule.answer else ALLOW


def wanted(listed: dict[int, list[Rule]], number: int, arguments: tuple[int, ...]) -> int:
    """What the policy says, read rule by rule."""
    for rule in listed.get(number, []):
        if all(entry.holds(arguments[entry.argument]) for entry in rule.comparisons):
            return answer(rule)
    return KILL


@functools.cache
def compiled(name: str, machine: str = libc.MACHINE) -> tuple[bytes, dict[int, list[Rule]]]:
    """A policy's filter and rules by number, once."""
    by_number: dict[int, list[Rule]] = {}
    for rule in rules(name, machine):
        if rule.numbers and machine != libc.MACHINE:
            continue  # not compiled there, see `compile_rules`
        by_number.setdefault(number_of(rule, machine), []).append(rule)
    return compile_policy(name, machine), by_number
