"""The example components: built as committed, importing what they should, and doing what their sources say.

They run here in this process with a host of Python functions: messages are queued and handed over one at a time, files
and storage are dictionaries.
"""

from __future__ import annotations

import importlib.util
import ipaddress
import json
import re
import subprocess
import sys
import tomllib
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import wasmtime
from hypothesis import given
from hypothesis import strategies as st
from typed_guest import TypedGuest, case_of, component_message, config, error
from wasmtime import component as wt

from sandbox import contract
from sandbox.abi.types import Err
from sandbox.bindings import airssys_core as core
from sandbox.bindings import airssys_osl as osl

pytestmark = pytest.mark.block10_sdk

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples/logclean"
LOGS = EXAMPLE / "logs"
TYPES_ONLY: dict[str, list[str]] = {"airssys:core/errors@1.0.0": [], "airssys:core/types@1.0.0": []}
IMPORTS = {
    "reader": {
        "airssys:core/host-messaging@1.0.0": ["request"],
        "airssys:osl/filesystem@0.1.0": ["list", "read-range"],
    },
    "redactor": {
        "airssys:core/storage@1.0.0": ["get", "set"],
        "airssys:osl/filesystem@0.1.0": ["append", "write"],
    },
    "thief": {
        "airssys:core/host-messaging@1.0.0": ["send"],
        "airssys:osl/filesystem@0.1.0": ["read", "write"],
    },
}
OPERATIONS = {"reader": ["clean", "status"], "redactor": ["report", "reset"], "thief": ["format", "steal"]}
FILESYSTEM_ERROR = "airssys:osl/filesystem@0.1.0#filesystem-error"
IPV4 = re.compile(r"(?<!\d)(?:\d{1,3}\.){3}\d{1,3}(?!\d)")
EMAIL = re.compile(r"[\w.+-]+(?:@|%40)[\w-]+\.[\w.-]+")
PERSONAL = [
    IPV4,
    EMAIL,
    re.compile(r"2001:db8"),
    re.compile(r"(?=[A-Za-z_-]*\d)[A-Za-z0-9_-]{32,}"),
    re.compile(r"eyJ"),
    re.compile(r"hunter2|correct-horse|s3cr3t"),
    re.compile(r"\?\w"),
]


# -- a host in this process -----------------------------------------------------------------------------------------


def component_id(text: str) -> core.ComponentId:
    return core.ComponentId(*text.split("/"), "0")


class Guest:
    """One instance of an example component."""

    def __init__(self, town: Town, name: str, memory: int) -> None:
        self.name = f"acme/{name}"
        self.store = wasmtime.Store(town.engine)
        self.store.set_limits(memory_size=memory)
        self.store.set_fuel(town.fuel)
        built = wt.Component(town.engine, (EXAMPLE / name / "component.wasm").read_bytes())
        self._guest = TypedGuest(self.store, built, lambda interface, item: self._bound(town, f"{interface}#{item}"))
        self.call = self._guest.call
        assert self.call("initialize", config(memory)) is None

    def _bound(self, town: Town, name: str) -> Callable[..., Any] | None:
        function = town.functions.get(name)
        return None if function is None else lambda *arguments: function(self.name, *arguments)

    def fuel_used(self, town: Town) -> int:
        used = town.fuel - self.store.get_fuel()
        self.store.set_fuel(town.fuel)
        return used


