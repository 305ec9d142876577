"""The cage's order: which walls, in which order, by which kernel calls, and that every one of them is fatal.

All of it runs in forked children in which every call that would change the process is replaced by one that is only
written down, so that an order can be walked through again and again, with the kernel refusing at any point.
"""

from __future__ import annotations

import ast
import errno
import inspect
import os
import resource
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
from forked import returns

from sandbox import cage
from sandbox.errors import SetupFailed
from sandbox.kernel import caps, libc, process
from sandbox.types import EXIT_CODES, Outcome

pytestmark = pytest.mark.block4_security
UID = 4711
SYSCTL = 5

_NOTHING = ["CORE=0", "FSIZE=0", "NPROC=0", "MEMLOCK=0", "MSGQUEUE=0", "RTPRIO=0"]
ORDER: list[tuple[str, list[str]]] = [
    ("control group", ["write 0", "close", "write 0", "close"]),
    ("setsid", ["setsid"]),
    ("umask", ["umask 077"]),
    ("keyring", ["keyctl"]),
    ("uid", ["setgroups", "setresgid", "setresuid"]),
    ("namespaces", ["unshare"]),
    ("no further user namespaces", ["open max_user_namespaces", "write 0", "close"]),
    ("capabilities", ["prctl 24"] * (caps.LAST + 1) + ["prctl 28", "prctl 47", "capset"]),
    ("limits", [f"limit {name}" for name in (["STACK=8388608", *_NOTHING, "SIGPENDING=16"])]),
    ("not dumpable", ["prctl 4"]),
    ("speculation", ["prctl 53", "prctl 53"]),
    ("huge pages", ["prctl 41"]),
    ("die with the supervisor", ["prctl 1"]),
    ("no new privileges", ["prctl 38", "prctl 39"]),
    ("stray descriptors", ["close_range 0-2", "close_range 5-", "limit NOFILE=6"]),
    ("landlock", ["landlock_create_ruleset", "landlock_restrict_self", "close"]),
    ("first filter", ["seccomp first"]),
    ("component", ["receive"]),
    ("load", ["load"]),
    ("no executable memory", ["prctl 65", "prctl 66"]),
    ("sealed code", ["mseal"]),
    ("memory", ["limit DATA", "limit AS"]),
    ("descriptors", ["close_range 0-2", "close_range 5-"]),
    ("no descriptors", ["limit NOFILE=0"]),
    ("last filter", ["seccomp last"]),
]
"""The golden list. A change here is a change of ADR 1 and wants a reason in `sandbox.cage`."""

CALLS = [(step, call) for step, calls in ORDER for call in calls]
_LIMITS = {
    getattr(resource, name): name[7:] for name in dir(resource) if name.startswith("RLIMIT_") and name != "RLIMIT_OFILE"
}


class Recorder:
    """Stands for the kernel: writes every call down and can refuse one of them.

    Args:
        refuse: index of the call to refuse, -1 for none.
        error: what to refuse it with.
        answers: prctl(2) return values by option.
    """

    def __init__(
        self, refuse: int = -1, error: BaseException | None = None, answers: dict[int, int] | None = None
    ) -> None:
        self.calls: list[str] = []
        self.refuse = refuse
        self.error = error or OSError(errno.EIO, "refused on purpose")
        self.answers = {process.PR_GET_NO_NEW_PRIVS: 1, process.PR_GET_MDWE: 1} | (answers or {})

    def note(self, text: str, value: Any = 0) -> Any:
        self.calls.append(text)
        if len(self.calls) - 1 == self.refuse:
            raise self.error
        return value

    def syscall(self, name: str, *args: Any) -> int:
        if name == "close_range":
            return self.note(f"close_range {args[0]}-{args[1] if args[1] != process.ALL_FDS else ''}")
        return self.note(name, 77)

    def prctl(self, option: int, *args: int, name: str = "") -> int:
        return self.note(f"prctl {option}", self.answers.get(option, 0))

    def setrlimit(self, which: int, limits: tuple[int, int]) -> None:
        assert limits[0] == limits[1], "soft and hard alike"
        name = _LIMITS[which]
        self.note(f"limit {name}" + ("" if name in ("AS", "DATA") else f"={limits[0]}"))

    def patches(self) -> list[Any]:
        """Everything a step touches, replaced."""
        note = self.note
        return [
            mock.patch.object(libc, "syscall", self.syscall),
            mock.patch.object(libc, "prctl", self.prctl),
            mock.patch.object(libc, "unshare", lambda flags: note("unshare")),
            mock.patch.object(cage.seccomp, "load", lambda bpf: note(f"seccomp {bpf.decode()}")),
            mock.patch.object(os, "setsid", lambda: note("setsid")),
            mock.patch.object(os, "umask", lambda mask: note(f"umask {mask:03o}")),
            mock.patch.object(os, "setgroups", lambda groups: note("setgroups")),
            mock.patch.object(os, "setresgid", lambda *ids: note("setresgid")),
            mock.patch.object(os, "setresuid", lambda *ids: note("setresuid")),
            mock.patch.object(os, "getresuid", lambda: (UID, UID, UID)),
            mock.patch.object(os, "getresgid", lambda: (UID, UID, UID)),
            mock.patch.object(os, "getgroups", list),
            mock.patch.object(os, "open", lambda path, flags, dir_fd=None: note(f"open {path}", 78)),
            mock.patch.object(os, "write", lambda fd, data: note(f"write {data.decode()}", len(data))),
            mock.patch.object(os, "close", lambda fd: note("close")),
            mock.patch.object(resource, "setrlimit", self.setrlimit),
            mock.patch.object(resource, "getrlimit", lambda which: (resource.RLIM_INFINITY,) * 2),
        ]


