"""The main job on real input, as a new operator would type it: every step below is an `airssys` command.

Keys, signatures, a host under a temporary root, three installs with their capabilities and bindings, the job, the
thief's attempts one by one with the audit lines they left, and a clean end.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
EXAMPLE = HERE / "examples" / "logclean"
AIRSSYS = [sys.executable, "-m", "supervisor.cli"]
ATTEMPTS = [
    ("shadow", "read /etc/shadow"),
    ("dotdot", "climb out of /logs with .."),
    ("symlink", "follow a symbolic link in /logs to /etc/passwd"),
    ("write", "write into /logs, granted read-only"),
    ("reach", "send to acme/redactor, to whom it has no right"),
    ("memory", "eat 4 GiB"),
    ("spin", "spin for ever"),
]
JOB_SECONDS = 120


class Demo:
    """One run: a temporary root, and the commands typed into it."""

    def __init__(self, root: Path, color: bool) -> None:
        self.root = root
        self.color = color
        self.environment = {**os.environ, "AIRSSYS_ROOT": str(root), "PYTHONPATH": str(HERE)}

    def title(self, text: str) -> None:
        print(f"\n\033[1m{text}\033[0m" if self.color else f"\n== {text}", flush=True)

    def run(self, *arguments: str, show: bool = True, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run one command, echoing it as it would be typed."""
        if show:
            typed = " ".join(f"'{a}'" if " " in a or "*" in a else a for a in arguments)
            print(f"$ airssys {typed}".replace(str(self.root), "$ROOT"), flush=True)
        done = subprocess.run([*AIRSSYS, *arguments], env=self.environment, capture_output=True, text=True, check=False)
        if show:
            sys.stdout.write(done.stdout)
        if done.stderr and (show or (check and done.returncode)):
            sys.stdout.write(done.stderr)
        sys.stdout.flush()
        if check and done.returncode != 0:
            raise SystemExit(f"\nairssys {arguments[0]} failed with exit status {done.returncode}")
        return done

    def json(self, *arguments: str) -> object:
        """The JSON answer of a command, not echoed."""
        return json.loads(self.run(*arguments, show=False).stdout)


def prepare(demo: Demo) -> None:
    """Keys and signed packages, in copies: the checkout stays as it is."""
    demo.title("1. A publisher makes a key and signs three packages")
    demo.run("keygen", "--out", str(demo.root / "acme.key"))
    for name in ("reader", "redactor", "thief"):
        package = demo.root / "packages" / name
        package.mkdir(parents=True)
        for file in ("component.wasm", "component.toml"):
            shutil.copy(EXAMPLE / name / file, package)
        demo.run("sign", str(package), "--key", str(demo.root / "acme.key"))


def install(demo: Demo, logs: Path, out: Path) -> None:
    """A host, the publisher trusted for its own names, three installs."""
    demo.title("2. An operator starts a host and installs them, binding guest names to real places")
    demo.run("up", "--detach")
    demo.run("trust", "add", "acme", "--key", str(demo.root / "acme.key.pub"), "--scope", "acme/*", "--level", "review")
    packages = demo.root / "packages"
    demo.run("install", str(packages / "redactor"), "--yes", "--bind", f"/out={out}")
    demo.run("install", str(packages / "reader"), "--yes", "--bind", f"/logs={logs}")
    demo.run("install", str(packages / "thief"), "--yes", "--bind", f"/logs={logs}")
    demo.run("status")