class Town:
    """Components that can reach each other, over files in a dictionary. `allow` decides what the walls would."""

    fuel = 10_000_000_000

    def __init__(self, files: dict[str, bytes], *, memory: int = 16 << 20) -> None:
        config = wasmtime.Config()
        config.consume_fuel = True
        self.engine = wasmtime.Engine(config)
        self.files = files
        self.kept: dict[tuple[str, str], bytes] = {}
        self.memory = memory
        self.guests: dict[str, Guest] = {}
        self.queue: deque[tuple[str, str, str, bytes]] = deque()  # correlation, asker, target, payload
        self.asked = 0
        self.broken: str | None = None  # a filesystem-error case that every file call answers
        self.reachable = True
        self.sizes: list[int] = []
        core, osl = "airssys:core/", "airssys:osl/filesystem@0.1.0#"
        self.functions: dict[str, Callable[..., Any]] = {
            f"{core}host-messaging@1.0.0#request": self._request,
            f"{core}host-messaging@1.0.0#send": self._send,
            f"{core}storage@1.0.0#get": lambda who, key: self.kept.get((who, key)),
            f"{core}storage@1.0.0#set": lambda who, key, value: self.kept.update({(who, key): value}),
            f"{osl}list": self._list,
            f"{osl}read": self._read,
            f"{osl}read-range": lambda who, path, offset, length: self._cut(self._read(who, path), offset, length),
            f"{osl}write": self._write,
            f"{osl}append": lambda who, path, data: self._write(who, path, self.files.get(path, b"") + data),
        }

    def start(self, name: str) -> Guest:
        guest = self.guests[f"acme/{name}"] = Guest(self, name, self.memory)
        return guest

    # what the guests import

    def _request(self, who: str, target: Any, payload: bytes, _timeout: int) -> Any:
        if not self.reachable:
            return Err(core.MessagingErrorDeliveryFailed("denied"))
        self.asked += 1
        self.sizes.append(len(payload))
        self.queue.append((f"{self.asked:032x}", who, f"{target.namespace}/{target.name}", payload))
        return f"{self.asked:032x}"

    def _send(self, _who: str, target: Any, _payload: bytes) -> Any:
        return None if self.reachable else Err(core.MessagingErrorDeliveryFailed("denied"))

    def _list(self, _who: str, path: str) -> Any:
        if self.broken:
            return error(FILESYSTEM_ERROR, self.broken, path)
        below = sorted(name for name in self.files if name.startswith(path + "/"))
        entries = [osl.DirEntry(name.rsplit("/", 1)[1], osl.NodeKind.FILE, len(self.files[name])) for name in below]
        entries += [
            osl.DirEntry("archive.log", osl.NodeKind.DIRECTORY, 0),
            osl.DirEntry("passwd-link", osl.NodeKind.OTHER, 0),
            osl.DirEntry("odd.log", osl.NodeKind.OTHER, 0),
        ]
        return sorted(entries, key=lambda entry: entry.name)

    def _read(self, _who: str, path: str) -> Any:
        if self.broken:
            return error(FILESYSTEM_ERROR, self.broken, path)
        return self.files[path] if path in self.files else Err(osl.FilesystemErrorNotFound(path))

    def _cut(self, data: Any, offset: int, length: int) -> Any:
        return data[offset : offset + length] if isinstance(data, bytes) else data

    def _write(self, _who: str, path: str, data: bytes) -> Any:
        if self.broken:
            return error(FILESYSTEM_ERROR, self.broken, path)
        self.files[path] = data
        return None

    # messages

    def deliver(self, target: str, payload: bytes, *, sender: str = "host/operator") -> Any:
        message = component_message(component_id(sender), payload)
        return self.guests[target].call("handle-message", message)

    def settle(self) -> None:
        """Hand over every queued request and its answer."""
        while self.queue:
            correlation, asker, target, payload = self.queue.popleft()
            answer = self.deliver(target, payload, sender=asker)
            failed = isinstance(answer, Err)
            body = json.dumps({"error": "guest-error", "message": answer.value.value}).encode() if failed else answer
            kind = "application/vnd.airssys.error+json" if failed else None
            self.callback(asker, target, body, correlation, kind)

    def callback(self, asker: str, sender: str, payload: bytes, correlation: str, kind: str | None) -> None:
        message = component_message(component_id(sender), payload, correlation, kind)
        assert self.guests[asker].call("handle-callback", message) is None

    def json(self, target: str, payload: bytes) -> Any:
        return json.loads(self.deliver(target, payload))


