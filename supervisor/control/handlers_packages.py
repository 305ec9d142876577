"""Endpoints about packages and publishers: upload and plan, install, and the trust store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiohttp import BodyPartReader, web

from supervisor.control.bodies import (
    ComponentStatus,
    InstallRequest,
    PlanAnswer,
    PublisherAnswer,
    RevokeRequest,
    RotateRequest,
    TrustAnswer,
    TrustChanged,
    TrustRequest,
)
from supervisor.control.context import Control
from supervisor.control.errors import TooLargeError, ValidationError
from supervisor.control.handlers_components import status_of
from supervisor.control.package_store import MAX_ENVELOPE, MAX_MANIFEST, MAX_WASM
from supervisor.control.parsing import read_json
from supervisor.control.peer import Peer
from supervisor.packages.keys import PublicKey, parse_public
from supervisor.packages.package import PackageFiles

_PARTS = {"wasm": MAX_WASM, "envelope": MAX_ENVELOPE, "manifest": MAX_MANIFEST}


async def upload(control: Control, request: web.Request, peer: Peer) -> PlanAnswer:
    """Upload a package (parts wasm, envelope, manifest); the answer says what installing it would mean."""
    files = await _read_package(request)
    plan = await control.installer.plan(files)
    await control.audit.record_soon(
        "package.plan",
        "info",
        object=plan.plan,
        detail={"user": peer.name, "uid": peer.uid, "name": plan.name, "version": plan.version, "digest": plan.digest},
    )
    return plan


async def _read_package(request: web.Request) -> PackageFiles:
    if request.content_type != "multipart/form-data":
        raise ValidationError("a package is uploaded as multipart/form-data", subject=request.content_type[:80])
    parts: dict[str, bytes] = {}
    try:
        async for part in await request.multipart():
            if not isinstance(part, BodyPartReader) or part.name not in _PARTS or part.name in parts:
                raise ValidationError("the parts are wasm, envelope and manifest, each at most once")
            parts[part.name] = await _read_part(part, part.name)
    except (ValueError, AssertionError) as error:  # what aiohttp raises for a malformed form
        raise ValidationError(f"the form is malformed: {error}") from error
    if "wasm" not in parts:
        raise ValidationError("the form has no part wasm")
    return PackageFiles(parts["wasm"], parts.get("envelope"), parts.get("manifest"))


async def _read_part(part: BodyPartReader, name: str) -> bytes:
    data = bytearray()
    while chunk := await part.read_chunk(1 << 16):
        data += chunk
        if len(data) > _PARTS[name]:
            raise TooLargeError(f"{name} is larger than {_PARTS[name]} bytes", code="E_SIZE")
    return bytes(data)


async def install(control: Control, request: web.Request, peer: Peer) -> ComponentStatus:
    """Install a planned package with its bindings and start it; answers once it runs or has failed to."""
    asked = await read_json(request, InstallRequest)
    component = await control.installer.install(asked, peer.name)
    instance = await control.lifecycle.installed(component, start=asked.start)
    return status_of(control, instance, None)


async def trust(control: Control, _request: web.Request, _peer: Peer) -> TrustAnswer:
    """The publishers this host believes, and what is revoked."""
    store = control.trust
    publishers, revoked = await asyncio.to_thread(lambda: (store.list(), store.revocations()))
    return TrustAnswer(
        publishers=[
            PublisherAnswer(
                name=publisher.name,
                keyids=[key.keyid for key in publisher.keys],
                scopes=list(publisher.scopes),
                level=publisher.level.value,
                threshold=publisher.threshold,
                added=publisher.added,
            )
            for publisher in publishers
        ],
        revoked_keys=sorted(revoked.keys),
        revoked_digests=sorted(revoked.digests),
    )


async def trust_add(control: Control, request: web.Request, peer: Peer) -> TrustChanged:
    """Believe a publisher."""
    asked = await read_json(request, TrustRequest)
    keys = [_key(pem) for pem in asked.keys]
    return await _change(
        control,
        peer,
        lambda: control.trust.add(asked.name, keys, asked.scopes, level=asked.level, threshold=asked.threshold),
        event="trust.add",
        subject=asked.name,
        detail={
            "keys": " ".join(key.keyid for key in keys),
            "scopes": " ".join(asked.scopes),
            "level": asked.level,
        },
    )


async def trust_rotate(control: Control, request: web.Request, peer: Peer) -> TrustChanged:
    """Exchange a publisher's key; components only the old key signed are stopped."""
    asked = await read_json(request, RotateRequest)
    new, old = _key(asked.new), _key(asked.old).keyid if asked.old else None
    return await _change(
        control,
        peer,
        lambda: control.trust.rotate(asked.name, new, old=old),
        event="trust.rotate",
        subject=asked.name,
        detail={"new": new.keyid, "old": old or ""},
    )


async def trust_revoke(control: Control, request: web.Request, peer: Peer) -> TrustChanged:
    """Revoke a key or a component's digest; what ran on the strength of it is stopped."""
    asked = await read_json(request, RevokeRequest)
    if bool(asked.keyid) == bool(asked.digest):
        raise ValidationError("name a keyid or a digest, one of the two")

    def revoke() -> object:
        if asked.keyid:
            return control.trust.revoke(asked.keyid, reason=asked.reason)
        return control.trust.revoke_digest(asked.digest, reason=asked.reason)

    what = asked.keyid or asked.digest
    return await _change(control, peer, revoke, event="trust.revoke", subject=what, detail={"reason": asked.reason})


async def trust_remove(control: Control, request: web.Request, peer: Peer) -> TrustChanged:
    """Believe a publisher no longer; its components are stopped."""
    name = request.match_info["publisher"]
    return await _change(
        control, peer, lambda: control.trust.remove(name), event="trust.remove", subject=name, detail={}
    )


def _key(pem: str) -> PublicKey:
    return parse_public(pem.encode(), subject="key")


async def _change(
    control: Control,
    peer: Peer,
    change: Callable[[], object],
    *,
    event: str,
    subject: str,
    detail: dict[str, str | int],
) -> TrustChanged:
    # A refusal by the store is recorded by the API like any other; a change before its answer.
    # What it stops is stopped first: a revocation must not wait for a log that cannot be written.
    await asyncio.to_thread(change)
    stopped = await control.lifecycle.enforce_trust()
    await control.audit.record_soon(
        event, "allowed", object=subject, detail={"user": peer.name, "uid": peer.uid, **detail}
    )
    return TrustChanged(subject, stopped)
