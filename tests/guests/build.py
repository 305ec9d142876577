#!/usr/bin/env python3
"""Rebuild the guests of the tests: `tests/guests/build.py [--check] [NAME...]`.

Those in C and Zig are compiled, like the examples, into the template that has every import; those that use WASI into
templates of their own (`scripts/make-template`); the others are WebAssembly text around `lifecycle.wat`, one small file
of their own each. The same sources give the same bytes on every machine.
`--check` writes nothing and exits 1 when a committed file differs.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import wasmtime

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT / "sdk"))

from airssys.cc import CompileError, compile_core  # noqa: E402
from airssys.componentize import ComponentizeError, componentize  # noqa: E402

LIFECYCLE = ROOT / "supervisor/selftest/guest/lifecycle.wat"
TEMPLATE = ROOT / "sdk/c/templates/osl-host.wasm"
TOPICS_TEMPLATE = ROOT / "sdk/c/templates/topic-host.wasm"
MARKS = ("imports", "core", "exports")
"""Places in lifecycle.wat, and names of the files whose text goes there."""


ZIG = ("-target", "wasm32-freestanding", "-mcpu", "mvp+bulk_memory", "-O", "ReleaseSmall", "-fno-entry", "-rdynamic")
"""As for C: nothing that a host could have switched off."""


def compiled(directory: Path) -> dict[str, bytes]:
    """The probe, and the template it went into."""
    template = TEMPLATE.read_bytes()
    core = compile_core(directory / "component.c")
    return {"template.wasm": template, "component.wasm": componentize(template, core)}


def in_c(directory: Path) -> dict[str, bytes]:
    """A guest in C."""
    return {"component.wasm": componentize(TEMPLATE.read_bytes(), compile_core(directory / "component.c"))}


def with_topics(directory: Path) -> dict[str, bytes]:
    """A guest in C that may call everything and exports the handler of topics."""
    core = compile_core(directory / "component.c")
    return {"component.wasm": componentize(TOPICS_TEMPLATE.read_bytes(), core)}


def in_zig(directory: Path) -> dict[str, bytes]:
    """A guest in Zig, over what those share."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch, "core.wasm")
        # Its cache would be the user's, and remember this machine's paths.
        caches = {"ZIG_GLOBAL_CACHE_DIR": f"{scratch}/global", "ZIG_LOCAL_CACHE_DIR": f"{scratch}/local"}
        argv = [sys.executable, "-m", "ziglang", "build-exe", *ZIG, "-fstrip", f"-femit-bin={out}"]
        argv += ["--dep", "airssys", "-Mroot=component.zig", "-Mairssys=../airssys.zig"]
        done = subprocess.run(argv, cwd=directory, env=os.environ | caches, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise CompileError(done.stderr.strip() or f"the compiler ended with status {done.returncode}")
        return {"component.wasm": componentize(TEMPLATE.read_bytes(), out.read_bytes())}


def with_template(directory: Path, *, libc: bool = False) -> dict[str, bytes]:
    """A guest in C with a template of its own, which `scripts/make-template` made."""
    core = compile_core(directory / "component.c", libc=libc)
    return {"component.wasm": componentize((directory / "template.wasm").read_bytes(), core)}


def with_libc(directory: Path) -> dict[str, bytes]:
    """The same with the C library, which the compiler builds once."""
    return with_template(directory, libc=True)


def completed(directory: Path) -> dict[str, bytes]:
    """A guest that is lifecycle.wat with something added."""
    name = f"test/{directory.name}"
    text = LIFECYCLE.read_text().replace("@NAME@", name).replace("@SIZE@", f"{len(name):02x}")
    for mark in MARKS:
        part = directory / f"{mark}.wat"
        if part.exists():
            before, after = re.split(rf"^ *;; @{mark}@$", text, flags=re.MULTILINE)
            text = before + part.read_text() + after
    return {"component.wasm": bytes(wasmtime.wat2wasm(text))}


def assembled(directory: Path) -> dict[str, bytes]:
    """A guest whose whole text is its own."""
    return {"component.wasm": bytes(wasmtime.wat2wasm((directory / "component.wat").read_text()))}


GUESTS: dict[str, Callable[[Path], dict[str, bytes]]] = {
    "counter": in_c,
    "counter-zig": in_zig,
    "echo": in_c,
    "echo-zig": in_zig,
    "extra-export": completed,
    "hostile": in_c,
    "kitchen": with_topics,
    "no-lifecycle": assembled,
    "probe": compiled,
    "start-spin": completed,
    "storm": in_c,
    "twin": completed,
    "unknown-import": completed,
    "wasi-libc": with_libc,
    "wasi-probe": with_template,
    "wrong-type": completed,
}


def build(name: str) -> dict[str, bytes]:
    """File name -> bytes of everything that is built for a guest.

    Raises:
        CompileError, ComponentizeError, wasmtime.WasmtimeError: the sources are wrong, or ziglang is not installed.
    """
    return GUESTS[name](HERE / name)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    given = parser.parse_args()
    if unknown := set(given.names) - set(GUESTS):
        parser.error(f"no such guest: {', '.join(sorted(unknown))}")
    different = False
    for name in given.names or GUESTS:
        try:
            files = build(name)
        except (CompileError, ComponentizeError, wasmtime.WasmtimeError, OSError) as error:
            print(f"build.py: {name}: {error}", file=sys.stderr)
            return 8
        for file, data in files.items():
            target = HERE / name / file
            same = target.exists() and target.read_bytes() == data
            different |= not same
            if given.check:
                print(f"{name}/{file}: {'same' if same else 'DIFFERENT'}")
            else:
                target.write_bytes(data)
                print(f"{name}/{file}: {len(data)} bytes")
    return 1 if given.check and different else 0


if __name__ == "__main__":
    sys.exit(main())
