"""Every function of `airssys:osl/filesystem`, asked by a guest and seen on the disk, with its errors and its record."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import private_mounts
import probes
import pytest
from live_host import Host, wait_until

pytestmark = pytest.mark.block8_bridge

ROOT = os.geteuid() == 0
OWNER = 54321 if ROOT else os.geteuid()
"""Who owns the bound directories; as root somebody whom no process of the host is."""
needs_root = pytest.mark.skipif(not ROOT, reason="mounting a small disk for the test needs root")
FILESYSTEM = """[
    { path = "/data/**", access = ["read", "write", "delete", "list"] },
    { path = "/ro/**", access = ["read", "list"] },
    { path = "/disk/**", access = ["read", "write", "delete", "list"] },
    { path = "/frozen/**", access = ["read", "write", "delete", "list"] },
    { path = "/narrow/*.log", access = ["read"] },
    { path = "/narrow/inbox/**", access = ["write"] },
    { path = "/narrow/outbox/**", access = ["read", "write", "delete", "list"] },
]"""


class Places:
    """The real directories behind the guest's."""

    def __init__(self, base: Path, disk: Path, frozen: Path) -> None:
        self.data, self.ro, self.narrow = base / "data", base / "ro", base / "narrow"
        self.disk, self.frozen, self.outside = disk, frozen, base / "outside"
        for place in (self.data, self.ro, self.narrow, self.outside):
            place.mkdir()
            place.chmod(0o700)
        for name in ("inbox", "outbox"):
            (self.narrow / name).mkdir()
        (self.ro / "there.txt").write_text("hello")
        (self.narrow / "a.log").write_text("log")
        (self.narrow / "a.txt").write_text("text")
        (self.outside / "secret").write_text("secret")
        (base / "data2").mkdir()
        (base / "data2" / "secret").write_text("secret")
        if ROOT:
            for top in (base, disk, frozen):
                for path in (top, *top.rglob("*")):
                    if path != base:
                        os.chown(path, OWNER, OWNER, follow_symlinks=False)


@pytest.fixture(scope="module")
def disks() -> Iterator[tuple[Path, Path] | None]:
    """As root, two small file systems that the host will see: one to fill, one mounted read-only."""
    if not ROOT:
        yield None
        return
    with private_mounts.namespace(), private_mounts.small_disk("1m") as disk, private_mounts.small_disk("64k") as ice:
        yield disk, ice


@pytest.fixture(scope="module")
def places(disks: tuple[Path, Path] | None, shared: Host) -> Places:
    """The probe is installed and these are its directories."""
    base = shared.out / "places"
    base.mkdir()
    if disks is None:
        disks = base / "disk", base / "frozen"
        for place in disks:
            place.mkdir()
    disk, frozen = disks
    (frozen / "old").write_text("ice")
    found = Places(base, disk, frozen)
    if ROOT:
        private_mounts.read_only(frozen)
    values = {"filesystem": FILESYSTEM, "message-size": '"512KiB"', **probes.OFTEN}
    places = {"data": found.data, "ro": found.ro, "narrow": found.narrow, "disk": disk, "frozen": frozen}
    binds = {f"/{guest}": place for guest, place in places.items()}
    status = probes.install(shared, probes.pack(shared, "probe", values), binds)
    assert "running" == status["state"], status
    return found


