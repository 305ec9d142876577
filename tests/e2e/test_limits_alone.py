"""Each limit stops what it is there for with all others wide open, on a real host; and what is refused is on record."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import wasmtime
from live_host import GUESTS, LIFECYCLE, Host, wait_until

pytestmark = pytest.mark.block1_runtime

WIDE = """[limits]
memory = "64MiB"
fuel = 1_000_000_000_000_000
deadline = "10m"
cpu = "10m"
mailbox = 100_000
storage = "1GiB"
message-size = "1MiB"
"""


def _limits(name: str, limits: str) -> Callable[[str], str]:
    """An edit of a manifest: this name, these limits, ended as often as the test likes."""

    def edit(text: str) -> str:
        text = re.sub(r'name = "test/[a-z-]+"', f'name = "test/{name}"', text)
        text = re.sub(r"\[limits\].*?\n\n", lambda _: limits + "\n", text, flags=re.DOTALL)
        return text.replace("max-restarts = 3", "max-restarts = 100")

    return edit


def _wide(**changed: str) -> str:
    text = WIDE
    for key, value in changed.items():
        line = f"{key.replace('_', '-')} = {value}\n"
        text = re.sub(rf"^{key.replace('_', '-')} = .*\n", "", text, flags=re.MULTILINE) + line
    return text


@pytest.fixture
def probe(shared: Host) -> Callable[..., str]:
    """Install a probe whose limits are wide open but for those named; its id."""

    def install(name: str, **changed: str) -> str:
        package = shared.package(GUESTS / "probe", name=name, edit=_limits(name, _wide(**changed)))
        place = shared.out / f"{name}-files"
        place.mkdir()
        (place / "there.txt").write_text("hello")
        shared.install(package, "--bind", f"/data={place}", "--bind", f"/ro={place}")
        return f"test/{name}"

    return install


def _ends(host: Host, name: str, command: str, outcome: str, words: str) -> None:
    pid = host.component(f"{name}/0")["pid"]
    assert "E_TARGET_ENDED" == host.fail(name, command, seconds=30).code
    wait_until("another worker", lambda: host.component(f"{name}/0")["pid"] not in (pid, None), seconds=30)
    ended = host.component(f"{name}/0")
    assert outcome == ended["outcome"]
    assert words in ended["detail"]


@pytest.mark.parametrize("command", ["spin", "clock"], ids=["in the guest", "in host functions"])
def test_cpu_time_alone(shared: Host, probe: Callable[..., str], command: str) -> None:
    """With fuel and wall clock for minutes, 300 ms of processor time end a loop, host functions included."""
    name = probe(f"cpu-{command}", cpu='"300ms"')
    _ends(shared, name, command, "deadline", "CPU time: more than 300 ms")
    # Positive control: waiting costs none of it.
    assert "ok" == shared.ask(name, "sleep 500")


def test_fuel_alone(shared: Host, probe: Callable[..., str]) -> None:
    """With minutes of time, fuel ends a loop."""
    name = probe("fuel", fuel="3_000_000")
    _ends(shared, name, "spin", "fuel", "fuel")
    assert "x" == shared.ask(name, "echo x")


@pytest.mark.parametrize("blocked", ["spin", "get a-key", "read /data/there.txt"])
def test_wall_clock_alone(shared: Host, probe: Callable[..., str], blocked: str) -> None:
    """The deadline ends a worker that loops, and one that waits for a bridge which does not answer."""
    name = probe(f"clock-{blocked.split(maxsplit=1)[0]}", deadline='"700ms"')
    bridge = shared.processes()["bridge"]
    assert "ok" == shared.ask(name, "sleep 1")  # the control: a bridge that runs answers in time
    if blocked != "spin":
        os.kill(bridge, signal.SIGSTOP)
    try:
        assert "E_TARGET_ENDED" == shared.fail(name, blocked, seconds=30).code
    finally:
        os.kill(bridge, signal.SIGCONT)
    wait_until("its end", lambda: shared.component(f"{name}/0")["outcome"] == "deadline", seconds=30)
    assert "not finished within 700 ms" in shared.component(f"{name}/0")["detail"]


def test_wall_clock_while_the_router_waits_for_the_auditor(shared: Host, probe: Callable[..., str]) -> None:
    """A denied message is answered when its record is written; a worker that waits for that too has its deadline."""
    name = probe("clock-auditor", deadline='"700ms"')
    auditor = shared.processes()["auditor"]
    assert "denied" in shared.ask(name, "send other/one hello")
    os.kill(auditor, signal.SIGSTOP)
    try:
        assert "E_TARGET_ENDED" == shared.fail(name, "send other/one hello", seconds=30).code
    finally:
        os.kill(auditor, signal.SIGCONT)
    wait_until("its end", lambda: shared.component(f"{name}/0")["outcome"] == "deadline", seconds=30)


def test_a_refused_growth_is_on_record(shared: Host, probe: Callable[..., str]) -> None:
    """memory.grow answers -1, the worker lives, the audit log says what was asked and allowed: once for a worker."""
    name = probe("grower", memory='"2MiB"')
    for _ in range(3):
        assert int(shared.ask(name, f"grow {8 << 20}")) <= 2 << 20
    found = [record for record in shared.audit(f"{name}/0") if record["event"] == "limit.reached"]
    assert [("denied", "memory", 2 << 20)] == [(r["decision"], r["object"], r["detail"]["limit"]) for r in found]
    assert found[0]["detail"]["asked"] > 2 << 20


def test_the_bridge_keeps_nothing_open(shared: Host, probe: Callable[..., str]) -> None:
    """However many files a component reads, between two requests the bridge holds its channel and bound places."""
    name = probe("reader", log_lines="0")
    bridge = shared.processes()["bridge"]
    shared.ask(name, "read /data/there.txt")
    try:
        before = len(os.listdir(f"/proc/{bridge}/fd"))
    except PermissionError:
        pytest.skip("an ordinary user may not look into the bridge: it is not dumpable")
    for _ in range(20):
        assert "hello" == shared.ask(name, "read /data/there.txt")
        shared.ask(name, "list /data")
        assert "error" in shared.ask(name, "read /data/none")
    assert before == len(os.listdir(f"/proc/{bridge}/fd"))


# -- bombs: what the component does before its first function is called ------------------------------------------------

BOMBS: dict[str, tuple[str, str, str]] = {
    # name: core code added to a guest that is all right, limits, words of its end
    "data-segment": ("(memory $big 2000)", _wide(), "linear memory limit"),
    "deep-recursion": ("(func $down (call $down)) (start $down)", _wide(), "call stack exhausted"),
    "table-count": ("(table 1 funcref) (table 1 funcref)", _wide(tables="1"), "table count too high"),
    "table-size": ("(table 2000 funcref)", _wide(table_elements="1000"), "table minimum size"),
    "memory-count": ("(memory 1) (memory 1)", _wide(memories="2"), "memory count too high"),
    "start-grow": (
        "(func $eat (loop $more (br_if $more (i32.ge_s (memory.grow (i32.const 16)) (i32.const 0)))) unreachable)"
        "(start $eat)",
        _wide(),
        "memory.grow was refused before",
    ),
}


def _bomb(host: Host, name: str, core: str, limits: str) -> Path:
    text = LIFECYCLE.read_text().replace("@NAME@", f"test/{name}").replace("@SIZE@", f"{len(name) + 5:02x}")
    text = re.sub(r"^ *;; @core@$", core, text, flags=re.MULTILINE)
    source = host.out / f"{name}-source"
    source.mkdir()
    (source / "component.wasm").write_bytes(bytes(wasmtime.wat2wasm(text)))
    manifest = (GUESTS / "start-spin" / "component.toml").read_text().replace('"permanent"', '"temporary"')
    (source / "component.toml").write_text(manifest)
    return host.package(source, name=name, edit=_limits(name, limits))


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_end_themselves(shared: Host, name: str) -> None:
    """A component that takes too much while it is instantiated ends, told by its cause; nobody else notices."""
    core, limits, words = BOMBS[name]
    package = _bomb(shared, name, core, limits)
    done = shared.cli("install", str(package), "--yes", check=False)
    assert 0 != done.returncode
    ended = shared.component(f"test/{name}/0")
    assert ("trap" if "call stack" in words or "refused before" in words else "memory") == ended["outcome"]
    assert words in ended["detail"]


def test_a_guest_without_a_bomb_starts(shared: Host) -> None:
    """Positive control: the same guest with the same limits and nothing added."""
    shared.install(_bomb(shared, "harmless", "", _wide()))
    assert "hello" == shared.ask("test/harmless", "hello")


def test_the_kernels_memory_killer_ends_one_worker(shared: Host) -> None:
    """Tables, which no limit of ours counts in bytes, run into the control group: that worker ends, told as memory."""
    if not shared.status()["host"]["limits-held-by"].get("memory", [""])[-1].startswith("cgroup"):
        pytest.skip("no control group here")
    shared.install(_bomb(shared, "neighbour", "", _wide()))
    pid = shared.component("test/neighbour/0")["pid"]
    grow = " ".join(
        f"(drop (table.grow $t{n} (ref.null func) (i32.const 9999999)))"
        f"(table.fill $t{n} (i32.const 0) (ref.func $eat) (i32.const 9999999))"
        for n in range(10)
    )
    tables = " ".join(f"(table $t{n} 0 funcref)" for n in range(10))
    core = f"{tables} (elem declare func $eat) (func $eat {grow}) (start $eat)"
    limits = _wide(memory='"1MiB"', tables="100", table_elements="10_000_000")
    done = shared.cli("install", str(_bomb(shared, "table-bomb", core, limits)), "--yes", check=False)
    assert 0 != done.returncode
    ended = shared.component("test/table-bomb/0")
    assert ("memory", True) == (ended["outcome"], "memory killer" in ended["detail"])
    assert pid == shared.component("test/neighbour/0")["pid"]


# -- what the operator sees and sets ----------------------------------------------------------------------------------


def test_who_holds_which_limit_is_shown(shared: Host, probe: Callable[..., str]) -> None:
    """`info` and `status` name each limit, its value and what holds it here, in text and in JSON."""
    name = probe("shown", memory='"3MiB"')
    host = shared.status()["host"]
    assert ["engine", "RLIMIT_DATA"] == host["limits-held-by"]["memory"][:2]
    assert "RLIMIT_NPROC" in host["limits-held-by"]["processes"]
    with shared.api() as client:
        limits = {line["key"]: line for line in client.get(f"/v1/components/{name}/0")["limits"]}
    assert (3 << 20, "3MiB", host["limits-held-by"]["memory"]) == (
        limits["memory"]["value"],
        limits["memory"]["text"],
        limits["memory"]["held-by"],
    )
    assert b"limit memory 3MiB, held by engine, RLIMIT_DATA" in shared.cli("info", name).stdout
    assert b"limits that control groups hold too:" in shared.cli("status").stdout


def test_the_operators_maximum(configured: Callable[[str], Host]) -> None:
    """A manifest that asks for more than the operator allows is refused with the key's name; one at it is not."""
    host = configured('[limits]\nmemory = "8MiB"\nfuel = 1_000_000_000\n')
    host.up()
    host.trust("test/*")
    for name, limits, code in (("greedy", _wide(), 6), ("modest", _wide(memory='"8MiB"', fuel="1_000_000_000"), 0)):
        done = host.cli("install", str(_bomb(host, name, "", limits)), "--yes", check=False)
        assert code == done.returncode, done.stderr
        if code:
            assert b"E_LIMIT" in done.stderr
            assert b"limits.memory" in done.stderr


def test_a_share_of_the_processors(configured: Callable[[str], Host]) -> None:
    """`cpu-max` puts a worker under a quota of the kernel; where nobody could hold it, the host does not start."""
    host = configured("[workers]\ncpu-max = 50\ncpu-weight = 200\n")
    up = host.cli("up", "--detach", check=False)
    if up.returncode:
        assert b"cpu-max and cpu-weight need the cpu controller" in up.stderr
        return
    host.trust("test/*")
    host.install(_bomb(host, "shared", "", _wide()))
    assert host.status()["host"]["limits-held-by"]["cpu-share"][0].startswith("cgroup v")
    pid = host.component("test/shared/0")["pid"]
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    [group] = [line.split(":")[2] for line in lines if line.split(":")[1] in ("cpu", "") and "/airssys" in line]
    for root in ("/sys/fs/cgroup/cpu", "/sys/fs/cgroup"):
        for file, value in (("cpu.cfs_quota_us", "50000"), ("cpu.max", "50000 100000"), ("cpu.weight", "200")):
            path = Path(root + group) / file
            assert not path.exists() or value == path.read_text().strip()
