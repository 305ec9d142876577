"""A running host, looked at through /proc: every process is what ADR 1 says it is.

Nothing here asks the processes; what is asserted is what the kernel says of them while they work.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from live_host import Host

pytestmark = pytest.mark.block4_security
ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not ROOT, reason="needs root: an ordinary user's processes all share one uid")
COMPONENTS = ("test/probe/0", "test/probe/1")
CAGED = ("bridge", "auditor")
PLAIN = ("control", "router")
SERVICES = ("supervisor", "control", "router", "bridge", "auditor", "zygote")
NAMESPACES = ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup")
ZERO = "0" * 16
SUPERVISOR_CAPABILITIES = {2, 5, 6, 7, 21}
"""DAC_READ_SEARCH, KILL, SETGID, SETUID, SYS_ADMIN."""


@pytest.fixture
def pids(caged: Host) -> dict[str, int]:
    """Pid of each process, the two workers by their components' names; all of them answer."""
    for component in COMPONENTS:
        assert "hello" == caged.ask(component, "echo hello")
    return {**caged.processes(), **{component: caged.component(component)["pid"] for component in COMPONENTS}}


def status(pid: int) -> dict[str, str]:
    """/proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def limits(pid: int) -> dict[str, tuple[str, str]]:
    """/proc/PID/limits: soft and hard by name."""
    found = {}
    for line in Path(f"/proc/{pid}/limits").read_text().splitlines()[1:]:
        name, soft, hard = line[:26].strip(), *line[26:].split()[:2]
        found[name] = (soft, hard)
    return found


def namespaces(pid: int) -> dict[str, str]:
    """/proc/PID/ns."""
    return {name: os.readlink(f"/proc/{pid}/ns/{name}") for name in NAMESPACES}


def held(pid: int, name: str = "CapEff") -> set[int]:
    """Numbers of the capabilities in a set."""
    mask = int(status(pid)[name], 16)
    return {number for number in range(64) if mask >> number & 1}


# -- workers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("component", COMPONENTS)
def test_worker_status(pids: dict[str, int], component: str) -> None:
    """No capability, two filters of its own, no new privileges, one thread, first of its pid namespace, ours."""
    found = status(pids[component])
    wanted = {
        **dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), ZERO),
        "NoNewPrivs": "1",
        "Seccomp": "2",
        "Seccomp_filters": "4",
        "Threads": "1",
        "PPid": str(pids["supervisor"]),
        "CoreDumping": "0",
        "THP_enabled": "0",
        "SigBlk": ZERO,
    }
    assert wanted == {key: found.get(key) for key in wanted}
    assert re.fullmatch(rf"{pids[component]}\t1", found["NSpid"])


@pytest.mark.parametrize("component", COMPONENTS)
def test_worker_limits(pids: dict[str, int], component: str) -> None:
    """What it may not do at all is limited to nothing; memory is bounded; soft and hard alike."""
    found = limits(pids[component])
    nothing = (
        "Max file size", "Max core file size", "Max processes", "Max open files", "Max locked memory",
        "Max msgqueue size", "Max realtime priority",
    )  # fmt: skip
    assert dict.fromkeys(nothing, ("0", "0")) == {name: found[name] for name in nothing}
    assert (str(8 << 20), str(8 << 20)) == found["Max stack size"]
    assert ("16", "16") == found["Max pending signals"]
    for name in ("Max address space", "Max data size"):
        soft, hard = found[name]
        assert soft == hard
        assert int(soft) < 1 << 30


@pytest.mark.parametrize("component", COMPONENTS)
def test_worker_descriptors(pids: dict[str, int], component: str) -> None:
    """Two sockets, 3 and 4, and no third descriptor."""
    found = {fd: os.readlink(f"/proc/{pids[component]}/fd/{fd}") for fd in os.listdir(f"/proc/{pids[component]}/fd")}
    assert {"3", "4"} == set(found)
    assert all(link.startswith("socket:[") for link in found.values())
    assert 2 == len(set(found.values()))


def test_workers_share_no_channel(pids: dict[str, int]) -> None:
    """No socket of one worker is held by the other."""
    sockets = [{os.readlink(f"/proc/{pids[c]}/fd/{fd}") for fd in ("3", "4")} for c in COMPONENTS]
    assert set() == sockets[0] & sockets[1]


@pytest.mark.parametrize("component", COMPONENTS)
def test_worker_namespaces(pids: dict[str, int], component: str) -> None:
    """All seven are its own: not ours, not the zygote's, not any service's, not another worker's."""
    own = namespaces(pids[component])
    others = [name for name in pids if name != component]
    readable = [namespaces(pids[name]) for name in others if ROOT or name not in ("supervisor", *PLAIN)]
    for other in [namespaces(os.getpid()), *readable]:
        assert [] == [name for name in NAMESPACES if own[name] == other[name]]