def sample_logs() -> dict[str, bytes]:
    return {f"/logs/{path.name}": path.read_bytes() for path in sorted(LOGS.glob("*.log"))}


def cleaning(files: dict[str, bytes], command: bytes = b"clean") -> Town:
    """Reader and redactor, run over `files` to the end."""
    town = Town(dict(files))
    town.start("reader")
    town.start("redactor")
    count = sum(name.startswith("/logs/") for name in files)
    assert {"started": True, "files": count} == town.json("acme/reader", command)
    town.settle()
    return town


def redacted(line: str) -> str:
    """One line through the redactor."""
    town = Town({})
    town.start("redactor")
    assert b"ok" == town.deliver("acme/redactor", b"file a.log\n" + line.encode() + b"\n", sender="acme/reader")
    return town.files["/out/a.log"].decode().removesuffix("\n")


# -- what is committed ----------------------------------------------------------------------------------------------


def test_rebuilding_gives_the_committed_bytes() -> None:
    """The committed components are what the committed sources compile to."""
    if importlib.util.find_spec("ziglang") is None:
        pytest.skip("ziglang is not installed")
    argv = [sys.executable, str(ROOT / "scripts/build-guests"), "--check"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (0, "") == (done.returncode, done.stderr)


@pytest.mark.parametrize("name", IMPORTS)
def test_components_are_small_and_import_what_they_use(name: str) -> None:
    """Less than 20 KB, and exactly the functions the source calls."""
    wasm = (EXAMPLE / name / "component.wasm").read_bytes()
    assert len(wasm) < 20_000
    assert len((EXAMPLE / name / "template.wasm").read_bytes()) <= 13 * 1024
    engine = wasmtime.Engine()
    facts = contract.check_component(wt.Component(engine, wasm).type, engine)
    assert dict(sorted((TYPES_ONLY | IMPORTS[name]).items())) == facts.imports
    assert [contract.LIFECYCLE] == facts.exports


@pytest.mark.parametrize("name", IMPORTS)
def test_no_paths_of_the_building_machine(name: str) -> None:
    """Nothing in the binaries says where they were built."""
    for file in ("component.wasm", "template.wasm"):
        data = (EXAMPLE / name / file).read_bytes()
        assert [] == [
            hint for hint in (b"/home", b"/tmp", b"/usr", b"/root", b".zig-cache", b"component.c") if hint in data
        ]


@pytest.mark.parametrize("name", IMPORTS)
def test_lifecycle_functions_answer(name: str) -> None:
    """initialize, metadata, health, handle-callback and shutdown work in each component."""
    guest = Town({}).start(name)
    about = guest.call("metadata")
    assert (f"acme/{name}", "1.0.0") == (about.name, about.version)
    assert OPERATIONS[name] == about.supported_operations
    assert core.HealthStatus.HEALTHY == guest.call("health")
    town = Town({})
    town.start(name)
    town.callback(f"acme/{name}", "acme/nobody", b"late", "0" * 32, None)
    assert guest.call("shutdown") is None


def test_sample_logs_are_made_up() -> None:
    """Addresses in the samples are documentation ranges, e-mail is below example domains."""
    networks = [ipaddress.ip_network(net) for net in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24")]
    for name, data in sample_logs().items():
        for found in IPV4.findall(data.decode()):
            assert any(ipaddress.ip_address(found) in net for net in networks), (name, found)
        for found in EMAIL.findall(data.decode()):
            assert re.search(r"example\.(com|org|net)\Z", found), (name, found)
    assert "/etc/passwd" == str((LOGS / "passwd-link").readlink())


# -- reader and redactor --------------------------------------------------------------------------------------------


def test_sample_logs_come_out_clean() -> None:
    """No address, e-mail, token or query survives, and every line is still there."""
    logs = sample_logs()
    town = cleaning(logs)
    lines = sum(len(data.splitlines()) for data in logs.values())
    size = sum(len(data) for data in logs.values())
    expected = {"state": "done", "files": len(logs), "lines": lines, "bytes": size, "cut": 0, "error": ""}
    assert expected == town.json("acme/reader", b"status")
    report = town.json("acme/redactor", b"report")
    assert (len(logs), lines) == (report["files"], report["lines"])
    for kind, marker in (("ips", "[ip]"), ("emails", "[email]"), ("tokens", "[token]"), ("queries", "?[query]")):
        assert report[kind] == sum(town.files[f"/out/{name[6:]}"].decode().count(marker) for name in logs)
        assert report[kind] > 10
    for name, data in logs.items():
        clean = town.files[f"/out/{name[6:]}"].decode()
        assert len(data.splitlines()) == len(clean.splitlines())
        for pattern in PERSONAL:
            assert [] == pattern.findall(clean)
    everything = b"".join(logs.values()).decode()
    for pattern in PERSONAL:
        assert pattern.search(everything), "positive control: the originals have some of each"


def test_a_second_run_replaces_the_first() -> None:
    """Files are made anew, not added to; counts go on until they are reset."""
    town = cleaning(sample_logs())
    first = {name: data for name, data in town.files.items() if name.startswith("/out/")}
    counts = town.json("acme/redactor", b"report")
    town.deliver("acme/reader", b"clean")
    town.settle()
    assert first == {name: data for name, data in town.files.items() if name.startswith("/out/")}
    assert {kind: 2 * count for kind, count in counts.items()} == town.json("acme/redactor", b"report")
    assert b"ok" == town.deliver("acme/redactor", b"reset")
    assert dict.fromkeys(counts, 0) == town.json("acme/redactor", b"report")


def test_large_files_go_in_bounded_batches() -> None:
    """Batches end at line ends, at most 256 KiB, whatever falls on a chunk's border; nothing is lost or doubled."""
    lines = [f"{n} " + "x" * (n * 37 % 800) for n in range(2000)]
    body = "\n".join(lines).encode()
    town = cleaning({"/logs/big.log": body, "/logs/empty.log": b"", "/logs/nl.log": b"\n"})
    assert body.count(b"\n") * 100 < len(body)
    assert [] == [size for size in town.sizes if size > 256 * 1024]
    assert len(town.sizes) > 5
    assert body + b"\n" == town.files["/out/big.log"]
    assert (b"", b"\n") == (town.files["/out/empty.log"], town.files["/out/nl.log"])
    assert 2001 == town.json("acme/reader", b"status")["lines"]


@pytest.mark.parametrize("size", [65_535, 65_536, 65_537, 200_000, 400_000])
def test_long_lines_are_cut_and_counted(size: int) -> None:
    """A line that does not fit a chunk of 64 KiB is cut at its last space; the lines around it stay whole."""
    long = (b"word " * 100_000)[: size - 1] + b"."
    town = cleaning({"/logs/a.log": b"before\n" + long + b"\nafter\n"})
    out = town.files["/out/a.log"].splitlines()
    fits = size < 65_536
    assert (b"before", 3, b"after") == (out[0], len(out), out[2])
    assert long.startswith(out[1].rstrip())
    assert fits == (len(out[1]) == size)
    assert int(not fits) == town.json("acme/reader", b"status")["cut"]


def test_addresses_at_a_cut_are_not_split() -> None:
    """What straddles the place where a long line is cut is left out whole, not half."""
    for shift in range(14):
        line = b"a" * (65_536 - 8 - shift) + b" 192.0.2.123 " + b"b" * 70_000
        out = cleaning({"/logs/a.log": line + b"\n"}).files["/out/a.log"]
        assert b"192" not in out


def test_clean_with_a_directory_and_wrong_commands() -> None:
    """`clean /logs/sub` reads there; anything else is an error that says what is expected."""
    town = cleaning({"/logs/sub/a.log": b"x\n"}, b"clean /logs/sub")
    assert b"x\n" == town.files["/out/a.log"]
    for target, payload in (("acme/reader", b""), ("acme/reader", b"clean x"), ("acme/redactor", b"file a.log\nx\n")):
        answer = town.deliver(target, payload)
        assert ("runtime-error", True) == (case_of(answer)[0], answer.value.value.startswith("expected: "))


def test_reader_reports_what_stops_it() -> None:
    """A refused request, a failed listing and a redactor's error each leave state `failed` and the reason."""
    town = Town(sample_logs())
    town.start("reader")
    assert "idle" == town.json("acme/reader", b"status")["state"]
    town.reachable = False
    answer = town.deliver("acme/reader", b"clean")
    assert "cannot reach acme/redactor: denied" == answer.value.value
    town.reachable, town.broken = True, "denied"
    assert "cannot list the directory: /logs" == town.deliver("acme/reader", b"clean").value.value
    assert "failed" == town.json("acme/reader", b"status")["state"]
    town.broken = None
    town.start("redactor")
    town.deliver("acme/reader", b"clean")
    assert "already running" == town.deliver("acme/reader", b"clean").value.value
    town.broken = "no-space"
    town.settle()
    status = town.json("acme/reader", b"status")
    assert "failed" == status["state"]
    assert "/out/access.log" in status["error"]


def test_reader_ignores_callbacks_that_are_not_its_own() -> None:
    """An answer with another correlation id moves nothing."""
    town = Town(sample_logs())
    town.start("reader")
    town.deliver("acme/reader", b"clean")
    before = (town.asked, town.json("acme/reader", b"status"))
    town.callback("acme/reader", "acme/redactor", b"ok", "f" * 32, None)
    assert before == (town.asked, town.json("acme/reader", b"status"))
    town.callback("acme/reader", "acme/redactor", b"ok", f"{1:032x}", None)
    assert before[0] + 1 == town.asked


@pytest.mark.parametrize("name", ["../x.log", ".hidden", "", "a/b.log", "a\tb.log", "x" * 256])
def test_redactor_takes_plain_names_only(name: str) -> None:
    """A name that could lead elsewhere is refused and nothing is written."""
    town = Town({})
    town.start("redactor")
    answer = town.deliver("acme/redactor", f"file {name}\nline\n".encode(), sender="acme/reader")
    assert "not a name for a file" == answer.value.value
    assert {} == town.files


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("192.0.2.1", "[ip]"),
        ("from 192.0.2.1:443, x", "from [ip]:443, x"),
        ("(203.0.113.250)", "([ip])"),
        ("1.2.3", "1.2.3"),
        ("2001:db8::1", "[ip]"),
        ("[2001:db8:0:0:1:0:0:1]:80", "[[ip]]:80"),
        ("::ffff:192.0.2.7 x", "[ip] x"),
        ("64:ff9b::192.0.2.33", "[ip]"),
        ("fe80::1%eth0 y", "[ip] y"),
        ("peer:2001:db8::5.", "peer:[ip]."),
        ("10:15:42 00:1b:44:11:3a:b7", "10:15:42 00:1b:44:11:3a:b7"),
        ("std::vector a::", "std::vector [ip]"),
        ("alice@example.com.", "[email]."),
        ("<bob.m+x@mail.example.org>", "<[email]>"),
        ("user=alice%40example.com&x", "user=[email]&x"),
        ("müller@exämple.com", "[email]"),
        ("%40alice@example.com", "%40[email]"),
        ("/x%20192.0.2.1%3D2001:db8::1", "/x%20[ip]%3D[ip]"),
        ("a@ @b @", "a@ @b @"),
        ("Authorization: Bearer abc.def-123", "Authorization: Bearer [token]"),
        ("bearer of news", "bearer of news"),
        ("eyJhbGciOi.eyJzdWIiOi.sig_-x!", "[token]!"),
        ("sha " + "0123456789abcdef" * 2 + ".", "sha [token]."),
        ("b64 QUJDREVGR0hJ/0tMTU5PUFFSU1R+VldYWVo9PT0=", "b64 [token]"),
        ("/static/js/a-very-long-name-of-a-module/index.js", "/static/js/a-very-long-name-of-a-module/index.js"),
        ("token=x; api_key=a,password=p secret=s", "token=[token]; api_key=[token],password=[token] secret=[token]"),
        ('{"password": "p w", "n": 1}', '{"password": "[token]", "n": 1}'),
        ("X-Secret: abc def", "X-Secret: [token] def"),
        ("tokens = none", "tokens = none"),
        ('"GET /a?b=1&c=2 HTTP/1.1"', '"GET /a?[query] HTTP/1.1"'),
        ('"GET /a?q=\\"x@example.com\\" HTTP/1.1"', '"GET /a?[query] HTTP/1.1"'),
        ("/a? really?", "/a? really?"),
        ("", ""),
    ],
)
def test_redaction_of_one_line(line: str, expected: str) -> None:
    """Each rule replaces its own kind, up to the right end, and leaves what only looks similar."""
    assert expected == redacted(line)


