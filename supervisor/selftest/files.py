"""T41, T43 to T48: files that a granted directory holds, and names for them, by which a worker wants to get out.

Asked by native code in a sealed worker, so that nothing looks at the request before the bridge does. The directories
are the self-test's own. The control of each is what a program does that opens what it is told to.

T42, a cage whose building follows links that were laid out for it, has no row: building a worker walks no path.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import shutil
import signal
import socket
import stat
import time
import unicodedata
import urllib.parse
from collections.abc import Callable, Iterator
from types import TracebackType

import msgspec

from sandbox.types import Outcome
from sandbox.wire.bridge_ops import FsError, Op
from sandbox.wire.packet import HEADER, split
from supervisor.selftest import native, scene
from supervisor.selftest.attack import CaseResult, Row, Shown, Verdict, describe
from supervisor.selftest.attacks.frames import FrameAttack
from supervisor.selftest.attacks.paths import PATHS, PathAttack
from supervisor.selftest.host import HostileHost, HostileWorker
from supervisor.selftest.native import Result
from supervisor.selftest.neighbour import ask, ask_by, said
from supervisor.selftest.numbers import number
from supervisor.selftest.program import Program

ROOT = os.geteuid() == 0
RACE_SECONDS = 1.5
"""How long names are exchanged under the bridge's feet."""
_CONTROL_SECONDS = 10.0
_BLOCKED_SECONDS = 0.2
_EACH = 60
"""Reads of one program during the race."""
_HEAD = 64
_RENAME_EXCHANGE = 2
_AT_FDCWD = -100
_libc = ctypes.CDLL(None, use_errno=True)
_ALL = '["read", "write", "delete", "list"]'
FILESYSTEM = (
    f'[{{ path = "/data/**", access = {_ALL} }}, {{ path = "/second/**", access = {_ALL} }},'
    ' { path = "/ro/**", access = ["read", "list"] }, { path = "/tree/**", access = ["read", "list"] },'
    f' {{ path = "/sub/**", access = {_ALL} }}]'
)
SECRET = b"what lies outside"
_INSIDE = b"what lies inside"


class Grants:
    """A component with directories, all below one of the host's that is removed with it.

    Args:
        host: running.
        name: of the component, and of the directory.
    """

    def __init__(self, host: HostileHost, name: str = "files") -> None:
        self.base = os.path.join(host.base, name)
        self._make()
        binds = {f"/{guest}": os.path.join(self.base, guest) for guest in ("data", "second", "ro", "tree")}
        binds["/sub"] = os.path.join(self.base, "tree", "sub")
        self.worker: HostileWorker = host.worker(name, values={"filesystem": FILESYSTEM}, binds=binds)

    def path(self, *names: str) -> str:
        """A real path below the base."""
        return os.path.join(self.base, *names)

    def _make(self) -> None:
        os.makedirs(self.base)
        for name in ("data/inner", "data/swap", "second", "ro", "tree/sub", "outside", "data2"):
            os.makedirs(self.path(name))
        for name in ("outside/secret", "data2/secret", "ro/there", "tree/there"):
            self.write(name, SECRET)
        self.write("data/swap/secret", _INSIDE)
        self.write("data/there", _INSIDE)
        for name, target in {
            "link": "../outside",
            "link-to-file": self.path("outside", "secret"),
            "up": "..",
            "root": "/proc/self/root",
            "dangling": self.path("outside", "new"),
            "swapped": self.path("outside"),
        }.items():
            os.symlink(target, self.path("data", name))
        os.link(self.path("outside", "secret"), self.path("data", "second-name"))
        os.mkfifo(self.path("data", "pipe"))
        with socket.socket(socket.AF_UNIX) as listening:
            # Bound by a short name: a socket's path has 107 bytes.
            short = f"/proc/self/fd/{(fd := os.open(self.path('data'), os.O_PATH))}/socket"
            listening.bind(short)
            os.close(fd)
        if ROOT:
            os.mknod(self.path("data", "device"), 0o666 | stat.S_IFCHR, os.makedev(1, 5))
            for directory, _, files in os.walk(self.base):
                for name in (directory, *(os.path.join(directory, file) for file in files)):
                    os.chown(name, scene.UID, scene.UID, follow_symlinks=False)
        os.chmod(self.base, 0o755)  # noqa: S103 - the controls' user looks in from here

    def write(self, name: str, content: bytes) -> None:
        """A file below the base."""
        with open(self.path(name), "wb") as file:
            file.write(content)

    def unharmed(self) -> bool:
        """Whether what lies outside is as it was."""
        with open(self.path("outside", "secret"), "rb") as file:
            return file.read() == SECRET and os.listdir(self.path("outside")) == ["secret"]

    def repair(self) -> None:
        """As it was, after a control."""
        self.write("outside/secret", SECRET)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path("outside", "new"))

    def asked(self, op: int, *arguments: object) -> tuple[Verdict, str]:
        """Ask; stopped when the bridge refuses, and nothing outside has changed."""
        verdict, how = _refusal(self.worker.run(ask(op, *arguments)), op)
        return (verdict, how) if self.unharmed() else (Verdict.SUCCEEDED, "what lies outside has changed")

    def __enter__(self) -> Grants:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.worker.close()
        shutil.rmtree(self.base, ignore_errors=True)


