"""The system-call policies: their shape, what they may never say, and that the compiled filters do what they say.

The compiled filters are kept in `tests/unit/data/POLICY.x86_64.bpf`, so that a change of a policy, of libseccomp or of
the compiler shows as a difference. After a wanted change write them again and look at the difference:

    AIRSSYS_WRITE_BPF=1 python -m pytest tests/unit/test_seccomp_policies.py -k golden

Golden bytes are compared where they were made (x86-64, the libseccomp named in `LIBSECCOMP`); what a filter decides is
compared with its policy everywhere, by a small interpreter of BPF.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from bpf import ALLOW, ARCHITECTURES, KILL, answer, compiled, number_of, run, wanted
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.kernel import libc, seccomp
from sandbox.kernel.seccomp import compile_policy, compile_rules
from sandbox.policy import rules as policies
from sandbox.policy.rules import MACHINES, PolicyError, Rule, allowed_calls, names, parse_policy, rules

pytestmark = pytest.mark.block4_security
STRANGERS = ("worker", "worker-load", "compiler")
"""Filters of processes that touch a stranger's code."""
SERVICES = ("auditor", "bridge", "router", "control")
FILTERS = (*STRANGERS, *SERVICES, "zygote", "supervisor")
PARTS = ("base", "no-new-code", "start", "threads")
"""Policies that others include and no process loads."""
DATA = Path(__file__).parent / "data"
LIBSECCOMP = (2, 5, 4)
"""The version the golden files were made with."""
WORKER_CALLS = [
    "brk", "clock_gettime", "exit_group", "futex", "getrandom", "madvise", "mmap", "mprotect", "munmap",
    "recvfrom", "rt_sigreturn", "sendto",
]  # fmt: skip
WITHOUT_ARGUMENTS = {
    "worker": {"brk", "exit_group", "munmap", "rt_sigreturn"},
    "worker-load": {"close", "close_range", "mincore", "mseal", "seccomp"},
    "compiler": {
        "brk", "clock_gettime", "exit", "exit_group", "gettid", "membarrier", "mprotect", "mremap", "munmap",
        "rt_sigreturn", "sched_yield",
    },
}  # fmt: skip
"""The calls a policy lets through whatever their arguments: each new one is a decision to be seen in a review."""
PROT_EXEC = 4


# -- what the files say -------------------------------------------------------------------------------------------


def test_every_policy_is_known() -> None:
    """Each file of the directory is one these tests look at."""
    assert sorted((*FILTERS, *PARTS)) == names()


def test_the_workers_calls() -> None:
    """Exactly these, of which README and documents speak; a new one is a decision."""
    assert WORKER_CALLS == allowed_calls("worker")
    assert 12 == len(WORKER_CALLS)


@pytest.mark.parametrize("name", STRANGERS)
def test_wildcards(name: str) -> None:
    """A call without argument rules is one of the few listed above."""
    assert WITHOUT_ARGUMENTS[name] == {
        rule.call for rule in rules(name) if rule.policy == name and not rule.comparisons
    }


def _pins(rule: Rule, argument: int, bits: int) -> int | None:
    """The value a rule demands of these bits of an argument; None when it leaves one of them open."""
    for entry in rule.comparisons:
        if entry.argument == argument and entry.op in ("eq", "masked_eq"):
            return entry.value & bits if entry.mask & bits == bits else None
    return None


@pytest.mark.parametrize(("name", "call"), [("worker", "mmap"), ("worker", "mprotect"), ("compiler", "mmap")])
def test_no_executable_memory(name: str, call: str) -> None:
    """Every rule for the call demands that PROT_EXEC is not asked for, in all 64 bits."""
    found = [rule for rule in rules(name) if rule.call == call]
    assert found
    assert {0} == {_pins(rule, 2, ((1 << 64) - 1) & ~3) for rule in found}


def test_code_is_not_writable() -> None:
    """While code is loaded, too, no rule lets a page become both: reading and executing is asked for exactly."""
    pins = {_pins(rule, 2, (1 << 64) - 1) for rule in rules("worker-load", "x86_64") if rule.call == "mprotect"}
    assert 5 in pins
    assert all(pin & 6 != 6 for pin in pins if pin is not None)


