"""Bad input is refused with a named error, and nothing changes: packages, roots, configurations, disks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import wasmtime
from live_host import CHECKOUT, EXAMPLES, GUESTS, Host

pytestmark = pytest.mark.block7_lifecycle


def _installed(host: Host) -> list[tuple[str, str]]:
    return [(c["id"], c["digest"]) for c in host.status()["components"]]


def _refused(host: Host, package: Path, code: str, *arguments: str) -> str:
    before = _installed(host)
    done = host.cli("install", str(package), "--yes", *arguments, check=False)
    text = done.stderr.decode()
    assert 0 != done.returncode
    assert code in text
    assert before == _installed(host)
    return text


@pytest.fixture
def package(shared: Host, request: pytest.FixtureRequest) -> Path:
    """A signed package of the test's own."""
    return shared.package(EXAMPLES / "redactor", name=request.node.name.replace("/", "-")[:60])


BIND = ("--bind", "/out=/usr/share/doc")
"""A place that exists; nothing refused ever gets as far as writing there."""


def test_the_package_is_good(shared: Host, package: Path) -> None:
    """Positive control: the same package, untouched, installs."""
    out = shared.out / "control-out"
    out.mkdir()
    shared.install(package, "--bind", f"/out={out}")
    shared.cli("uninstall", "acme/redactor")


def test_unsigned(shared: Host, package: Path) -> None:
    """No envelope."""
    (package / "component.dsse.json").unlink()
    _refused(shared, package, "E_NO_ENVELOPE", *BIND)


def test_tampered(shared: Host, package: Path) -> None:
    """One byte of the component changed."""
    body = bytearray((package / "component.wasm").read_bytes())
    body[-20] ^= 1
    (package / "component.wasm").write_bytes(body)
    _refused(shared, package, "E_DIGEST", *BIND)


def test_truncated(shared: Host, package: Path) -> None:
    """The component's tail is missing."""
    body = (package / "component.wasm").read_bytes()
    (package / "component.wasm").write_bytes(body[: len(body) // 2])
    text = _refused(shared, package, "E_", *BIND)
    assert any(code in text for code in ("E_DIGEST", "E_SIZE", "E_LAYER"))


def test_manifest_changed_after_signing(shared: Host, package: Path) -> None:
    """The text beside the envelope says something else than what was signed."""
    file = package / "component.toml"
    file.write_text(file.read_text().replace('version = "1.0.0"', 'version = "1.0.1"'))
    _refused(shared, package, "E_SCHEMA", *BIND)


def test_wrong_scope(shared: Host) -> None:
    """A publisher of acme/* and test/* signs another's name, one that only looks alike included."""
    for name in ("other/redactor", "acme-evil/redactor"):
        package = shared.package(
            EXAMPLES / "redactor",
            name=name.replace("/", "-"),
            edit=lambda text, name=name: text.replace('name = "acme/redactor"', f'name = "{name}"'),
        )
        text = _refused(shared, package, "E_", *BIND)
        assert "E_SCOPE" in text or "E_UNTRUSTED" in text


def test_stranger(shared: Host, package: Path, tmp_path: Path) -> None:
    """A key nobody trusts."""
    shared.cli("keygen", "--out", str(tmp_path / "stranger"))
    (package / "component.dsse.json").unlink()
    shared.cli("sign", str(package), "--key", str(tmp_path / "stranger"))
    text = _refused(shared, package, "E_", *BIND)
    assert "E_UNTRUSTED" in text or "E_THRESHOLD" in text or "E_SCOPE" in text


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("core module", wasmtime.wat2wasm("(module)")),
        ("precompiled", b"\x7fELF" + bytes(2000)),
        ("text", b"(component)"),
        ("nothing", b""),
    ],
)
def test_no_component(shared: Host, tmp_path: Path, kind: str, body: bytes) -> None:
    """A core module, a .cwasm posing as a component, text, nothing: not even signed."""
    shutil.copy(EXAMPLES / "redactor" / "component.toml", tmp_path)
    (tmp_path / "component.wasm").write_bytes(bytes(body))
    done = shared.cli("sign", str(tmp_path), "--key", str(shared.key), check=False)
    assert 0 != done.returncode
    assert b"E_LAYER" in done.stderr or b"E_SIZE" in done.stderr


@pytest.mark.parametrize(
    ("guest", "words"),
    [
        ("unknown-import", "acme:custom/thing@1.0.0"),
        ("wrong-type", "airssys:core/storage@1.0.0"),
        ("no-lifecycle", "component-lifecycle"),
    ],
)
def test_contract(shared: Host, guest: str, words: str) -> None:
    """A component that asks for what the host does not know, or lacks the lifecycle, is refused by name at install."""
    text = _refused(shared, shared.package(GUESTS / guest), "E_")
    assert words in text


def test_extra_export_does_no_harm(shared: Host) -> None:
    """Positive control: a component with one export too many installs and runs."""
    shared.install(shared.package(GUESTS / "extra-export"))
    assert "running" == shared.component("test/extra-export/0")["state"]


def test_a_start_function_meets_the_walls(shared: Host) -> None:
    """A start function that never ends is bounded like any other code; the host serves on."""
    done = shared.cli("install", str(shared.package(GUESTS / "start-spin")), "--yes", check=False)
    assert 0 != done.returncode
    assert "fuel" == shared.component("test/start-spin/0")["outcome"]
    shared.cli("uninstall", "test/start-spin")


def test_bindings(shared: Host, package: Path) -> None:
    """A guest root without a place, a place that does not exist, and a forbidden one."""
    _refused(shared, package, "E_BINDING")
    _refused(shared, package, "E_", "--bind", "/out=/does/not/exist")
    _refused(shared, package, "E_", "--bind", "/out=/etc")
    _refused(shared, package, "E_", "--bind", "/other=/srv")