@pytest.fixture
def ask(places: Places, shared: Host) -> Iterator[Asker]:
    """Ask the probe; afterwards `/data` is empty again."""
    yield Asker(shared)
    for path in sorted(places.data.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink()


class Asker:
    """Commands to the probe, and what was recorded of the last one by the time it was answered."""

    def __init__(self, host: Host) -> None:
        self.host = host

    def __call__(self, command: str) -> str:
        """The reply."""
        return self.host.ask("test/probe", command)

    def recorded(self) -> tuple[str, str, str, str]:
        """Event, decision, object, result of the newest record in the log's file; not waited for."""
        last = (self.host.root / "lib" / "audit" / "audit.jsonl").read_text().splitlines()[-1]
        line = json.loads(last)
        assert "test/probe/0" == line["component"]
        return line["event"], line["decision"], line["object"], line["result"]


def _file(path: Path, content: str) -> None:
    """A file of the bound directory's owner."""
    path.write_text(content)
    os.chown(path, OWNER, OWNER)


def _directory(path: Path) -> None:
    path.mkdir()
    os.chown(path, OWNER, OWNER)


# -- each function --------------------------------------------------------------------------------------------


def test_read(ask: Asker, places: Places) -> None:
    """The whole file as it is on the disk; recorded when the answer comes."""
    (places.data / "f").write_text("content\n")
    assert "content\n" == ask("read /data/f")
    assert ("fs.read", "allowed", "/data/f", "ok") == ask.recorded()
    assert "hello" == ask("read /ro/there.txt")
    assert "error not-found: /data/none: no such file or directory" == ask("read /data/none")
    assert ("fs.read", "allowed", "/data/none", "not-found") == ask.recorded()
    assert ask("read /data").startswith("error is-a-directory: /data:")
    assert ask("read /data/f/below").startswith("error not-a-directory: ")


def test_read_range(ask: Asker, places: Places) -> None:
    """Exactly the bytes asked for; fewer at the end, none past it; a length beyond one call is refused."""
    (places.data / "f").write_text("0123456789")
    expected = {"0 4": "0123", "4 100": "456789", "9 1": "9", "10 5": "", f"{1 << 40} 5": "", "3 0": ""}
    assert expected == {part: ask(f"range /data/f {part}") for part in expected}
    assert ("fs.read", "allowed", "/data/f", "ok") == ask.recorded()
    assert ask(f"range /data/f 0 {(8 << 20) + 1}").startswith("error too-large: /data/f:")
    assert ("fs.read", "allowed", "/data/f", "too-large") == ask.recorded()
    assert "" == ask(f"range /data/f {(1 << 64) - 1} 1")


def test_write(ask: Asker, places: Places) -> None:
    """A file is made, then replaced as a whole by a new one; nothing else appears beside it."""
    assert "ok" == ask("write /data/f first")
    assert ("fs.write", "allowed", "/data/f", "ok") == ask.recorded()
    assert "first" == (places.data / "f").read_text()
    before = (places.data / "f").stat().st_ino
    with open(places.data / "f") as reader:
        assert "ok" == ask("write /data/f second and longer")
        assert "first" == reader.read()  # who had it open goes on seeing the old content
    assert "second and longer" == (places.data / "f").read_text()
    assert before != (places.data / "f").stat().st_ino
    assert "ok" == ask("write /data/f ")
    assert b"" == (places.data / "f").read_bytes()
    assert ["f"] == os.listdir(places.data)


def test_write_errors(ask: Asker, places: Places) -> None:
    """A directory is not replaced, a missing parent is not made."""
    _directory(places.data / "d")
    _file(places.data / "f", "x")
    assert ask("write /data/d x").startswith("error is-a-directory: /data/d:")
    assert ask("write /data/none/f x").startswith("error not-found: /data/none/f:")
    assert ask("write /data/f/f x").startswith("error not-a-directory: /data/f/f:")
    assert ask("write /data x").startswith("error denied: /data:")
    assert ["d", "f"] == sorted(os.listdir(places.data))
    assert "x" == (places.data / "f").read_text()


def test_append(ask: Asker, places: Places) -> None:
    """Adds to the end, in the same file; makes it where there is none."""
    assert "ok" == ask("append /data/f one")
    before = (places.data / "f").stat().st_ino
    assert "ok" == ask("append /data/f  two")
    assert ("fs.append", "allowed", "/data/f", "ok") == ask.recorded()
    assert "one two" == (places.data / "f").read_text()
    assert before == (places.data / "f").stat().st_ino
    assert ask("append /data/none/f x").startswith("error not-found")
    assert ask("append /data x").startswith("error denied")


def test_delete(ask: Asker, places: Places) -> None:
    """Removes a file or an empty directory, nothing else."""
    _file(places.data / "f", "x")
    for name in ("empty", "full"):
        _directory(places.data / name)
    _file(places.data / "full" / "f", "x")
    assert "ok" == ask("delete /data/f")
    assert ("fs.delete", "allowed", "/data/f", "ok") == ask.recorded()
    assert "ok" == ask("delete /data/empty")
    assert ask("delete /data/full").startswith("error not-empty: /data/full:")
    assert ask("delete /data/f").startswith("error not-found: /data/f:")
    assert ask("delete /data").startswith("error denied: /data:")
    assert ["full"] == os.listdir(places.data)


def test_make_directory(ask: Asker, places: Places) -> None:
    """Makes one directory, not its parents, and not what is there."""
    assert "ok" == ask("mkdir /data/d")
    assert ("fs.make-directory", "allowed", "/data/d", "ok") == ask.recorded()
    assert (places.data / "d").is_dir()
    assert ask("mkdir /data/d").startswith("error already-exists: /data/d:")
    assert ask("mkdir /data").startswith("error already-exists: /data:")
    assert ask("mkdir /data/no/such").startswith("error not-found: /data/no/such:")
    assert "ok" == ask("write /data/d/f x")
    assert ask("mkdir /data/d/f").startswith("error already-exists")
    assert ask("mkdir /data/d/f/g").startswith("error not-a-directory")


def test_list(ask: Asker, places: Places) -> None:
    """Names, kinds and sizes, sorted; what is neither file nor directory is `other`; the bridge's own are not shown."""
    (places.data / "b").write_text("12345")
    (places.data / "a").mkdir()
    (places.data / "Z").write_text("")
    (places.data / "link").symlink_to("b")
    (places.data / ".airssys-0123456789abcdef").write_text("half")
    os.mkfifo(places.data / "pipe")
    assert "Z file 0\na directory 0\nb file 5\nlink other 0\npipe other 0" == ask("list /data")
    assert ("fs.list", "allowed", "/data", "ok") == ask.recorded()
    assert "there.txt file 5" == ask("list /ro")
    assert ask("list /data/b").startswith("error not-a-directory: /data/b:")
    assert ask("list /data/none").startswith("error not-found: /data/none:")


def test_stat(ask: Asker, places: Places) -> None:
    """Kind, size and time to the nanosecond; of a link itself, never of what it points to."""
    (places.data / "f").write_text("1234567")
    os.utime(places.data / "f", ns=(0, 1_700_000_000_123_456_789))
    (places.data / "link").symlink_to("f")
    (places.data / "d").mkdir()
    assert "file 7 1700000000 123456789" == ask("stat /data/f")
    assert ("fs.stat", "allowed", "/data/f", "ok") == ask.recorded()
    assert ask("stat /data/d").startswith("directory 0 ")
    assert ask("stat /data/link").startswith("other 0 ")
    assert ask("stat /data").startswith("directory 0 ")
    assert ask("stat /data/none").startswith("error not-found: /data/none:")


def test_rename(ask: Asker, places: Places) -> None:
    """Moves a file or a directory with all in it, replaces a file, and nothing across places."""
    assert "ok" == ask("write /data/a A")
    assert "ok" == ask("write /data/b B")
    assert "ok" == ask("rename /data/a /data/b")
    assert ("fs.rename", "allowed", "/data/a", "ok") == ask.recorded()
    assert ("A", ["b"]) == ((places.data / "b").read_text(), os.listdir(places.data))
    assert "ok" == ask("mkdir /data/d")
    assert "ok" == ask("rename /data/b /data/d/b")
    assert "ok" == ask("rename /data/d /data/e")
    assert "A" == (places.data / "e" / "b").read_text()
    assert "ok" == ask("mkdir /data/g")
    assert ask("rename /data/g /data/e").startswith("error not-empty")
    assert ask("rename /data/e/b /data/g").startswith("error is-a-directory")
    assert ask("rename /data/none /data/x").startswith("error not-found")
    assert ask("rename /data/e /data/e/below").startswith("error invalid-path")
    assert ask("rename /data/e/b /disk/b").startswith("error denied")
    assert ask("rename /data/e/b /ro/b").startswith("error denied")
    assert ask("rename /ro/there.txt /data/t").startswith("error denied")
    assert ("fs.rename", "denied", "/ro/there.txt", "denied") == ask.recorded()
    assert "A" == (places.data / "e" / "b").read_text()


# -- rights ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    ["write /ro/there.txt x", "append /ro/there.txt x", "write /ro/new x", "delete /ro/there.txt", "mkdir /ro/d"],
)
def test_granted_read_only(ask: Asker, places: Places, command: str) -> None:
    """What was granted for reading is not changed in any way, and the attempt is on the record."""
    assert ask(command).startswith("error denied: /ro/")
    assert ("denied", "denied") == ask.recorded()[1::2]
    assert [("there.txt", "hello")] == [(path.name, path.read_text()) for path in places.ro.iterdir()]