def clean(demo: Demo, logs: Path, out: Path) -> None:
    """The job, and what became of the logs."""
    demo.title(f"3. The job: clean {logs}")
    demo.run("request", "acme/reader", "--data", "clean")
    print()
    deadline = time.monotonic() + JOB_SECONDS
    while True:
        state = demo.json("request", "acme/reader", "--data", "status")
        assert isinstance(state, dict)
        if state["state"] in ("done", "failed"):
            break
        if time.monotonic() > deadline:
            raise SystemExit(f"the job did not end within {JOB_SECONDS} seconds: {state}")
        if sys.stderr.isatty():
            print(f"\r  {state['lines']} lines read", end="", file=sys.stderr, flush=True)
        time.sleep(0.05)
    if state["state"] == "failed":
        raise SystemExit(f"the job failed: {state}")
    print(f"reader: {json.dumps(state)}")
    demo.run("request", "acme/redactor", "--data", "report")
    print()
    for path in sorted(logs.glob("*.log")):
        cleaned = out / path.name
        if not cleaned.exists():
            continue
        with open(path, errors="replace") as before, open(cleaned, errors="replace") as after:
            pairs = [(b.rstrip("\n"), a.rstrip("\n")) for b, a in zip(before, after, strict=False) if a != b]
        if pairs:
            print(f"{path.name}:\n  before  {pairs[0][0][:110]}\n  after   {pairs[0][1][:110]}")


def steal(demo: Demo) -> None:
    """Every attempt of the thief, what it met, and what the audit log says."""
    demo.title("4. The thief tries everything; each attempt fails in its own way")
    before = {c["id"]: c["pid"] for c in demo.json("status", "--output", "json")["components"]}  # type: ignore[index,call-overload]
    for name, words in ATTEMPTS:
        print(f"\nthief: {words}")
        done = demo.run("request", "acme/thief", "--data", f"steal {name}", "--timeout", "20s", show=False, check=False)
        answer = done.stdout.strip() or done.stderr.strip()
        print(f"  met: {answer}")
    after = {c["id"]: c for c in demo.json("status", "--output", "json")["components"]}  # type: ignore[index,call-overload]
    print()
    for name in ("acme/reader/0", "acme/redactor/0"):
        same = after[name]["pid"] == before[name]
        print(f"{name}: pid {after[name]['pid']}, {'never noticed' if same else 'WAS RESTARTED'}")
    demo.title("5. The audit log tells the story")
    demo.run("audit", "tail", "--component", "acme/thief/0")
    demo.run("audit", "verify")


def finish(demo: Demo) -> None:
    """Stop, and look whether anything is left."""
    demo.title("6. The end")
    demo.run("down")
    left = [p.name for p in Path("/proc").iterdir() if p.name.isdigit() and _mentions(p, str(demo.root))]
    print(f"processes left running: {', '.join(left) if left else 'none'}")
    if left:
        raise SystemExit(1)


def _mentions(process: Path, root: str) -> bool:
    try:
        words = (process / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return int(process.name) != os.getpid() and any(root.encode() in word for word in words)


def main() -> None:
    """Parse the two options, run the steps, leave only the cleaned files."""
    parser = argparse.ArgumentParser(prog="scripts/quickstart", description=__doc__)
    parser.add_argument("--logs", type=Path, default=EXAMPLE / "logs", help="directory of *.log files to clean")
    parser.add_argument("--out", type=Path, help="where cleaned files go (default: a new temporary directory)")
    options = parser.parse_args()
    logs = options.logs.resolve()
    if not logs.is_dir():
        parser.error(f"--logs: not a directory: {options.logs}")
    root = Path(tempfile.mkdtemp(prefix="airssys-"))
    root.chmod(0o755)  # the host's processes have uids of their own and must reach what is theirs in it
    out = options.out.resolve() if options.out else Path(tempfile.mkdtemp(prefix="logclean-"))
    out.mkdir(parents=True, exist_ok=True)
    demo = Demo(root, sys.stdout.isatty())
    started = time.monotonic()
    try:
        prepare(demo)
        install(demo, logs, out)
        clean(demo, logs, out)
        steal(demo)
        finish(demo)
    finally:
        demo.run("down", show=False, check=False)
        shutil.rmtree(root, ignore_errors=True)
    print(f"\nCleaned files: {out}   ({time.monotonic() - started:.0f} s)")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted; the host was stopped")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # who read this has gone; nothing more can be said
        sys.exit(1)