def test_foreign_root(fresh: Host) -> None:
    """A state directory that holds something else is left alone."""
    (fresh.root / "lib").mkdir()
    (fresh.root / "lib" / "precious").write_text("mine")
    done = fresh.cli("up", "--detach", check=False)
    assert 0 != done.returncode
    assert b"E_ROOT" in done.stderr
    assert ["precious"] == [p.name for p in (fresh.root / "lib").iterdir()]


def test_root_is_a_link(fresh: Host, tmp_path: Path) -> None:
    """A state directory that is a symbolic link is refused."""
    (fresh.root / "lib").symlink_to(tmp_path)
    done = fresh.cli("up", "--detach", check=False)
    assert b"E_ROOT" in done.stderr


def test_second_host(host: Host) -> None:
    """A second host on the same root is refused; the first goes on."""
    done = host.cli("up", "--detach", check=False)
    assert 0 != done.returncode
    assert b"E_RUNNING" in done.stderr
    assert "ready" == host.status()["host"]["state"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[host]\nadmins = 3\n", b":2"),
        ("[host]\nno-such-key = 1\n", b"no-such-key"),
        ("[compile]\nmemory = '1 parsec'\n", b"memory"),
        ("[host\n", b":1"),
    ],
)
def test_configuration(configured: Callable[[str], Host], text: str, words: bytes) -> None:
    """A bad configuration names file, key and line, and exits with 3."""
    done = configured(text).cli("up", "--detach", check=False)
    assert 3 == done.returncode
    assert b"airssys.toml" in done.stderr
    assert words in done.stderr


def test_down_without_a_host(fresh: Host) -> None:
    """Nobody there: exit status 4 and what to do."""
    done = fresh.cli("status", check=False)
    assert 4 == done.returncode
    assert b"airssys up" in done.stderr


def test_json_errors(fresh: Host) -> None:
    """With --output json an error is JSON too."""
    done = fresh.cli("--output", "json", "status", check=False)
    assert "E_UNREACHABLE" == json.loads(done.stderr or done.stdout)["error"]["code"]


def test_hostile_clients(host: Host) -> None:
    """Garbage on the API's socket never ends control."""
    import socket

    before = host.processes()
    for garbage in (
        b"\0" * 4096,
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 5000,
        b"POST /v1/install HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n",
    ):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(host.root / "run" / "api.sock"))
            sock.sendall(garbage)
            sock.settimeout(5)
            try:
                sock.recv(65536)
            except (TimeoutError, ConnectionError):
                continue
    assert before == host.processes()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: another uid connects")
def test_another_user(host: Host) -> None:
    """A user who is no admin is told so, and it is recorded."""
    done = subprocess.run(
        ["python3", "-c", (
            "import socket,sys;s=socket.socket(socket.AF_UNIX);s.connect(sys.argv[1]);"
            "s.sendall(b'GET /v1/status HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n');"
            "print(s.makefile('rb').read().decode())"
        ), str(host.root / "run" / "api.sock")],
        user=65534, group=65534, extra_groups=[], capture_output=True, text=True, check=False, cwd="/",
        executable="/usr/bin/python3",
    )  # fmt: skip
    assert " 403 " in done.stdout.splitlines()[0]
    assert "E_AUTHORIZATION" in done.stdout
    assert any(record["decision"] == "denied" for record in host.audit())


def test_checkout_is_untouched() -> None:
    """Nothing these tests do writes envelopes into the examples."""
    assert [] == list((CHECKOUT / "examples").rglob("component.dsse.json"))


@pytest.mark.parametrize("how", ["occupied", "link", "open to others"])
def test_occupied_root(fresh: Host, tmp_path: Path, how: str) -> None:
    """AIRSSYS_ROOT itself is refused when it holds something else, is a link, or can be written by others."""
    root = fresh.root / "inner"
    if how == "link":
        (tmp_path / "elsewhere").mkdir()
        root.symlink_to(tmp_path / "elsewhere")
    else:
        root.mkdir()
    if how == "occupied":
        (root / "precious").write_text("mine")
    if how == "open to others":
        root.chmod(0o777)
    fresh.environment["AIRSSYS_ROOT"] = str(root)
    before = sorted(root.iterdir())
    done = fresh.cli("up", "--detach", check=False)
    assert 0 != done.returncode
    assert b"E_ROOT" in done.stderr
    assert before == sorted(root.iterdir())


def test_one_state_one_host(host: Host, tmp_path: Path) -> None:
    """Another runtime directory does not make a second host on the same state."""
    run = Path(f"{host.root}-run")
    done = host.cli_with(
        {"AIRSSYS_ROOT": "", "STATE_DIRECTORY": str(host.root / "lib"), "RUNTIME_DIRECTORY": str(run)}, "up", "--detach"
    )
    shutil.rmtree(run, ignore_errors=True)
    assert 0 != done.returncode
    assert b"E_RUNNING" in done.stderr
    host.cli("audit", "verify")


def test_the_installation_is_never_writable(shared: Host) -> None:
    """The host's own code may be bound for reading, never for writing: whoever may bind is not thereby root."""
    package = shared.package(EXAMPLES / "redactor", name="to-own-code")
    done = shared.cli("install", str(package), "--yes", "--bind", f"/out={CHECKOUT / 'sandbox'}", check=False)
    try:
        assert 0 != done.returncode
        component = shared.component("acme/redactor/0")
        assert "running" != component["state"]
        assert "never granted for writing" in component["detail"]
    finally:
        shared.cli("uninstall", "acme/redactor", "--purge")