def _refusal(result: Result, op: int) -> tuple[Verdict, str]:
    answer = said(result, op)
    if answer is None:
        return Verdict.ODD, describe(result)
    case = answer[0]
    return (Verdict.SUCCEEDED, "done") if case == 0 else (Verdict.STOPPED, FsError(case).name.lower().replace("_", "-"))


def _worked(found: object) -> tuple[Shown, str]:
    return (Shown.WORKS, "an unguarded open") if found else (Shown.FAILED, "an unguarded open does not get there")


# -- names ------------------------------------------------------------------------------------------------------------


def careless(root: str, path: bytes) -> str:
    """What a name means to a program that decodes, unifies and joins before it looks, and takes it to C afterwards."""
    text = path.replace(b"\xc0\xae", b".").decode("utf-8", "surrogateescape")
    text = unicodedata.normalize("NFKC", urllib.parse.unquote(text)).replace("\\", "/").partition("\0")[0]
    if text.startswith("/data/"):
        text = text[len("/data/") :]
    elif text.startswith("/data"):
        return root + text[len("/data") :]
    joined = os.path.join(root, text)
    return os.path.normpath(joined) if len(joined) > 4000 else joined


def _carelessly(grants: Grants, attack: PathAttack) -> bool:
    path = careless(grants.path("data"), attack.path)
    if attack.op == Op.FS_LIST and not path.startswith("/proc"):
        # O_NOFOLLOW looks at the last name, and behind a slash there is none.
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            return os.listdir(fd) == ["secret"]
        finally:
            os.close(fd)
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    os.close(fd)
    return not os.path.realpath(path).startswith(grants.path("data") + "/")


def names(grants: Grants, id_: str) -> Iterator[CaseResult]:
    """T43, T45."""
    # A name that is no text: the control needs a file that has it.
    os.symlink(grants.path("outside", "secret"), os.path.join(os.fsencode(grants.path("data")), b"\xff"))
    for attack in PATHS:
        if attack.id != id_:
            continue
        body = b"\x91\xda" + len(attack.path).to_bytes(2, "big") + attack.path
        packet = HEADER.pack(attack.op, 0, len(body)) + body
        if attack.text:
            verdict, how = _refusal(grants.worker.run(ask_by(packet)), attack.op)
        else:
            frame = FrameAttack(id_, attack.name, (packet,), "wrong arguments")
            result = grants.worker.run(frame.program(3))
            ended = result.outcome == Outcome.POLICY and frame.why in result.detail
            verdict, how = (Verdict.STOPPED, "no request: ended") if ended else (Verdict.SUCCEEDED, describe(result))
        yield CaseResult(attack.name, verdict, how, *_worked(_carelessly(grants, attack)))
    os.unlink(os.path.join(os.fsencode(grants.path("data")), b"\xff"))


# -- what lies there --------------------------------------------------------------------------------------------------