@pytest.mark.parametrize("name", STRANGERS)
def test_memory_is_never_a_file(name: str) -> None:
    """Every mmap is anonymous and private, and in worker and compiler at no chosen address."""
    for rule in (rule for rule in rules(name) if rule.call == "mmap"):
        if name == "worker-load" and "memfd" in rule.why:
            # The one exception: the component's code is read from its memfd, and its pages put over the engine's copy
            # (MAP_FIXED), before the last filter.
            assert 1 == _pins(rule, 2, (1 << 64) - 1), "PROT_READ"
            assert _pins(rule, 3, (1 << 64) - 1) in (2, 0x12), "MAP_PRIVATE"
            continue
        assert 0xFFFFFFFF == _pins(rule, 4, 0xFFFFFFFF), "fd -1"
        assert 0x22 == _pins(rule, 3, 0x2F), "MAP_PRIVATE, MAP_ANONYMOUS"
        if name != "worker-load":
            assert 0 == _pins(rule, 0, (1 << 64) - 1), "no address"


NEVER = {
    "open", "openat", "openat2", "creat", "socket", "socketpair", "connect", "bind", "accept", "accept4", "sendmsg",
    "recvmsg", "sendmmsg", "recvmmsg", "execve", "execveat", "fork", "vfork", "clone", "clone3", "ptrace", "mount",
    "umount2", "pivot_root", "setns", "unshare", "bpf", "perf_event_open", "userfaultfd", "io_uring_setup", "keyctl",
    "add_key", "request_key", "memfd_create", "process_vm_writev", "pidfd_getfd", "kill", "tgkill", "tkill", "ioctl",
    "fcntl", "dup", "dup2", "dup3", "shmget", "shmat", "setuid", "setresuid", "personality", "modify_ldt", "read",
}  # fmt: skip


@pytest.mark.parametrize("name", STRANGERS)
def test_never(name: str) -> None:
    """Calls that make or take authority are in no policy; a waiting worker takes its code's descriptor on fd 3."""
    assert ({"recvmsg"} if name == "worker-load" else set()) == NEVER & set(allowed_calls(name))


NEVER_IN_THE_HOST = {
    "acct", "add_key", "bpf", "chroot", "clock_settime", "create_module", "delete_module", "execveat", "fanotify_init",
    "finit_module", "fsopen", "init_module", "io_uring_enter", "io_uring_register", "io_uring_setup", "ioperm", "iopl",
    "kcmp", "kexec_file_load", "kexec_load", "lookup_dcookie", "mknod", "mknodat", "modify_ldt", "move_pages",
    "name_to_handle_at", "open_by_handle_at", "perf_event_open", "personality", "pidfd_getfd", "pkey_mprotect",
    "process_madvise", "process_vm_readv", "process_vm_writev", "ptrace", "quotactl", "reboot", "remap_file_pages",
    "request_key", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "setns", "settimeofday", "setuid", "shmat", "shmget",
    "swapon", "syslog", "tkill", "uselib", "userfaultfd", "vhangup", "bind",
}  # fmt: skip


def test_never_in_the_host() -> None:
    """Nothing in the whole host traces, loads modules or BPF, uses io_uring or keys, enters namespaces of others."""
    assert set() == NEVER_IN_THE_HOST & set(allowed_calls("supervisor"))
    known = {call for call in NEVER_IN_THE_HOST if any(seccomp.number_of(call, machine) for machine in MACHINES)}
    assert NEVER_IN_THE_HOST == known, "none of these names is a slip of the pen"


@pytest.mark.parametrize("name", FILTERS)
def test_unix_sockets_alone(name: str) -> None:
    """Who may make a socket at all may make AF_UNIX ones."""
    for rule in rules(name):
        if rule.call in ("socket", "socketpair"):
            assert 1 == _pins(rule, 0, 0xFFFFFFFF)


@pytest.mark.parametrize("name", SERVICES)
def test_services_make_no_code(name: str) -> None:
    """Services that have imported everything get no executable page: an error instead, and the process lives."""
    bpf = compile_policy(name)
    for call in ("mmap", "mprotect"):
        number = number_of(Rule("", call, ""), libc.MACHINE)
        assert ALLOW == run(bpf, number, (0, 4096, 3, 0x22, 0xFFFFFFFF, 0), ARCHITECTURES[libc.MACHINE])
        for prot in (4, 5, 7):
            said = run(bpf, number, (0, 4096, prot, 0x22, 0xFFFFFFFF, 0), ARCHITECTURES[libc.MACHINE])
            assert 0x00050000 | errno.EACCES == said