@pytest.mark.parametrize("component", COMPONENTS)
def test_worker_root(pids: dict[str, int], component: str) -> None:
    """One mount, read-only, empty; the working directory is in it."""
    (mount,) = Path(f"/proc/{pids[component]}/mountinfo").read_text().splitlines()
    assert " / / ro," in mount
    assert " tmpfs " in mount
    assert [] == os.listdir(f"/proc/{pids[component]}/root/")
    assert "/" == os.readlink(f"/proc/{pids[component]}/cwd")


@pytest.mark.parametrize("component", COMPONENTS)
def test_worker_has_no_network(pids: dict[str, int], component: str) -> None:
    """Its network namespace has nothing in it: no traffic, no route, no socket of anybody."""
    net = Path(f"/proc/{pids[component]}/net")
    counters = [line.split(":")[1].split() for line in (net / "dev").read_text().splitlines()[2:]]
    assert {"0"} == {number for counter in counters for number in counter}, "not a byte ever came or went"
    routes = (net / "route").read_text().splitlines()[1:]
    assert [] == routes
    assert [] == (net / "unix").read_text().splitlines()[1:]
    assert [] == (net / "tcp").read_text().splitlines()[1:]


@pytest.mark.parametrize("component", COMPONENTS)
def test_worker_id_maps(pids: dict[str, int], component: str) -> None:
    """Its user namespace maps nothing: no id in it means anything."""
    assert ["", ""] == [Path(f"/proc/{pids[component]}/{name}").read_text() for name in ("uid_map", "gid_map")]


@pytest.mark.parametrize("component", COMPONENTS)
def test_worker_memory_is_never_writable_and_executable(pids: dict[str, int], component: str) -> None:
    """No mapping is both; positive control: some are one of them."""
    modes = [line.split()[1] for line in Path(f"/proc/{pids[component]}/maps").read_text().splitlines()]
    assert [] == [mode for mode in modes if "w" in mode and "x" in mode]
    assert any("w" in mode for mode in modes)
    assert any("x" in mode for mode in modes)


@needs_root
def test_uids_of_workers(pids: dict[str, int]) -> None:
    """Each worker has a uid of its own, four times, its gid alike, no group; nobody else in the host has it."""
    found = {name: status(pid) for name, pid in pids.items()}
    for component in COMPONENTS:
        uids, gids = found[component]["Uid"].split(), found[component]["Gid"].split()
        assert 1 == len({*uids, *gids})
        assert "" == found[component]["Groups"]
        assert int(uids[0]) >= 0x70000000
    uids = [state["Uid"].split()[0] for name, state in found.items() if name != "zygote"]
    assert len(uids) == len(set(uids))
    assert found["zygote"]["Uid"] == found["supervisor"]["Uid"], "the one exception, as ADR 1 says"


