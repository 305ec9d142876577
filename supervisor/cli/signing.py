"""`keygen`, `sign`, `verify`, `inspect`: keys and packages, without a host."""

from __future__ import annotations

from typing import Any

import click

from supervisor.cli.app import Command
from supervisor.cli.errors import OperatorError, UnreachableError
from supervisor.cli.globals import Globals

_DIRECTORY = click.Path(exists=True, file_okay=False)


def _adopt_root(path: str) -> None:
    """A key kept in an empty AIRSSYS_ROOT does not make that root a stranger's."""
    import contextlib
    import os

    from supervisor.parent.errors import RootError

    root = os.environ.get("AIRSSYS_ROOT", "")
    if root and os.path.isdir(root) and os.path.realpath(path).startswith(os.path.realpath(root) + "/"):
        from supervisor.parent.layout import own_root

        with contextlib.suppress(RootError):  # `up` says so when it matters
            own_root(root)


@click.command("keygen", cls=Command)
@click.option("--out", "path", metavar="FILE", required=True, help="The private key; FILE.pub gets the public one.")
@click.pass_obj
def keygen_(options: Globals, path: str) -> None:
    """Make an Ed25519 signing key: FILE (0600) and FILE.pub.

    \b
    Example:
      airssys keygen --out acme.key
    """
    from supervisor.packages.keys import generate

    _adopt_root(path)
    key = generate(path)
    options.result(
        {"private": path, "public": f"{path}.pub", "keyid": key.keyid, "fingerprint": key.fingerprint},
        f"{path}: private, keep it\n{path}.pub: public, give it away\nfingerprint {key.fingerprint}",
    )


@click.command("sign", cls=Command)
@click.argument("directory", type=_DIRECTORY)
@click.option("--key", "keys", metavar="FILE", required=True, multiple=True, help="A private key; may be repeated.")
@click.pass_obj
def sign_(options: Globals, directory: str, keys: tuple[str, ...]) -> None:
    """Sign component.wasm and component.toml in DIRECTORY; writes component.dsse.json.

    \b
    Example:
      airssys sign ./package --key acme.key
    """
    from supervisor.packages.envelope import sign
    from supervisor.packages.keys import load_private

    package = sign(directory, *[load_private(path) for path in keys])
    component = package.manifest.component
    options.result(
        {
            "name": component.name,
            "version": component.version,
            "release": component.release,
            "digest": package.digest,
            "keyids": list(package.keyids),
        },
        f"signed {component.name} {component.version} (release {component.release}), sha256 {package.digest}",
    )


@click.command("verify", cls=Command)
@click.argument("directory", type=_DIRECTORY)
@click.option("--key", "keys", metavar="FILE.pub", multiple=True, help="Believe this key alone; may be repeated.")
@click.pass_obj
def verify_(options: Globals, directory: str, keys: tuple[str, ...]) -> None:
    """Verify a package: with --key against those keys, else as the host would judge it.

    Without a running host the trust store's files are read directly.

    \b
    Example:
      airssys verify ./package --key acme.key.pub
    """
    from supervisor.packages.package import read_package

    files = read_package(directory)
    if keys:
        from supervisor.packages.envelope import verify
        from supervisor.packages.keys import load_public

        package = verify(files.wasm, files.envelope, [load_public(path) for path in keys], manifest_toml=files.manifest)
        result = _verified(package) | {"publisher": "", "level": ""}
    else:
        result = _judged(options, files)
    by = result["publisher"] or result["keyid"]
    options.result(result, f"{result['name']} {result['version']} is good, signed by {by}, sha256 {result['digest']}")


def _verified(package: Any) -> dict[str, Any]:
    component = package.manifest.component
    return {
        "name": component.name,
        "version": component.version,
        "release": component.release,
        "digest": package.digest,
        "keyid": package.keyids[0],
    }


def _judged(options: Globals, files: Any) -> dict[str, Any]:
    from supervisor.cli.packages import parts_of

    try:
        with options.client() as client:
            plan = client.upload(parts_of(files))
        return {key: plan[key] for key in ("name", "version", "release", "digest", "keyid", "publisher", "level")}
    except UnreachableError:
        from supervisor.packages.envelope import verify
        from supervisor.packages.trust import TrustStore

        trust = TrustStore(options.load_config().trust_dir)
        package = verify(files.wasm, files.envelope, trust.keys(), manifest_toml=files.manifest)
        decision = trust.authorize(package.manifest.component.name, package.keyids, digest=package.digest)
        return _verified(package) | {"publisher": decision.publisher, "level": decision.level.value}


@click.command("inspect", cls=Command)
@click.argument("directory", type=_DIRECTORY)
@click.pass_obj
def inspect_(options: Globals, directory: str) -> None:
    """Show what a package says of itself. Nothing of it is believed: use verify for that.

    \b
    Example:
      airssys inspect ./package
    """
    from bridge.capabilities import describe
    from supervisor.packages.envelope import inspect
    from supervisor.packages.manifest import parse_manifest
    from supervisor.packages.package import read_package

    files = read_package(directory)
    if files.envelope is not None:
        claimed = inspect(files.envelope)
        manifest, digest, keyids = claimed.statement.manifest, claimed.statement.digest, list(claimed.keyids)
    elif files.manifest is not None:
        manifest, digest, keyids = parse_manifest(files.manifest), "", []
    else:
        raise OperatorError(
            "there is neither an envelope nor a manifest", subject=directory, hint="write component.toml first"
        )
    lines = describe(manifest.file_rules(), manifest.storage_rules(), manifest.messaging_rules())
    result = {
        "manifest": manifest.to_predicate(),
        "digest": digest,
        "keyids": keyids,
        "signed": files.envelope is not None,
        "size": len(files.wasm),
        "capabilities": [{"text": line.text, "risk": line.risk, "why": line.why} for line in lines],
    }
    component = manifest.component
    text = [
        f"{component.name} {component.version} (release {component.release}), {component.world}",
        component.description or "no description",
        f"{len(files.wasm)} bytes, sha256 {digest or 'not signed'}",
        f"claims to be signed by {', '.join(keyids)}" if keyids else "not signed",
        *(f"asks for {line.text} ({line.risk}: {line.why})" for line in lines),
    ]
    options.result(result, "\n".join(text if lines else [*text, "asks for nothing"]))