@pytest.mark.parametrize("name", (*SERVICES, "compiler"))
def test_services_make_no_process(name: str) -> None:
    """No exec in any, and a clone is a thread's or none."""
    assert set() == {"execve", "fork", "vfork", "unshare", "mount"} & set(allowed_calls(name))
    flags = {_pins(rule, 0, 0xFFFFFFFF) for rule in rules(name) if rule.call == "clone"}
    assert flags <= {0x3D0F00}


def test_the_zygote_clones_workers_alone() -> None:
    """CLONE_PARENT and CLONE_NEWPID, SIGCHLD at the end: nothing else, and no program."""
    assert {0x20008011} == {_pins(rule, 0, 0xFFFFFFFF) for rule in rules("zygote") if rule.call == "clone"}
    assert set() == {"execve", "socket", "connect", "mount"} & set(allowed_calls("zygote"))


@pytest.mark.parametrize("call", ["prctl", "seccomp", "recvmsg", "close", "prlimit64", "mseal"])
def test_the_first_filters_calls_end_with_it(call: str) -> None:
    """What the last walls need while they go up is gone behind the last filter."""
    assert call in allowed_calls("worker-load")
    assert call not in allowed_calls("worker")


def test_the_first_filter_includes_the_last() -> None:
    """Filters only add up: what the worker needs later must pass the first one too."""
    assert set(allowed_calls("worker")) <= set(allowed_calls("worker-load"))


# -- the parser ---------------------------------------------------------------------------------------------------