@needs_root
def test_bound_read_only(ask: Asker, places: Places) -> None:
    """A place that is mounted read-only says so, whatever the grant allows."""
    assert "ice" == ask("read /frozen/old")
    for command in ("write /frozen/old x", "append /frozen/old x", "write /frozen/new x", "mkdir /frozen/d"):
        assert ask(command).startswith("error read-only: /frozen/"), command
    assert ask("delete /frozen/old").startswith("error read-only: /frozen/old:")
    assert "ice" == (places.frozen / "old").read_text()


@pytest.mark.parametrize(
    "path",
    ["/data2", "/data2/secret", "/dat", "/data-/x", "/", "/etc/passwd", "/outside/secret", "/proc/self/environ"],
)
def test_outside_every_grant(ask: Asker, places: Places, path: str) -> None:
    """No name outside the grants means anything, siblings that share a prefix included; all of it is recorded."""
    for command in (f"read {path}", f"write {path} x", f"list {path}", f"stat {path}", f"delete {path}"):
        assert ask(command).startswith(f"error denied: {path}: no capability covers"), command
        assert ("denied", path, "denied") == ask.recorded()[1:]
    assert "hello" == ask("read /ro/there.txt")


@pytest.mark.parametrize(
    "path",
    [
        "",
        "data/f",
        "/data/../ro/there.txt",
        "/data/./f",
        "/data//f",
        "/data/",
        "/data/..",
        "/data/a\x00b",
        "/data/a\nb",
    ],
)
def test_malformed_paths(ask: Asker, places: Places, path: str) -> None:
    """A malformed path is told as such, reaches nothing and ends nobody."""
    worker = ask.host.component("test/probe/0")["pid"]
    assert ask(f"read {path}").startswith("error invalid-path: ")
    assert ("denied", "invalid-path") == ask.recorded()[1::2]
    assert ask(f"write {path} x").startswith("error invalid-path: ")
    assert [] == os.listdir(places.data)
    assert worker == ask.host.component("test/probe/0")["pid"]