@pytest.mark.skipif(ROOT, reason="speaks of a host started by an ordinary user")
def test_uids_of_an_ordinary_users_host(pids: dict[str, int]) -> None:
    """Without root everybody is that user, and the host says so."""
    assert {str(os.getuid())} == {uid for pid in pids.values() for uid in status(pid)["Uid"].split()}


@needs_root
def test_worker_group(pids: dict[str, int], caged: Host) -> None:
    """Where control groups are on, each worker is in one of its own, of one process."""
    with caged.api() as client:
        walls = client.get("/v1/doctor")["walls"]
    if not walls["cgroup"].startswith("on"):
        pytest.skip(f"control groups: {walls['cgroup']}")
    found = []
    for component in COMPONENTS:
        lines = [line.split(":", 2) for line in Path(f"/proc/{pids[component]}/cgroup").read_text().splitlines()]
        groups = [
            path for _, controllers, path in lines if "pids" in controllers or (controllers == "" and "w" in path)
        ]
        found.append(next(path for path in groups if "airssys-" in path))
    assert 2 == len(set(found))
    for path in found:
        base = Path("/sys/fs/cgroup/pids" if "v1" in walls["cgroup"] else "/sys/fs/cgroup")
        assert "1" == (base / path.lstrip("/") / "pids.max").read_text().strip()


# -- what doctor shows -------------------------------------------------------------------------------------------


def test_doctor_measures_every_process(pids: dict[str, int], caged: Host) -> None:
    """What the supervisor says of each process is what /proc says, down to the namespaces it shares with nobody."""
    with caged.api() as client:
        doctor = client.get("/v1/doctor")
    found = {process["name"]: process for process in doctor["confinement"]}
    assert set(pids) == set(found)
    assert not doctor["more"]
    filters = {"supervisor": 1, **dict.fromkeys((*CAGED, *PLAIN, "zygote"), 2), **dict.fromkeys(COMPONENTS, 4)}
    for name, process in found.items():
        said, bounds = status(pids[name]), limits(pids[name])
        assert pids[name] == process["pid"]
        assert [int(said["Uid"].split()[1]), int(said["Gid"].split()[1])] == [process["uid"], process["gid"]]
        assert [said["CapEff"], said["CapBnd"]] == [process["capabilities"], process["bounding"]]
        assert filters[name] == process["filters"] == int(said["Seccomp_filters"]), name
        assert process["no-new-privileges"]
        assert [("unlimited" if v < 0 else str(v)) for v in process["limits"].values()] == [
            bounds[key][1] for key in process["limits"]
        ]
        assert process["landlock"].startswith("ABI")
        assert 11 <= process["calls"] < 200
    everything = [kind for kind in NAMESPACES if kind != "pid"]
    for name, process in found.items():
        if name in COMPONENTS:
            assert list(NAMESPACES) == process["namespaces"]
        elif name in (*CAGED, "zygote"):
            assert everything == process["namespaces"]
        else:
            assert (everything[1:] if ROOT and name in PLAIN else []) == process["namespaces"]
    empty = {name for name, process in found.items() if process["root"] == "empty"}
    assert {*CAGED, "zygote", *COMPONENTS} == empty


# -- every process of the host ------------------------------------------------------------------------------------


def test_environments_hold_no_secret(pids: dict[str, int]) -> None:
    """Nobody in the host has the environment of who started it, nor a secret in the command line."""
    for name, pid in pids.items():
        if not ROOT and name in ("supervisor", *PLAIN):
            continue  # not readable for their own user: they are not dumpable
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        if name != "supervisor":  # its initial environment stays visible there; what it hands on is what counts
            assert b"AIRSSYS" not in environment, name
            assert {b"PATH", b"LANG"} >= {part.split(b"=")[0] for part in environment.split(b"\0") if part}, name
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
        assert b"secret" not in line
        assert b".key" not in line


@pytest.mark.parametrize("name", (*CAGED, *PLAIN, "zygote"))
def test_parents(pids: dict[str, int], name: str) -> None:
    """Every process is a child of the supervisor itself."""
    assert str(pids["supervisor"]) == status(pids[name])["PPid"]