GOOD = {"call": "read", "why": "because a test says so"}
GOOD_ARGUMENT = {"arg": 0, "op": "masked_eq", "mask": 255, "value": 3}
words = st.text("abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=8)


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return json.dumps(value)


def _policy(*listed: Any, **top: Any) -> str:
    return "".join(f"{key} = {_toml(value)}\n" for key, value in top.items()) + f"rule = {_toml(list(listed))}\n"


def test_a_good_policy_is_read() -> None:
    """Positive control of every refusal below."""
    text = _policy(GOOD | {"args": [GOOD_ARGUMENT]}, description="x", include=["worker"])
    comparison = policies.Comparison(0, "masked_eq", 3, 255)
    assert (Rule("test", "read", GOOD["why"], (comparison,)),) == parse_policy("test", text).rules


def test_every_key_is_read() -> None:
    """Calls that share a reason, an error as the answer, a rule kept for others, numbers and machines."""
    text = _policy(
        {"calls": ["read", "write"], "why": "because", "answer": "ENOSYS", "kept_for": "other libraries"},
        {"call": "mseal", "why": "because", "number": {"x86_64": 462, "aarch64": 462}},
        {"call": "open", "why": "because", "only_on": ["x86_64"]},
    )
    found = parse_policy("test", text).rules
    assert ["read", "write", "mseal", "open"] == [rule.call for rule in found]
    assert ["ENOSYS", "ENOSYS", "", ""] == [rule.answer for rule in found]
    assert ["other libraries", "other libraries", "", ""] == [rule.kept_for for rule in found]
    assert [None, None, 462, None] == [rule.number_on("aarch64") for rule in found]
    assert [MACHINES, MACHINES, MACHINES, ("x86_64",)] == [rule.machines for rule in found]


@given(key=words.filter(lambda w: w not in policies._RULE_KEYS), value=st.one_of(st.integers(0, 9), words))
def test_unknown_key_of_a_rule(key: str, value: Any) -> None:
    """`arg` instead of `args` would let a call through with any arguments: an unknown key is an error."""
    with pytest.raises(PolicyError, match="unknown key"):
        parse_policy("test", _policy(GOOD | {key: value}))


@given(key=words.filter(lambda w: w not in {"arg", "op", "value", "mask"}))
def test_unknown_key_of_an_argument(key: str) -> None:
    """The same for a comparison."""
    with pytest.raises(PolicyError, match="unknown key"):
        parse_policy("test", _policy(GOOD | {"args": [GOOD_ARGUMENT | {key: 1}]}))


@given(key=words.filter(lambda w: w not in {"description", "include", "rule"}))
def test_unknown_key_of_a_policy(key: str) -> None:
    """And for the whole file."""
    with pytest.raises(PolicyError, match="unknown key"):
        parse_policy("test", _policy(GOOD, **{key: "x"}))


@pytest.mark.parametrize(
    "text",
    [
        "rule = 1",
        "rule = [1]",
        "include = 'worker'",
        "include = [1]",
        "[[rule]",
        _policy({"call": "read"}),
        _policy({"why": "none"}),
        _policy(GOOD | {"calls": ["write"]}),
        _policy({"calls": [], "why": "none"}),
        _policy({"calls": ["read", 1], "why": "none"}),
        _policy({"calls": "read", "why": "none"}),
        _policy(GOOD | {"answer": "ENOTHING"}),
        _policy(GOOD | {"answer": 38}),
        _policy(GOOD | {"kept_for": ""}),
        _policy(GOOD | {"kept_for": True}),
        _policy(GOOD | {"only_on": []}),
        _policy(GOOD | {"only_on": ["riscv64"]}),
        _policy(GOOD | {"number": 3}),
        _policy(GOOD | {"number": {"x86_64": 3}}),
        _policy(GOOD | {"number": {"x86_64": 3, "aarch64": -1}}),
        _policy({"calls": ["read", "write"], "why": "none", "number": {"x86_64": 3, "aarch64": 3}}),
        _policy(GOOD | {"call": ""}),
        _policy(GOOD | {"call": 3}),
        _policy(GOOD | {"why": ""}),
        _policy(GOOD | {"args": []}),
        _policy(GOOD | {"args": [3]}),
        _policy(GOOD | {"args": [GOOD_ARGUMENT | {"op": "ge"}]}),
        _policy(GOOD | {"args": [GOOD_ARGUMENT | {"arg": 6}]}),
        _policy(GOOD | {"args": [GOOD_ARGUMENT | {"arg": -1}]}),
        _policy(GOOD | {"args": [GOOD_ARGUMENT | {"arg": "0"}]}),
        _policy(GOOD | {"args": [GOOD_ARGUMENT | {"value": -1}]}),
        _policy(GOOD | {"args": [GOOD_ARGUMENT | {"value": "3"}]}),
        _policy(GOOD | {"args": [GOOD_ARGUMENT | {"value": 256}]}),
        _policy(GOOD | {"args": [GOOD_ARGUMENT | {"mask": 1 << 64}]}),
        _policy(GOOD | {"args": [{"arg": 0, "op": "masked_eq", "value": 3}]}),
        _policy(GOOD | {"args": [{"arg": 0, "op": "eq", "value": 3, "mask": 1}]}),
        _policy(GOOD | {"args": [{"arg": 0, "op": "eq"}]}),
        _policy(GOOD | {"args": [GOOD_ARGUMENT, GOOD_ARGUMENT]}),
    ],
)
def test_refused(text: str) -> None:
    """Every shape a reader could misunderstand is an error."""
    with pytest.raises(PolicyError):
        parse_policy("test", text)


def test_includes_that_lead_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing policy and policies in a circle are errors with a name."""
    with pytest.raises(PolicyError, match="no such policy"):
        rules("nothing")
    circle = {name: policies.Policy(name, "", (other,), ()) for name, other in (("a", "b"), ("b", "a"))}
    monkeypatch.setattr(policies, "read_policy", circle.__getitem__)
    with pytest.raises(PolicyError, match="a > b > a"):
        rules("a")


@pytest.mark.parametrize(("call", "machine"), [("no_such_call", "x86_64"), ("open", "aarch64")])
def test_unknown_call(call: str, machine: str) -> None:
    """A call the library or the machine does not know is an error, not a rule left out."""
    with pytest.raises(PolicyError, match=call):
        compile_rules([Rule("test", call, "because")], machine)


def test_a_call_by_number() -> None:
    """A number that the library has no name for is let through; without the rule it is killed."""
    (rule,) = parse_policy(
        "test", _policy({"call": "mseal", "why": "because", "number": {"x86_64": 462, "aarch64": 462}})
    ).rules
    assert ALLOW == run(compile_rules([rule]), 462, (0,) * 6, ARCHITECTURES[libc.MACHINE])
    assert KILL == run(compile_rules([]), 462, (0,) * 6, ARCHITECTURES[libc.MACHINE])


def test_an_error_for_an_answer() -> None:
    """The call gets the error, others are killed."""
    bpf = compile_rules([Rule("test", "clone3", "because", answer="ENOSYS")])
    assert 0x00050000 | errno.ENOSYS == run(bpf, 435, (0,) * 6, ARCHITECTURES[libc.MACHINE])
    assert KILL == run(bpf, 436, (0,) * 6, ARCHITECTURES[libc.MACHINE])


# -- what the filters do ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILTERS)
def test_deterministic(name: str) -> None:
    """The same policy is the same bytes each time."""
    assert compile_policy(name) == compile_policy(name)


def _library_version() -> tuple[int, int, int]:
    library = ctypes.CDLL("libseccomp.so.2")
    library.seccomp_version.restype = ctypes.POINTER(ctypes.c_uint * 3)
    major, minor, micro = library.seccomp_version().contents
    return major, minor, micro


@pytest.mark.parametrize("name", FILTERS)
def test_golden(name: str) -> None:
    """The compiled filter is the one in the tree, byte by byte."""
    file = DATA / f"{name}.x86_64.bpf"
    if os.environ.get("AIRSSYS_WRITE_BPF"):
        file.write_bytes(compile_policy(name))
    if libc.MACHINE != "x86_64":
        pytest.skip(f"golden filters are of x86-64, this is {libc.MACHINE}")
    if _library_version() != LIBSECCOMP:
        pytest.skip(f"golden filters were made by libseccomp {LIBSECCOMP}, this is {_library_version()}")
    assert file.read_bytes() == compile_policy(name)


@st.composite
def calls(draw: st.DrawFn) -> tuple[str, str, int, tuple[int, ...]]:
    """A call that a rule allows, then changed in a few bits or numbers, or any call."""
    name, machine = draw(st.sampled_from(FILTERS)), draw(st.sampled_from(MACHINES))
    _, listed = compiled(name, machine)
    number = draw(st.sampled_from(sorted(listed)))
    arguments = [draw(st.sampled_from([0, 1, 3, 4, (1 << 32) - 1, (1 << 64) - 1, 1 << 32])) for _ in range(6)]
    for entry in draw(st.sampled_from(listed[number])).comparisons:
        arguments[entry.argument] = entry.value
    for _ in range(draw(st.integers(0, 3))):
        index = draw(st.integers(0, 5))
        arguments[index] ^= 1 << draw(st.integers(0, 63))
    if draw(st.integers(0, 5)) == 0:
        number = draw(st.integers(0, 600))
    return name, machine, number, tuple(arguments)


@given(calls())
@settings(max_examples=600, deadline=None)
def test_filters_decide_as_their_policies(call: tuple[str, str, int, tuple[int, ...]]) -> None:
    """The compiled filter allows a call exactly when a rule of the policy does, in all 64 bits of each argument."""
    name, machine, number, arguments = call
    bpf, listed = compiled(name, machine)
    assert wanted(listed, number, arguments) == run(bpf, number, arguments, ARCHITECTURES[machine])


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("name", FILTERS)
def test_every_rule_is_in_the_filter(name: str, machine: str) -> None:
    """Each rule alone makes its call pass; the same number in another architecture's table is killed."""
    bpf, listed = compiled(name, machine)
    foreign = {0x40000003, 0x40000028, 0xC0000015, *ARCHITECTURES.values()} - {ARCHITECTURES[machine]}
    for number, rule in [(number, rule) for number, said in listed.items() for rule in said]:
        arguments = tuple({entry.argument: entry.value for entry in rule.comparisons}.get(at, 0) for at in range(6))
        assert answer(rule) == run(bpf, number, arguments, ARCHITECTURES[machine]), rule
        for other in foreign:
            assert KILL == run(bpf, number, arguments, other)
        assert KILL == run(bpf, number | 0x40000000, arguments, ARCHITECTURES[machine])


@pytest.mark.parametrize("name", FILTERS)
def test_every_other_call_is_killed(name: str) -> None:
    """All numbers that no rule names, with harmless and with odd arguments."""
    for machine in MACHINES:
        bpf, listed = compiled(name, machine)
        for number in set(range(1024)) - set(listed):
            for value in (0, 3, 4, (1 << 64) - 1):
                assert KILL == run(bpf, number, (value,) * 6, ARCHITECTURES[machine])