FRAGMENTS = [
    *(
        "192.0.2.1",
        "2001:db8::7",
        "::ffff:192.0.2.9",
        "fe80::1%eth0",
        "alice@example.com",
        "bob%40example.org",
        "@",
        "%40",
    ),
    *(
        "Bearer ",
        "token=",
        "password: ",
        '"secret":"',
        "api_key=",
        "0123456789abcdef" * 2,
        "eyJhbGciOi",
        "QUJDREVG/x+9",
    ),
    *(
        " ",
        "  ",
        ".",
        ":",
        "::",
        "/",
        "?",
        "&",
        "=",
        '"',
        "'",
        ",",
        "-",
        "_",
        "%",
        "[",
        "]",
        "(",
        "\\",
        "é",
        "1",
        "a",
        "Z9",
    ),
    *("GET /a/b", "HTTP/1.1", "10:15:42", "x=1"),
]


@pytest.fixture(scope="module")
def one_redactor() -> Town:
    """A redactor for many lines."""
    town = Town({})
    town.start("redactor")
    return town


@given(st.lists(st.sampled_from(FRAGMENTS), max_size=12).map("".join))
def test_no_mixture_hides_an_address(one_redactor: Town, line: str) -> None:
    """However things stand next to each other: no IPv4 address or e-mail that a simple search finds survives, the
    line stays one line, and what is not replaced is not changed."""
    batch = b"file a.log\n" + line.encode() + b"\n"
    assert b"ok" == one_redactor.deliver("acme/redactor", batch, sender="acme/reader")
    out = one_redactor.files["/out/a.log"].decode()
    assert 1 == out.count("\n") == len(out) - len(out.rstrip("\n"))
    assert [] == IPV4.findall(out)
    assert [] == EMAIL.findall(out)
    kept = re.split(r"\[(?:ip|email|token|query)\]", out.rstrip("\n"))
    at = 0
    for piece in kept:
        assert piece in line[at:]
        at = line.index(piece, at) + len(piece)