@pytest.mark.parametrize("name", (*CAGED, *PLAIN))
def test_services_hold_nothing(pids: dict[str, int], name: str) -> None:
    """No capability permitted, effective, inheritable or ambient; no new privileges; caged ones not even in reach."""
    found = status(pids[name])
    wanted = {**dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapAmb"), ZERO), "NoNewPrivs": "1"}
    if name in CAGED:
        wanted["CapBnd"] = ZERO
    assert wanted == {key: found[key] for key in wanted}


@pytest.mark.parametrize("name", CAGED)
def test_caged_services(pids: dict[str, int], name: str) -> None:
    """Bridge and auditor: an empty read-only root, namespaces of their own, no core, no new process."""
    pid = pids[name]
    assert [] == os.listdir(f"/proc/{pid}/root/")
    (mount,) = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
    assert " / / ro," in mount
    own, ours = namespaces(pid), namespaces(os.getpid())
    assert [] == [kind for kind in NAMESPACES if kind != "pid" and own[kind] == ours[kind]]
    found = limits(pid)
    assert [("0", "0")] * 2 == [found[key] for key in ("Max core file size", "Max processes")]


@needs_root
@pytest.mark.parametrize("name", PLAIN)
def test_plain_services_see_the_machine(pids: dict[str, int], name: str) -> None:
    """Positive control of the empty roots: control and router have files around them, in namespaces of their own."""
    assert [] != os.listdir(f"/proc/{pids[name]}/root/")
    own, ours = namespaces(pids[name]), namespaces(os.getpid())
    assert ["mnt", "net", "ipc", "uts", "cgroup"] == [kind for kind in NAMESPACES if own[kind] != ours[kind]]


@needs_root
def test_supervisor(pids: dict[str, int]) -> None:
    """Exactly the five capabilities ADR 1 names, the bounding set included; a uid of its own."""
    pid = pids["supervisor"]
    assert SUPERVISOR_CAPABILITIES == held(pid) == held(pid, "CapPrm") == held(pid, "CapBnd")
    assert [ZERO, ZERO] == [status(pid)[key] for key in ("CapInh", "CapAmb")]
    assert status(pid)["Uid"].split()[0] != "0"


@pytest.mark.skipif(ROOT, reason="speaks of a host started by an ordinary user")
def test_supervisor_of_an_ordinary_user(pids: dict[str, int]) -> None:
    """It holds no capability."""
    assert set() == held(pids["supervisor"])


@pytest.mark.parametrize("name", ["supervisor", *PLAIN])
def test_not_dumpable(pids: dict[str, int], name: str) -> None:
    """Files in /proc/PID belong to root, not to the process's own uid: nobody of that uid may look into it."""
    assert 0 == os.stat(f"/proc/{pids[name]}/environ").st_uid
    assert "0" != status(pids[name])["Uid"].split()[0]


@needs_root
@pytest.mark.parametrize("component", COMPONENTS)
def test_workers_are_not_dumpable(pids: dict[str, int], component: str) -> None:
    """A worker's files in /proc belong to who owns the cage, the supervisor, not to the worker's own uid."""
    owner = os.stat(f"/proc/{pids[component]}/environ").st_uid
    assert status(pids["supervisor"])["Uid"].split()[0] == str(owner)
    assert status(pids[component])["Uid"].split()[0] != str(owner)


@needs_root
def test_services_have_uids_of_their_own(pids: dict[str, int]) -> None:
    """Supervisor, control, router, bridge and auditor: five uids, groups empty."""
    found = [status(pids[name]) for name in SERVICES if name != "zygote"]
    assert 5 == len({state["Uid"] for state in found})
    assert {""} == {state["Groups"] for state in found}
    assert all(len(set(state["Uid"].split())) == 1 for state in found)