def test_long_names(ask: Asker, places: Places) -> None:
    """A name of 255 bytes is the longest a file can have."""
    assert "ok" == ask(f"write /data/{'n' * 255} x")
    assert ask(f"write /data/{'n' * 256} x").startswith("error invalid-path")
    assert ask("write /data/.airssys-mine x").startswith("error invalid-path")  # the host's own names


def test_narrow_patterns(ask: Asker, places: Places) -> None:
    """Within one place each right reaches as far as its pattern; a rename gives none that was not there."""
    assert "log" == ask("read /narrow/a.log")
    assert ask("read /narrow/a.txt").startswith("error denied")
    assert ask("list /narrow").startswith("error denied")
    assert "ok" == ask("write /narrow/inbox/f x")
    assert ask("read /narrow/inbox/f").startswith("error denied")
    assert ask("rename /narrow/inbox/f /narrow/outbox/f").startswith("error denied")
    assert "ok" == ask("write /narrow/outbox/f x")
    assert ask("rename /narrow/outbox/f /narrow/b.log").startswith("error denied")
    assert "ok" == ask("rename /narrow/outbox/f /narrow/inbox/g")
    assert {"f", "g"} == set(os.listdir(places.narrow / "inbox"))


# -- what lies in the directory -------------------------------------------------------------------------------


