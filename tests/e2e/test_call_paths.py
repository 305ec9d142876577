"""The operator chooses how values cross a component's boundary: what info shows is what the worker does."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lifted
import pytest
from live_host import GUESTS, Host, wait_until
from probes import add

pytestmark = pytest.mark.block1_runtime
PROBE = "test/probe"


def crossing(host: Host, name: str) -> dict[str, Any]:
    """What `airssys info` says about it."""
    return dict(json.loads(host.cli("info", name, "--output", "json").stdout)["crossing"])


def configure(host: Host, text: str) -> None:
    """Another configuration, and the host started anew."""
    host.down()
    (host.root / "etc" / "airssys.toml").write_text(text)
    host.up()


def test_the_switch(configured: Callable[[str], Host]) -> None:
    """A component is on the path its host's configuration names for it, from the start that follows; it works on both,
    and what one path stored the other reads. Info, as text and as JSON, says which functions are fast."""
    host = configured('[workers]\npath = "fast"\n')
    host.up()
    host.trust("test/*")
    add(host, "probe")
    found = crossing(host, PROBE)
    assert ("fast", ["handle-message", "handle-callback"], "") == (found["path"], found["exports"], found["reason"])
    assert ["get", "set", "delete", "exists", "list-keys", "usage"] == found["imports"]["airssys:core/storage@1.0.0"]
    text = host.cli("info", PROBE).stdout.decode()
    assert "fast path: handle-message, handle-callback" in text
    assert "fast path: airssys:core/host-services@1.0.0: log\n" in text
    assert "hello" == host.ask(PROBE, "echo hello")
    configure(host, '[workers]\npath = "fast"\noverride = [{ component = "test/*", path = "general" }]\n')
    wait_until("it to be started on the other path", lambda: crossing(host, PROBE)["path"] == "general")
    assert {"path": "general", "exports": [], "imports": {}, "reason": "the operator chose it"} == crossing(host, PROBE)
    assert "general path: the operator chose it" in host.cli("info", PROBE).stdout.decode()
    assert "hello" == host.ask(PROBE, "echo hello")
    configure(host, '[workers]\npath = "general"\noverride = [{ component = "test/probe", path = "fast" }]\n')
    wait_until("it to be started on the fast path again", lambda: crossing(host, PROBE)["path"] == "fast")
    assert "hello" == host.ask(PROBE, "echo hello")
    compiled = [path.name.partition("-")[0] for path in (host.root / "lib/control/cache").iterdir()]
    assert (2, 1) == (len(compiled), len(set(compiled))), "one component, compiled once for each path"


def package(host: Host, name: str, wasm: bytes) -> Path:
    """A signed package around these bytes, with the manifest of the least guest."""
    source = host.out / f"source-{name}"
    shutil.copytree(GUESTS / "extra-export", source)
    (source / "component.wasm").write_bytes(wasm)
    return host.package(source, name=name, edit=lambda text: text.replace("test/extra-export", f"test/{name}"))


def test_what_cannot_be_patched_runs(configured: Callable[[str], Host]) -> None:
    """A guest of another encoding takes the general path by itself and says why; one that uses a name of the host's is
    refused on either path."""
    host = configured('[workers]\npath = "fast"\noverride = [{ component = "test/slow", path = "general" }]\n')
    host.up()
    host.trust("test/*")
    lift = '(canon lift (core func $code "handle-message") (memory $memory) (realloc $realloc)'
    host.install(package(host, "odd", lifted.component({lift: f"{lift} string-encoding=utf16"})))
    found = crossing(host, "test/odd")
    assert "general" == found["path"]
    assert "UTF-8" in found["reason"]
    assert "hello" == host.ask("test/odd", "hello")
    code = '(core module $o (func (export "f"))) (core instance $o (instantiate $o))'
    outside = f'{code} (func $f (canon lift (core func $o "f"))) (export "x-airssys-take" (func $f))'
    taken = lifted.component(outside=outside)
    for name in ("quick", "slow"):
        done = host.cli("install", str(package(host, name, taken)), "--yes", check=False)
        assert 8 == done.returncode
        assert b"E_RESERVED_NAME" in done.stderr
