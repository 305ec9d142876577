"""System-call filters: a policy file (TOML) compiled to BPF by libseccomp, loaded with seccomp(2).

The policy is data: one `[[rule]]` per call with the arguments it may have and a sentence why. What no rule allows
kills the process. libseccomp adds the architecture check in front (other ABIs are killed as well). Compiling needs the
library; loading needs only the bytes, so a zygote compiles once and each worker loads.
"""

from __future__ import annotations

import ctypes
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
        PolicyError: unknown key, a rule without call or reason, or an unknown operator.
    """
    text = (resources.files("sandbox") / "policy" / f"{name}.toml").read_text(encoding="utf-8")
    policy = tomllib.loads(text)
    for key in policy:
        if key not in ("description", "include", "rule"):
            raise PolicyError("unknown key", subject=f"{name}.toml: {key}")
    for rule in policy.get("rule", []):
        if not rule.get("call") or not rule.get("why"):
            raise PolicyError("a rule needs `call` and `why`", subject=f"{name}.toml: {rule}")
        for argument in rule.get("args", []):
            if argument.get("op") not in _OPERATORS or not 0 <= argument.get("arg", -1) <= 5:
                raise PolicyError(
                    "an argument needs `arg` 0..5 and a known `op`", subject=f"{name}.toml: {rule['call']}"
                )
    return policy


def rules(name: str) -> list[dict[str, Any]]:
    """All rules of a policy, those of the policies it includes first."""
    policy = read_policy(name)
    found: list[dict[str, Any]] = []
    for other in policy.get("include", []):
        found += rules(other)
    return found + list(policy.get("rule", []))


def allowed_calls(name: str) -> list[str]:
    """The calls a policy lets through, sorted."""
    return sorted({rule["call"] for rule in rules(name)})


def compile_policy(name: str) -> bytes:
    """Compile a policy to BPF instructions (8 bytes each).

    Raises:
        PolicyError: the library does not know a call of the policy.
        KernelFeatureMissing-like ImportError: libseccomp is not installed.
    """
    import pyseccomp

    program = pyseccomp.SyscallFilter(pyseccomp.KILL_PROCESS)
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
        import pyseccomp  # noqa: F401
    except (ImportError, RuntimeError, OSError):
        return False
    return os.name == "posix"