class Named:
    """A component that is only written down."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder

    def receive(self) -> None:
        self.recorder.note("receive")

    def load(self) -> list[tuple[int, int]]:
        return self.recorder.note("load", [(0x10000, 4096)])

    def memory(self, reservation: int) -> tuple[int, int]:
        return 1 << 20, 2 << 20


BLUEPRINT = cage.Blueprint(b"first", b"last", 7, 1 << 30, own_uids=True, user_sysctl=SYSCTL)


def walk(recorder: Recorder, blueprint: cage.Blueprint = BLUEPRINT, **changed: Any) -> tuple[list[list[str]], str, str]:
    """Enter the cage with everything replaced: (step, call) pairs, the error's step and its text."""
    steps: list[list[str]] = []
    current = [""]
    real = cage._Steps.__call__

    def step(self: Any, name: str, action: Callable[..., Any], *arguments: object) -> Any:
        current[0] = name
        before = len(recorder.calls)
        try:
            return real(self, name, action, *arguments)
        finally:
            steps.extend([name, call] for call in recorder.calls[before:])

    patches = [*recorder.patches(), mock.patch.object(cage._Steps, "__call__", step)]
    patches += [mock.patch.object(os, name, value) for name, value in changed.items()]
    for patch in patches:
        patch.start()
    try:
        cage.enter(blueprint, UID, [8, 9], Named(recorder))
        return steps, "", ""
    except SetupFailed as error:
        return steps, error.subject, error.message
    finally:
        for patch in reversed(patches):
            patch.stop()


def test_the_order() -> None:
    """Every step and every kernel call it makes, in the golden order."""
    steps, failed, _ = returns(lambda: walk(Recorder()))
    assert [list(pair) for pair in CALLS] == steps
    assert "" == failed


@pytest.mark.parametrize(
    ("own_uids", "sysctl", "missing"),
    [(True, None, {"no further user namespaces"}), (False, SYSCTL, {"uid"})],
    ids=["started as root", "started by an ordinary user"],
)
def test_the_order_of_either_start(own_uids: bool, sysctl: int | None, missing: set[str]) -> None:
    """As root the uid changes; else the worker forbids itself user namespaces. Nothing else differs."""
    blueprint = cage.Blueprint(b"first", b"last", 7, 1 << 30, own_uids=own_uids, user_sysctl=sysctl)
    steps, _, _ = returns(lambda: walk(Recorder(), blueprint))
    assert [list(pair) for pair in CALLS if pair[0] not in missing] == steps


def test_every_refusal_is_fatal_and_named() -> None:
    """Whichever call the kernel refuses: SetupFailed names its step, and no further call is made but closing."""

    def child() -> list[str]:
        wrong = []
        for index, (name, call) in enumerate(CALLS):
            recorder = Recorder(index)
            _, failed, text = walk(recorder)
            after = set(recorder.calls[index + 1 :]) - {"close"}
            if failed != name or after or "refused on purpose" not in text:
                wrong.append(f"{index} {name}/{call}: failed {failed!r} {text!r}, then {after}")
        return wrong

    assert [] == returns(child)


@pytest.mark.parametrize("error", [MemoryError("no"), ValueError("no"), RuntimeError("no")], ids=repr)
def test_every_kind_of_error_is_fatal(error: Exception) -> None:
    """Not only the kernel's refusals: whatever a step raises ends as SetupFailed with its name."""

    def child() -> list[str]:
        return [walk(Recorder(index, error))[1] for index in range(len(CALLS))]

    assert [name for name, _ in CALLS] == returns(child)


@pytest.mark.parametrize("number", [errno.ENXIO, errno.ENODEV, errno.EPERM, errno.EINVAL])
def test_only_speculation_may_be_refused(number: int) -> None:
    """A processor without the switch goes on without it; the same answers anywhere else are fatal."""

    def child() -> list[str]:
        return [walk(Recorder(index, OSError(number, "no")))[1] for index in range(len(CALLS))]

    assert [name if name != "speculation" else "" for name, _ in CALLS] == returns(child)