def test_symbolic_links(ask: Asker, places: Places) -> None:
    """No link is followed, inside or outside, as the last part or on the way; none is replaced or removed."""
    _file(places.data / "real", "real")
    links: dict[str, str | Path] = {
        "in": "real",
        "out": places.outside / "secret",
        "dir": places.outside,
        "none": places.outside / "new",
    }
    for name, target in links.items():
        (places.data / name).symlink_to(target)
    for path in ("/data/in", "/data/out", "/data/dir/secret", "/data/none"):
        for command in (f"read {path}", f"write {path} x", f"append {path} x", f"delete {path}"):
            assert ask(command).startswith(f"error denied: {path}:"), command
        assert ("denied", path, "denied") == ask.recorded()[1:]
    assert ask("list /data/dir").startswith("error denied")
    assert ask("mkdir /data/dir/d").startswith("error denied")
    assert ask("rename /data/in /data/moved").startswith("error denied")
    assert ask("rename /data/real /data/in").startswith("error denied")
    assert "real" == ask("read /data/real")
    assert ["secret"] == os.listdir(places.outside)
    assert "secret" == (places.outside / "secret").read_text()
    assert {"real", *links} == set(os.listdir(places.data))


def test_fifo(ask: Asker, places: Places) -> None:
    """A pipe is neither opened nor waited for."""
    os.mkfifo(places.data / "pipe")
    for command in ("read /data/pipe", "write /data/pipe x", "append /data/pipe x", "range /data/pipe 0 1"):
        assert ask(command).startswith("error invalid-path: /data/pipe:"), command
    assert ask("stat /data/pipe").startswith("other 0 ")


def test_hard_link(ask: Asker, places: Places) -> None:
    """A file that has a second name elsewhere is read but not changed; removing the name leaves the other."""
    os.link(places.outside / "secret", places.data / "second")
    assert "secret" == ask("read /data/second")
    for command in ("write /data/second x", "append /data/second x"):
        assert ask(command).startswith("error denied: /data/second: the file has more than one hard link")
    assert "secret" == (places.outside / "secret").read_text()
    assert "ok" == ask("delete /data/second")
    assert "secret" == (places.outside / "secret").read_text()
    assert "ok" == ask("write /data/second x")  # positive control: the name, not the place, was refused


def test_swapped_directory(ask: Asker, places: Places) -> None:
    """Renaming the bound directory itself changes nothing for who holds it; its old name means nothing."""
    moved = places.data.with_name("moved")
    places.data.rename(moved)
    try:
        places.data.symlink_to(places.outside)
        assert "ok" == ask("write /data/f x")
        assert ["f"] == os.listdir(moved)
        assert ask("read /data/secret").startswith("error not-found")
    finally:
        places.data.unlink()
        moved.rename(places.data)


def test_ownership(ask: Asker, places: Places) -> None:
    """What the guest makes belongs to the owner of the bound directory, and is theirs alone."""
    assert "ok" == ask("mkdir /data/d")
    assert "ok" == ask("write /data/d/f x")
    assert "ok" == ask("append /data/d/g x")
    for name, mode in (("d", 0o700), ("d/f", 0o600), ("d/g", 0o600)):
        status = (places.data / name).stat()
        assert (OWNER, mode) == (status.st_uid, status.st_mode & 0o7777), name