def objects(grants: Grants) -> Iterator[CaseResult]:
    """T41, without the race."""
    data = functools.partial(grants.path, "data")

    def reads(*path: str) -> bool:
        with open(data(*path), "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            return bool(file.read(8))

    def writes(name: str) -> bool:
        with open(data(name), "ab") as file:
            file.write(b"!")
        return not grants.unharmed()

    def blocks() -> bool:
        program = Program()
        program.syscall("openat", _AT_FDCWD, program.data(os.fsencode(data("pipe")) + b"\0"), 0, 0)
        return native.attempt(program, seconds=_BLOCKED_SECONDS).outcome == "deadline"

    def connects() -> bool:
        with socket.socket(socket.AF_UNIX) as sock:
            fd = os.open(data(), os.O_PATH)
            try:
                # Nobody listens any more: the kernel found the socket.
                return sock.connect_ex(f"/proc/self/fd/{fd}/socket") == 111
            finally:
                os.close(fd)

    tried: list[tuple[str, Op, tuple[object, ...], Callable[[], bool]]] = [
        ("a link to a file outside", Op.FS_READ, ("/data/link-to-file",), lambda: reads("link-to-file")),
        ("a link to a directory outside", Op.FS_READ, ("/data/link/secret",), lambda: reads("link", "secret")),
        ("a link upwards", Op.FS_READ, ("/data/up/outside/secret",), lambda: reads("up", "outside", "secret")),
        ("a link to a process's root", Op.FS_READ, ("/data/root/etc/passwd",), lambda: reads("root/etc/passwd")),
        ("a directory behind a link", Op.FS_LIST, ("/data/link",), lambda: bool(os.listdir(data("link")))),
        ("a link written to", Op.FS_WRITE, ("/data/link-to-file", b"!"), lambda: writes("link-to-file")),
        ("a link appended to", Op.FS_APPEND, ("/data/link-to-file", b"!"), lambda: writes("link-to-file")),
        ("a second name written to", Op.FS_WRITE, ("/data/second-name", b"!"), lambda: writes("second-name")),
        ("a second name appended to", Op.FS_APPEND, ("/data/second-name", b"!"), lambda: writes("second-name")),
        ("a named pipe", Op.FS_READ, ("/data/pipe",), blocks),
        ("a named pipe written to", Op.FS_APPEND, ("/data/pipe", b"!"), blocks),
        ("a socket", Op.FS_READ, ("/data/socket",), connects),
    ]
    for name, op, arguments, control in tried:
        verdict, how = grants.asked(op, *arguments)
        yield CaseResult(name, verdict, how, *_worked(control()))
        grants.repair()
    verdict, how = grants.asked(Op.FS_READ, "/data/device")
    if not ROOT:
        yield CaseResult("a device", verdict, "not tried", Shown.CANNOT, "making one needs root")
    elif os.statvfs(grants.base).f_flag & os.ST_NODEV:
        yield CaseResult("a device", verdict, how, Shown.CANNOT, "devices are off on this file system")
    else:
        yield CaseResult("a device", verdict, how, *_worked(reads("device")))


def creation(grants: Grants) -> Iterator[CaseResult]:
    """T44: what must not come to be, or be made empty, by way of a name."""
    data = functools.partial(grants.path, "data")

    def creates() -> bool:
        with open(data("dangling"), "wb"):
            pass
        return not grants.unharmed()

    def truncates() -> bool:
        with open(data("link-to-file"), "wb"):
            pass
        return not grants.unharmed()

    tried: list[tuple[str, Op, tuple[object, ...], Callable[[], bool]]] = [
        ("made through a link to nothing", Op.FS_WRITE, ("/data/dangling", b"new"), creates),
        ("made through a link to nothing, by appending", Op.FS_APPEND, ("/data/dangling", b"new"), creates),
        ("made empty through a link", Op.FS_WRITE, ("/data/link-to-file", b""), truncates),
        ("a directory made through a link", Op.FS_MAKE_DIRECTORY, ("/data/link/new",), lambda: _made(data("link/new"))),
        ("put in the place of a link", Op.FS_RENAME, ("/data/there", "/data/link/new"), creates),
        ("removed through a link", Op.FS_DELETE, ("/data/link/secret",), truncates),
    ]
    for name, op, arguments, control in tried:
        verdict, how = grants.asked(op, *arguments)
        yield CaseResult(name, verdict, how, *_worked(control()))
        grants.repair()


def _made(path: str) -> bool:
    os.mkdir(path)
    os.rmdir(path)
    return True


# -- rights -----------------------------------------------------------------------------------------------------------


def rights(grants: Grants, id_: str) -> Iterator[CaseResult]:
    """T46 to T48: the same request where it is granted is the control."""
    only_read = (
        ("written to", Op.FS_WRITE, ("/ro/there", b"!"), ("/data/a", b"!")),
        ("appended to", Op.FS_APPEND, ("/ro/there", b"!"), ("/data/a", b"!")),
        ("a new file", Op.FS_WRITE, ("/ro/new", b"!"), ("/data/b", b"!")),
        ("a new directory", Op.FS_MAKE_DIRECTORY, ("/ro/new",), ("/data/c",)),
        ("moved", Op.FS_RENAME, ("/ro/there", "/ro/gone"), ("/data/b", "/data/d")),
        ("moved out", Op.FS_RENAME, ("/ro/there", "/data/gone"), ("/data/d", "/data/e")),
        ("moved in", Op.FS_RENAME, ("/data/e", "/ro/there"), ("/data/e", "/data/f")),
        ("removed", Op.FS_DELETE, ("/ro/there",), ("/data/a",)),
    )
    overlapping = (
        ("written to by the other name", Op.FS_WRITE, ("/tree/sub/f", b"!"), ("/sub/f", b"!")),
        ("appended to by the other name", Op.FS_APPEND, ("/tree/sub/f", b"!"), ("/sub/f", b"!")),
        ("moved up", Op.FS_RENAME, ("/sub/f", "/tree/f"), ("/sub/f", "/sub/g")),
        ("moved by the other name", Op.FS_RENAME, ("/tree/sub/g", "/tree/sub/h"), ("/sub/g", "/sub/h")),
        ("removed by the other name", Op.FS_DELETE, ("/tree/sub/h",), ("/sub/h",)),
    )
    across = (
        ("from one to the other", Op.FS_RENAME, ("/data/there", "/second/there"), ("/data/there", "/data/moved")),
        ("and back", Op.FS_RENAME, ("/second/there", "/data/there"), ("/data/moved", "/data/there")),
    )
    if id_ == "T48":
        grants.write("second/there", _INSIDE)
        if ROOT:
            os.chown(grants.path("second", "there"), scene.UID, scene.UID)
    for name, op, refused, granted in {"T46": only_read, "T47": overlapping, "T48": across}[id_]:
        before = _listing(grants.base)
        verdict, how = grants.asked(op, *refused)
        if before != _listing(grants.base):
            verdict, how = Verdict.SUCCEEDED, "something has changed"
        control = said(grants.worker.run(ask(op, *granted)), op)
        works = control is not None and control[0] == 0
        yield CaseResult(
            name, verdict, how, Shown.WORKS if works else Shown.FAILED, "where it is granted" if works else str(control)
        )


def _listing(base: str) -> list[tuple[str, int, int]]:
    found = []
    for directory, directories, files in os.walk(base):
        for name in (*directories, *files):
            status = os.lstat(os.path.join(directory, name))
            found.append((os.path.join(directory, name), status.st_size, status.st_mtime_ns))
    return sorted(found)


# -- the race ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def exchanging(one: str, other: str) -> Iterator[None]:
    """Another process exchanges the two names without a pause (renameat2(2), RENAME_EXCHANGE)."""
    call, first, second, ours = number("renameat2"), os.fsencode(one), os.fsencode(other), os.getpid()
    pid = native.fork()
    if pid == 0:
        try:
            while os.getppid() == ours:
                for _ in range(1000):
                    _libc.syscall(call, _AT_FDCWD, first, _AT_FDCWD, second, _RENAME_EXCHANGE)
        finally:
            os._exit(0)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        if os.path.islink(one):
            os.rename(other, f"{other}.aside")
            os.rename(one, other)
            os.rename(f"{other}.aside", one)


def race(grants: Grants, seconds: float = RACE_SECONDS) -> CaseResult:
    """T41: a directory and a link outside change places while the bridge goes through them."""
    one, other = grants.path("data", "swap"), grants.path("data", "swapped")
    program = Program()
    packets = [
        split(op, msgspec.msgpack.encode(arguments))[0]
        for op, *arguments in (
            (Op.FS_READ, "/data/swap/secret"),
            (Op.FS_APPEND, "/data/swap/log", b"!"),
        )
    ]
    places = [(program.data(packet), len(packet)) for packet in packets]
    heads = program.room(_HEAD * _EACH * len(places))
    for turn in range(_EACH):
        for which, (place, length) in enumerate(places):
            program.syscall("sendto", 3, place, length, 0, 0, 0)
            program.syscall("recvfrom", 3, heads + _HEAD * (turn * len(places) + which), _HEAD, 0, 0, 0)
    program.answer(heads, _HEAD * _EACH * len(places))
    inside = refused = 0
    outside = False
    with exchanging(one, other):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            result = grants.worker.run(program)
            if result.answer is None:
                return CaseResult("names exchanged", Verdict.ODD, describe(result), Shown.CANNOT, "not tried")
            data = result.answer.data
            read = [data[at : at + _HEAD] for at in range(0, len(data), _HEAD * len(places))]
            inside += sum(_INSIDE in head for head in read)
            outside = outside or any(SECRET in head for head in read)
            refused = len(read) + refused - sum(_INSIDE in head for head in read)
        escaped = _loses(grants)
    name = f"a directory and a link exchanged without a pause, {seconds:g} s"
    if outside or not grants.unharmed():
        return CaseResult(name, Verdict.SUCCEEDED, "it got outside", *_worked(escaped))
    verdict = Verdict.STOPPED if inside and refused else Verdict.ODD
    return CaseResult(name, verdict, f"{inside} times inside, {refused} times refused", *_worked(escaped))


def _loses(grants: Grants) -> bool:
    """Whether the same race beats a program that looks before it opens."""
    end = time.monotonic() + _CONTROL_SECONDS
    directory = grants.path("data", "swap")
    while time.monotonic() < end:
        if not os.path.islink(directory):
            with open(os.path.join(directory, "secret"), "rb") as file:
                if file.read() == SECRET:
                    return True
    return False


TITLES = {
    "T41": (
        "links, pipes, sockets, devices and second names in a granted directory, and a race",
        ("openat2", "mounts"),
    ),
    "T43": ("names that lead out of a granted directory", ("one parser of names", "openat2")),
    "T44": ("files made, emptied or removed by way of a link", ("openat2", "O_EXCL")),
    "T45": ("a link with a slash behind it", ("one parser of names", "openat2")),
    "T46": ("what was granted for reading, changed", ("capabilities", "read-only mounts")),
    "T47": ("two grants that overlap", ("capabilities",)),
    "T48": ("moved from one grant to another", ("one place for both names",)),
}


def cases(grants: Grants, id_: str) -> tuple[CaseResult, ...]:
    """All cases of one id."""
    if id_ == "T41":
        return (*objects(grants), race(grants))
    if id_ in ("T43", "T45"):
        return tuple(names(grants, id_))
    return tuple(creation(grants) if id_ == "T44" else rights(grants, id_))


def run(
    host: HostileHost, wanted: Callable[[str], bool], progress: Callable[[str, int, int], None] = lambda *_: None
) -> Iterator[Row]:
    """The rows that are wanted; see `deputies.run`."""
    chosen = [id_ for id_ in TITLES if wanted(id_)]
    if not chosen:
        return
    with Grants(host) as grants:
        for done, id_ in enumerate(chosen):
            title, walls = TITLES[id_]
            progress(title, done, len(chosen))
            yield Row(id_, title, walls, cases(grants, id_))
