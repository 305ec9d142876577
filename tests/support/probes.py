"""Copies of the test guest under other names, with another manifest, signed and installed in one step.

Signed in this process and installed over the API: what the command line adds to that has tests of its own.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from live_host import GUESTS, Host

from supervisor.cli.packages import parts_of
from supervisor.packages import envelope
from supervisor.packages.keys import load_private
from supervisor.packages.package import read_package

OFTEN = {"max-restarts": "1000", "window": '"1s"', "backoff": '["10ms", "10ms"]'}
"""Supervision that never gives up: for components that many tests end in turn."""


def manifest(text: str, values: dict[str, str]) -> str:
    """The manifest with other values, each TOML as it stands behind `key = `; the rationale is left out.

    An array takes an array's place, so that `storage` can be the capability or the limit. A key that the manifest does
    not have is a mistake of the test.
    """
    text = text.partition("[capabilities.rationale]")[0]
    for key, value in values.items():
        old = r"(?:\[$.*?^\]|\[[^\n]+)" if value.startswith("[") else r"[^\[\n]+"
        pattern = rf"(?ms)^{re.escape(key)} = {old}$"
        text, found = re.subn(pattern, lambda _: f"{key} = {value}", text)  # noqa: B023 - used at once
        assert found == 1, (key, found)
    return text


def pack(
    host: Host,
    name: str,
    values: dict[str, str] | None = None,
    *,
    folder: str = "",
    key: Path | None = None,
    mailing: str = "",
) -> Path:
    """A signed copy of the test guest that is called test/`name`; its directory.

    Args:
        values: more of the manifest, see `manifest`.
        folder: the directory's name when it is not the component's.
        key: who signs when it is not the host's tester.
        mailing: the lines of a table `[messaging]`, which the guest's manifest does not have.
    """
    source, target = GUESTS / "probe", host.out / (folder or name)
    target.mkdir()
    shutil.copy(source / "component.wasm", target)
    text = manifest((source / "component.toml").read_text(), {"name": f'"test/{name}"', **(values or {})})
    if mailing:
        text = text.replace("[capabilities]\n", f"[messaging]\n{mailing}\n\n[capabilities]\n", 1)
    (target / "component.toml").write_text(text)
    envelope.sign(str(target), load_private(str(key or host.key)))
    return target


def upload(host: Host, package: Path) -> dict[str, Any]:
    """The host's plan for a package. Raises RefusedError."""
    with host.api() as client:
        return dict(client.upload(parts_of(read_package(str(package)))))


def install(
    host: Host,
    package: Path,
    binds: dict[str, Path] | None = None,
    *,
    instance: str = "0",
    consent: bool = True,
    start: bool = True,
) -> dict[str, Any]:
    """Upload and install with guest directories bound; its status. Raises RefusedError."""
    plan = upload(host, package)
    body = {
        "plan": plan["plan"],
        "bindings": {guest: str(place) for guest, place in (binds or {}).items()},
        "instance": instance,
        "consent": consent,
        "start": start,
    }
    with host.api() as client:
        return dict(client.post("/v1/install", body, timeout=60.0))


def add(host: Host, name: str, values: dict[str, str] | None = None, *, instance: str = "0", mailing: str = "") -> None:
    """Install a probe without files as test/`name` and have it running."""
    package = pack(host, name, {"filesystem": "[]", **OFTEN, **(values or {})}, mailing=mailing)
    status = install(host, package, instance=instance)
    assert "running" == status["state"], status