@pytest.mark.skipif(not ROOT, reason="files of another owner can only be made by root")
def test_files_of_others(ask: Asker, places: Places) -> None:
    """Where the bound directory holds another user's file, only what that user lets everybody do is done."""
    for name, mode in (("closed", 0o600), ("open", 0o644)):
        (places.data / name).write_text("theirs")
        (places.data / name).chmod(mode)
        os.chown(places.data / name, OWNER + 1, OWNER + 1)
    assert ask("read /data/closed").startswith("error denied: /data/closed:")
    assert "theirs" == ask("read /data/open")
    for command in ("append /data/open x", "write /data/open x", "delete /data/open", "rename /data/open /data/mine"):
        assert ask(command).startswith("error denied: /data/open:"), command
    assert {"closed", "open"} == set(os.listdir(places.data))


# -- sizes and a full disk ------------------------------------------------------------------------------------


def test_large_files(ask: Asker, places: Places) -> None:
    """A file larger than a message is read in ranges; one of more than 8 MiB is not read as a whole."""
    body = os.urandom(4).hex() * (40 << 10)  # 320 KiB
    assert "ok" == ask(f"write /data/f {body}")
    assert body == (places.data / "f").read_text()
    assert body == ask("read /data/f")
    assert body[300_000:300_100] == ask("range /data/f 300000 100")
    os.truncate(places.data / "f", (8 << 20) + 1)
    assert ask("read /data/f").startswith("error too-large: /data/f:")
    assert "\0" * 10 == ask(f"range /data/f {8 << 20} 10")[:1] * 10


@needs_root
def test_full_disk(ask: Asker, places: Places) -> None:
    """On a full disk a write says no-space and leaves the old content; nothing half written stays; room helps."""
    assert "ok" == ask("write /disk/f old")
    assert "ok" == ask("write /disk/log old")
    filler = private_mounts.fill(places.disk)
    big = "x" * 65536
    assert ask(f"write /disk/f {big}").startswith("error no-space: /disk/f:")
    assert ("fs.write", "allowed", "/disk/f", "no-space") == ask.recorded()
    assert ask(f"append /disk/log {big}").startswith("error no-space: /disk/log:")
    assert ("old", "old") == ((places.disk / "f").read_text(), (places.disk / "log").read_text())
    assert {"f", "log", "filler"} == set(os.listdir(places.disk))
    filler.unlink()
    assert "ok" == ask(f"write /disk/f {big}")
    assert "ok" == ask(f"append /disk/log {big}")
    assert ("x" * 65536, "old" + "x" * 65536) == ((places.disk / "f").read_text(), (places.disk / "log").read_text())


# -- the record -----------------------------------------------------------------------------------------------


def test_no_answer_before_the_record(ask: Asker, places: Places) -> None:
    """While nothing can be recorded nothing is answered; then both happen."""
    host = ask.host
    auditor = host.processes()["auditor"]
    (places.data / "f").write_text("content")
    os.kill(auditor, signal.SIGSTOP)
    try:
        assert "E_TIMEOUT" == host.fail("test/probe", "read /data/f", seconds=0.5).code
    finally:
        os.kill(auditor, signal.SIGCONT)
    assert "content" == ask("read /data/f")
    assert 2 == sum(r["event"] == "fs.read" and r["object"] == "/data/f" for r in host.audit("test/probe")[-2:])


def test_changed_binding(ask: Asker, places: Places) -> None:
    """Installed again with another directory, the guest sees that one and nothing of the first."""
    host = ask.host
    values = {"filesystem": '[{ path = "/data/**", access = ["read"] }]', **probes.OFTEN}
    package = probes.pack(host, "moving", values)
    for place, content in ((places.ro, "hello"), (places.outside, "not here")):
        (place / "there.txt").write_text(content)
        probes.install(host, package, {"/data": place})
        assert content == host.ask("test/moving", "read /data/there.txt")
    assert host.ask("test/moving", "read /data/secret") == "secret"
    (places.outside / "there.txt").unlink()
    with host.api() as client:
        client.delete("/v1/components/test/moving/0", purge=True)
    wait_until("its end", lambda: "test/moving/0" not in [c["id"] for c in host.status()["components"]])
