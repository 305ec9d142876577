"""System-call filters: a policy file (TOML) compiled to BPF by libseccomp, loaded with seccomp(2).

The policy is data: one `[[rule]]` per call with the arguments it may have and a sentence why. What no rule allows
kills the process. libseccomp adds the architecture check in front (other ABIs are killed as well). Compiling needs the
library; loading needs only the bytes, so a zygote compiles once and each worker loads.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import errno
import os
import tempfile
import tomllib
from importlib import resources
from typing import Any

from sandbox.errors import AirssysError
from sandbox.kernel import libc

SECCOMP_SET_MODE_FILTER = 1
FLAG_TSYNC = 1
FLAG_TSYNC_ESRCH = 1 << 4

_OPERATORS = ("eq", "masked_eq", "le")


class PolicyError(AirssysError):
    """A system-call policy file is wrong."""

    code = "E_SECCOMP_POLICY"


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


def read_policy(name: str) -> dict[str, Any]:
    """The policy `sandbox/policy/NAME.toml`, checked for shape.

    Raises:
        PolicyError: see `parse_policy`; or there is no such policy.
    """
    try:
        text = (resources.files("sandbox") / "policy" / f"{name}.toml").read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise PolicyError("there is no such policy", subject=f"{name}.toml") from error
    return parse_policy(name, text)


def parse_policy(name: str, text: str) -> dict[str, Any]:
    """A policy's text, checked for shape. A misspelt key must not turn a narrow rule into a wide one.

    Raises:
        PolicyError: no TOML, an unknown key, a rule without call or reason, an unknown operator, an argument or a
            value out of range, two comparisons of one argument.
    """
    try:
        policy = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise PolicyError(f"not TOML: {error}", subject=f"{name}.toml") from error
    _keys(name, policy, {"description", "include", "rule"})
    includes, listed = policy.get("include", []), policy.get("rule", [])
    if not _all(includes, str) or not _all(listed, dict):
        raise PolicyError("`include` is a list of names and `rule` a list of tables", subject=f"{name}.toml")
    for rule in listed:
        _keys(name, rule, {"call", "why", "args"})
        if not all(isinstance(rule.get(key), str) and rule[key] for key in ("call", "why")):
            raise PolicyError("a rule needs `call` and `why`", subject=f"{name}.toml: {rule}")
        where = f"{name}.toml: {rule['call']}"
        arguments = rule.get("args", [])
        if not _all(arguments, dict) or ("args" in rule and not arguments):
            raise PolicyError("`args` is a list of comparisons, not an empty one", subject=where)
        for argument in arguments:
            masked = argument.get("op") == "masked_eq"
            _keys(where, argument, {"arg", "op", "value", "mask"} if masked else {"arg", "op", "value"})
            if argument.get("op") not in _OPERATORS or argument.get("arg") not in range(6):
                raise PolicyError("an argument needs `arg` 0..5 and a known `op`", subject=where)
            for key in ("value", "mask") if masked else ("value",):
                if type(argument.get(key)) is not int or not 0 <= argument[key] < 1 << 64:
                    raise PolicyError(f"`{key}` is a number of 64 bits", subject=where)
            if masked and argument["value"] & ~argument["mask"]:
                raise PolicyError("no call can match: `value` has bits outside `mask`", subject=where)
        if len({argument["arg"] for argument in arguments}) != len(arguments):
            raise PolicyError("one comparison per argument", subject=where)
    return policy


def _keys(where: str, table: dict[str, Any], known: set[str]) -> None:
    for key in table:
        if key not in known:
            raise PolicyError("unknown key", subject=f"{where}: {key}")


def _all(value: object, kind: type) -> bool:
    return isinstance(value, list) and all(isinstance(item, kind) for item in value)


def rules(name: str) -> list[dict[str, Any]]:
    """All rules of a policy, those of the policies it includes first.

    Raises:
        PolicyError: see `read_policy`; or policies that include each other.
    """
    return _rules(name, ())


def _rules(name: str, including: tuple[str, ...]) -> list[dict[str, Any]]:
    if name in including:
        raise PolicyError("policies include each other", subject=" > ".join((*including, name)))
    policy = read_policy(name)
    found: list[dict[str, Any]] = []
    for other in policy.get("include", []):
        found += _rules(other, (*including, name))
    return found + list(policy.get("rule", []))


def allowed_calls(name: str) -> list[str]:
    """The calls a policy lets through, sorted."""
    return sorted({rule["call"] for rule in rules(name)})


def compile_policy(name: str) -> bytes:
    """Compile a policy to BPF instructions (8 bytes each).

    Raises:
        PolicyError: the library does not know a call of the policy.
        OSError: libseccomp is not installed.
    """
    pyseccomp = _library()

    program = pyseccomp.SyscallFilter(pyseccomp.KILL_PROCESS)
    # The library's own answer to another architecture's table ends the calling thread alone.
    program.set_attr(pyseccomp.Attr.ACT_BADARCH, pyseccomp.KILL_PROCESS)
    compare = {"eq": pyseccomp.EQ, "le": pyseccomp.LE}
    for rule in rules(name):
        if pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, rule["call"]) < 0:
            raise PolicyError("libseccomp does not know this call", subject=rule["call"])
        arguments = []
        for argument in rule.get("args", []):
            if argument["op"] == "masked_eq":
                arguments.append(
                    pyseccomp.Arg(argument["arg"], pyseccomp.MASKED_EQ, argument["mask"], argument["value"])
                )
            else:
                arguments.append(pyseccomp.Arg(argument["arg"], compare[argument["op"]], argument["value"]))
        program.add_rule(pyseccomp.ALLOW, rule["call"], *arguments)
    with tempfile.TemporaryFile() as file:
        program.export_bpf(file)
        file.seek(0)
        return file.read()


def _library() -> Any:
    """The bindings. Raises ImportError, OSError.

    They look for the library by starting ldconfig or a compiler, which a process that may start no other cannot, so
    they are told its name while they are imported.
    """

    def known(name: str) -> str | None:
        return "libseccomp.so.2" if name == "seccomp" else None  # None: what is loaded already, the C library

    search = ctypes.util.find_library
    ctypes.util.find_library = known
    try:
        import pyseccomp
    finally:
        ctypes.util.find_library = search
    return pyseccomp


def load(bpf: bytes) -> None:
    """Install a compiled filter on all threads. Needs no_new_privs or CAP_SYS_ADMIN over the user namespace."""
    buffer = ctypes.create_string_buffer(bpf, len(bpf))
    program = _Program(len(bpf) // 8, ctypes.addressof(buffer))
    # With TSYNC_ESRCH a thread that cannot be synchronised is an error, not a positive thread id.
    libc.syscall("seccomp", SECCOMP_SET_MODE_FILTER, FLAG_TSYNC | FLAG_TSYNC_ESRCH, ctypes.pointer(program))


def available() -> bool:
    """Whether the kernel takes filters that kill the whole process."""
    action = ctypes.create_string_buffer((0x80000000).to_bytes(4, "little"), 4)
    try:
        libc.syscall("seccomp", 2, 0, action)  # SECCOMP_GET_ACTION_AVAIL
    except OSError as error:
        return error.errno not in (errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
    return True


def library_available() -> bool:
    """Whether libseccomp can be loaded."""
    try:
        _library()
    except (ImportError, RuntimeError, OSError):
        return False
    return os.name == "posix"