def test_redaction_fits_the_limits_of_the_manifest() -> None:
    """The worst batches end within the memory and half the fuel that the manifest gives."""
    manifest = tomllib.loads((EXAMPLE / "redactor/component.toml").read_text())["limits"]
    assert "16MiB" == manifest["memory"]
    for unit in (
        b"/?a ",
        b"%41",
        b"%40a-",
        b"192.0.2.1-",
        b"1:",
        b"token='",
        b"AAAA/",
        b"a@b ",
        b"1.2.3.4 ",
        b"1:2:3:4:5:6:7 ",
        b"a.a.a.a-",
        b"Bearer ",
        b"token=",
        b"a" * 61 + b".",
    ):
        town = Town({}, memory=16 << 20)
        guest = town.start("redactor")
        batch = b"file a.log\n" + unit * (256 * 1024 // len(unit))
        guest.fuel_used(town)
        assert b"ok" == town.deliver("acme/redactor", batch, sender="acme/reader")
        assert guest.fuel_used(town) < manifest["fuel"] / 2


def test_reading_fits_the_limits_of_the_manifest() -> None:
    """A full batch of the shortest lines, and a directory of a thousand files, need less than half of the fuel."""
    limits = tomllib.loads((EXAMPLE / "reader/component.toml").read_text())["limits"]
    assert "8MiB" == limits["memory"]
    for files in (
        {"/logs/a.log": b"\n" * 300_000},
        {f"/logs/{n:04}.log": b"x\n" for n in range(1000)},
    ):
        town = Town(files, memory=8 << 20)
        guest = town.start("reader")
        guest.fuel_used(town)
        assert len(files) == town.json("acme/reader", b"clean")["files"]
        assert guest.fuel_used(town) < limits["fuel"] / 2


def test_more_files_than_the_reader_remembers() -> None:
    """Too many files is an error told at once, not a part of the work."""
    town = Town({f"/logs/{n:04}.log": b"x\n" for n in range(1025)})
    town.start("reader")
    assert "more log files than can be remembered" == town.deliver("acme/reader", b"clean").value.value


# -- thief ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attempt", ["shadow", "dotdot", "symlink", "write"])
@pytest.mark.parametrize(
    ("case", "result"),
    [("denied", "denied"), ("invalid-path", "denied"), ("read-only", "denied"), ("io-error", "failed")],
)
def test_thief_reports_a_refused_file(attempt: str, case: str, result: str) -> None:
    """A refusal is told as such, with its case; what is no refusal is not called one."""
    town = Town({})
    town.start("thief")
    town.broken = case
    answer = town.json("acme/thief", f"steal {attempt}".encode())
    assert (attempt, result) == (answer["attempt"], answer["result"])
    assert case in answer["detail"] or case == "io-error"


def test_thief_reports_its_loot() -> None:
    """Positive control: without walls each attempt is told as `allowed`."""
    files = {"/etc/shadow": b'root:"\n', "/logs/../../etc/passwd": b"r" * 500, "/logs/passwd-link": b"x"}
    town = Town(files)
    town.start("thief")
    for attempt in ("shadow", "dotdot", "symlink", "write", "reach"):
        assert "allowed" == town.json("acme/thief", f"steal {attempt}".encode())["result"]
    assert 'got root:"\n' == town.json("acme/thief", b"steal shadow")["detail"]
    assert b"owned\n" == town.files["/logs/owned"]
    town.reachable = False
    denied = town.json("acme/thief", b"steal reach")
    assert ("denied", "delivery-failed: denied") == (denied["result"], denied["detail"])


def test_thief_meets_its_memory_limit() -> None:
    """`memory` stops at the limit and lives to tell it."""
    town = Town({}, memory=16 << 20)
    town.start("thief")
    answer = town.json("acme/thief", b"steal memory")
    assert ("denied", "grew to 16777216 of 4294967296 bytes") == (answer["result"], answer["detail"])


def test_thief_spins_until_stopped_and_traps_outside() -> None:
    """`spin` ends only with its fuel; `outside` is a memory fault, not an answer."""
    town = Town({})
    guest = town.start("thief")
    guest.store.set_fuel(1_000_000)
    with pytest.raises(wasmtime.WasmtimeError, match="all fuel consumed"):
        town.deliver("acme/thief", b"steal spin")
    guest = town.start("thief")
    with pytest.raises(wasmtime.WasmtimeError, match="out of bounds"):
        town.deliver("acme/thief", b"steal outside")


def test_thief_does_what_it_claims() -> None:
    """`format` answers the text in capitals, other messages are refused."""
    town = Town({})
    town.start("thief")
    assert "GET /A?ä 1".encode() == town.deliver("acme/thief", "format get /a?ä 1".encode())
    assert "runtime-error" == case_of(town.deliver("acme/thief", b"steal"))[0]
    assert "runtime-error" == case_of(town.deliver("acme/thief", b"steal money"))[0]