@pytest.mark.parametrize(
    ("answers", "changed", "step"),
    [
        ({process.PR_GET_NO_NEW_PRIVS: 0}, {}, "no new privileges"),
        ({process.PR_GET_MDWE: 0}, {}, "no executable memory"),
        ({}, {"getresuid": lambda: (UID, UID, 0)}, "uid"),
        ({}, {"getresgid": lambda: (UID, 0, UID)}, "uid"),
        ({}, {"getgroups": lambda: [27]}, "uid"),
    ],
    ids=["no_new_privs", "MDWE", "saved uid", "effective gid", "groups"],
)
def test_what_did_not_hold_is_fatal(answers: dict[int, int], changed: dict[str, Any], step: str) -> None:
    """A kernel that says yes and did nothing is caught where the step can read it back."""
    assert step == returns(lambda: walk(Recorder(answers=answers), **changed)[1])


def test_landlock_that_is_too_old_is_fatal() -> None:
    """The blueprint of an older kernel never becomes a cage."""
    blueprint = cage.Blueprint(b"first", b"last", 5, 1 << 30, own_uids=True, user_sysctl=None)
    assert "landlock" == returns(lambda: walk(Recorder(), blueprint)[1])


@pytest.mark.parametrize("abi", [0, 3, 7])
def test_a_lost_landlock_is_used_as_far_as_it_goes(abi: int) -> None:
    """With consent an old kernel's rights are handled, and without any the step makes no call; nothing else differs."""
    blueprint = cage.Blueprint(
        b"first", b"last", abi, 1 << 30, own_uids=True, user_sysctl=SYSCTL, lost=frozenset({"landlock"})
    )
    steps, failed, _ = returns(lambda: walk(Recorder(), blueprint))
    assert [list(pair) for pair in CALLS if pair[0] != "landlock" or abi > 0] == steps
    assert "" == failed


def test_nothing_comes_after_the_last_filter() -> None:
    """The last statement is the last filter, and no step of the source stands anywhere else."""
    function = ast.parse(inspect.getsource(cage.enter)).body[0]
    assert isinstance(function, ast.FunctionDef)
    last = function.body[-1]
    assert isinstance(last, ast.Expr)
    assert isinstance(last.value, ast.Call)
    assert isinstance(last.value.args[0], ast.Constant)
    assert "last filter" == last.value.args[0].value
    calls = sorted((n for n in ast.walk(function) if isinstance(n, ast.Call)), key=lambda call: call.lineno)
    losable = [call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr == "unless_lost"]
    names = [call.args[0] for call in calls if isinstance(call.func, ast.Name) and call.func.id == "step"]
    names += [call.args[1] for call in losable]
    names.sort(key=lambda name: name.lineno)
    assert [name for name, _ in ORDER] == [name.value for name in names if isinstance(name, ast.Constant)]


@pytest.mark.parametrize(("lost", "step"), [("mdwe", "no executable memory"), ("mseal", "sealed code")])
def test_a_wall_agreed_to_be_lost_is_left_out(lost: str, step: str) -> None:
    """The named wall's step is missing, and nothing else differs."""
    blueprint = cage.Blueprint(b"first", b"last", 7, 1 << 30, own_uids=True, user_sysctl=SYSCTL, lost=frozenset({lost}))
    steps, failed, _ = returns(lambda: walk(Recorder(), blueprint))
    assert [list(pair) for pair in CALLS if pair[0] != step] == steps
    assert "" == failed


def test_a_blank_nobody_needs_is_no_failure() -> None:
    """The supervisor hangs up while the worker waits: EOFError comes through, and nothing more is done."""

    def child() -> tuple[str, list[str]]:
        index = [name for name, _ in CALLS].index("component")
        recorder = Recorder(index, EOFError("hung up"))
        try:
            walk(recorder)
        except EOFError:
            return "EOFError", recorder.calls[index + 1 :]
        return "", []

    assert ["EOFError", []] == list(returns(child))


def test_names_are_told_apart() -> None:
    """No two steps share a name, so a name in a log is one line of the source."""
    names = [name for name, _ in ORDER]
    assert len(names) == len(set(names))


def test_all_namespaces() -> None:
    """Six here and the pid namespace by clone: all seven that the outside check compares."""
    from supervisor.parent.inspect import NAMESPACES

    flags = {"user": "USER", "mnt": "NS", "net": "NET", "ipc": "IPC", "uts": "UTS", "cgroup": "CGROUP"}
    wanted = 0
    for name in flags.values():
        wanted |= getattr(process, f"CLONE_NEW{name}")
    assert wanted == cage.SIX_NAMESPACES
    assert {*flags, "pid"} == set(NAMESPACES)


def test_the_error_of_loading_keeps_its_own_name() -> None:
    """A SetupFailed raised while loading is passed on as it is."""

    def child() -> list[str]:
        recorder = Recorder()
        steps = cage._Steps(frozenset())
        try:
            steps("load", _refuse_loading)
        except SetupFailed as error:
            return [error.subject, *recorder.calls]
        return []

    assert ["the code"] == returns(child)


def _refuse_loading() -> None:
    raise SetupFailed("not for this engine", subject="the code")


def test_a_failed_step_has_an_exit_status() -> None:
    """The worker's end after a failed step is one of the closed list."""
    assert Outcome.SETUP_ERROR in EXIT_CODES.values()
