"""The signed envelope: DSSE v1.0 over an in-toto Statement v1, made by `sign` and judged by `verify`.

Implements `docs/reference/packages.md`. The steps of `verify`, in order; each refuses:

    1. the envelope is small, strict JSON of the expected form             E_SIZE E_JSON E_SCHEMA E_TYPE
    2. a key the host knows signed exactly these bytes                     E_DUP_KEY E_THRESHOLD E_UNTRUSTED E_BAD_SIG
    3. those bytes are a statement of the expected kind                    E_JSON E_TYPE E_SCHEMA
    4. it speaks of this package and these bytes                           E_SUBJECT E_SIZE E_DIGEST
    5. the bytes are a component, and the manifest may be believed         E_LAYER E_SCHEMA

Whether the signer may publish this name is `supervisor.packages.trust`'s question. Cryptography and the envelope's
encoding are securesystemslib's; what its parser lets pass (second spellings of base64, unknown fields, key ids not
bound to keys) is refused before it sees the envelope. Nothing is ever identified by the envelope's own hash.
"""

from __future__ import annotations

import base64
import binascii
import copy
import hashlib
import os
from collections.abc import Iterable
from typing import Any

import msgspec
import rfc8785
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import CryptoSigner, SSlibKey  # type: ignore[attr-defined]

from supervisor.packages.errors import PackageError
from supervisor.packages.files import open_directory, write_atomic
from supervisor.packages.keys import PublicKey, SigningKey
from supervisor.packages.layer import check_component
from supervisor.packages.manifest import Manifest, parse_manifest
from supervisor.packages.package import (
    ENVELOPE_NAME,
    MANIFEST_NAME,
    MAX_ENVELOPE,
    WASM_NAME,
    PackageFiles,
    read_package,
)
from supervisor.packages.statement import (
    PREDICATE_TYPE,
    STATEMENT_TYPE,
    Statement,
    is_digest,
    make_statement,
    read_statement,
)
from supervisor.packages.strict_json import loads_object

__all__ = [
    "MAX_SIGNATURES",
    "PAYLOAD_TYPE",
    "PREDICATE_TYPE",
    "STATEMENT_TYPE",
    "PackageFiles",
    "UnverifiedPackage",
    "VerifiedPackage",
    "inspect",
    "make_envelope",
    "read_package",
    "sign",
    "verify",
]

PAYLOAD_TYPE = "application/vnd.in-toto+json"
MAX_SIGNATURES = 8


class _Signature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    keyid: str
    sig: str


class _Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    payload: str
    payload_type: str = msgspec.field(name="payloadType")
    signatures: list[_Signature] = msgspec.field()


class UnverifiedPackage(msgspec.Struct, frozen=True):
    """What an envelope claims. Nobody has checked a signature."""

    statement: Statement
    keyids: tuple[str, ...]


class VerifiedPackage(msgspec.Struct, frozen=True):
    """A package whose bytes and manifest a known key signed."""

    manifest: Manifest
    digest: str
    """SHA-256 of component.wasm, 64 hexadecimal digits."""
    size: int
    """Length of component.wasm, bytes."""
    keyids: tuple[str, ...]
    """Every known key that signed, in the envelope's order; at least one."""

    @property
    def keyid(self) -> str:
        """The first of `keyids`."""
        return self.keyids[0]


def make_envelope(payload: bytes, keys: Iterable[SigningKey], *, payload_type: str = PAYLOAD_TYPE) -> bytes:
    """Sign `payload` and encode the envelope; deterministic, because Ed25519 and the encoding are."""
    envelope = Envelope(payload, payload_type, {})
    for key in keys:
        envelope.sign(CryptoSigner(key.private, _library_key(key.public)))
    return rfc8785.dumps(envelope.to_dict()) + b"\n"


def inspect(envelope: bytes) -> UnverifiedPackage:
    """What an envelope claims, without believing it.

    Raises:
        PackageError: E_SIZE, E_JSON, E_TYPE, E_SCHEMA, E_THRESHOLD, E_SUBJECT.
    """
    raw, payload = _open_envelope(envelope)
    return UnverifiedPackage(read_statement(payload), tuple(signature["keyid"] for signature in raw["signatures"]))


def sign(directory: str, *keys: SigningKey) -> VerifiedPackage:
    """Sign the package in `directory` and write component.dsse.json atomically; the same input gives the same bytes.

    Args:
        directory: holds component.wasm and component.toml.
        keys: the keys to sign with; more than one where publishers demand several.

    Raises:
        PackageError: E_PACKAGE, E_SIZE, E_LAYER (not a component), E_DUP_KEY.
        ManifestError: component.toml is wrong.
    """
    if len({key.public for key in keys}) != len(keys) or not keys:
        raise PackageError("each key signs once, and one at least", subject=directory, code="E_DUP_KEY")
    files = read_package(directory)
    if files.manifest is None:
        raise PackageError(
            f"there is no {MANIFEST_NAME}", subject=directory, hint="write one: docs/reference/manifest.md"
        )
    check_component(files.wasm, subject=os.path.join(directory, WASM_NAME))
    manifest = parse_manifest(files.manifest, file=os.path.join(directory, MANIFEST_NAME))
    envelope = make_envelope(make_statement(files.wasm, manifest), keys)
    # What is written is what every host will verify; a package that would be refused is not published.
    verified = verify(files.wasm, envelope, [key.public for key in keys], manifest_toml=files.manifest)
    dir_fd = open_directory(directory)
    try:
        write_atomic(dir_fd, ENVELOPE_NAME, envelope, mode=0o644)
    except OSError as error:
        raise PackageError(f"{ENVELOPE_NAME} cannot be written: {error.strerror}", subject=directory) from error
    finally:
        os.close(dir_fd)
    return verified


def verify(
    wasm: bytes, envelope: bytes | None, keys: Iterable[PublicKey], *, manifest_toml: str | bytes | None = None
) -> VerifiedPackage:
    """Decide whether `wasm` is what a holder of one of `keys` signed.

    Args:
        wasm: the component's bytes; the very bytes that will be compiled, never a path to them.
        envelope: content of component.dsse.json, None where there is none.
        keys: the keys the host knows.
        manifest_toml: the component.toml that lies beside, which then must say what was signed.

    Raises:
        PackageError: one of the codes in the module's docstring, or E_NO_ENVELOPE.
        ManifestError: `manifest_toml` is no manifest.
    """
    if envelope is None:
        raise PackageError(
            "the package is not signed", hint="the publisher runs: airssys sign DIR --key FILE", code="E_NO_ENVELOPE"
        )
    raw, payload = _open_envelope(envelope)
    keyids = _check_signatures(raw, keys)
    # From here on the payload is the publisher's word. The envelope is not read again.
    statement = read_statement(payload)
    name = statement.manifest.component.name
    if len(wasm) != statement.size:
        raise PackageError(
            f"component.wasm has {len(wasm)} bytes, signed were {statement.size}", subject=name, code="E_SIZE"
        )
    digest = hashlib.sha256(wasm).hexdigest()
    if digest != statement.digest:
        raise PackageError(
            "component.wasm is not the file that was signed",
            subject=name,
            hint="get the package again; if it was built anew it must be signed anew",
            code="E_DIGEST",
        )
    check_component(wasm, subject=name)
    if manifest_toml is not None and parse_manifest(manifest_toml) != statement.manifest:
        raise PackageError(
            "manifest differs from what was signed: component.toml was changed after signing",
            subject=name,
            hint="sign the package again, or restore component.toml",
            code="E_SCHEMA",
        )
    return VerifiedPackage(manifest=statement.manifest, digest=digest, size=len(wasm), keyids=keyids)


def _open_envelope(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Step 1: the envelope as a plain dictionary of known form, and its payload."""
    raw = loads_object(data, max_bytes=MAX_ENVELOPE, what="the envelope")
    try:
        envelope = msgspec.convert(raw, _Envelope)
    except msgspec.ValidationError as error:
        if raw.get("signatures") in (None, []):
            raise _no_signature() from error
        raise PackageError(f"the envelope has another form: {error}", code="E_SCHEMA") from error
    if envelope.payload_type != PAYLOAD_TYPE:
        raise PackageError(
            "the envelope holds something else than a statement", subject=envelope.payload_type[:100], code="E_TYPE"
        )
    if not envelope.signatures:
        raise _no_signature()
    if len(envelope.signatures) > MAX_SIGNATURES:
        raise PackageError(f"more than {MAX_SIGNATURES} signatures", code="E_SCHEMA")
    for signature in envelope.signatures:
        if not is_digest(signature.keyid):
            raise PackageError("a key id is not 64 small hexadecimal digits", code="E_SCHEMA")
        if len(_base64(signature.sig)) != 64:
            raise PackageError("a signature is not 64 bytes long, as Ed25519's are", code="E_ALG")
    return raw, _base64(envelope.payload)


def _check_signatures(raw: dict[str, Any], keys: Iterable[PublicKey]) -> tuple[str, ...]:
    """Step 2: the known keys that signed. A known key's bad signature refuses all; strangers' do not count."""
    # Ids are computed from the keys' bytes, so one key cannot stand under two names.
    known = {key.keyid: key for key in keys}
    claimed = [signature["keyid"] for signature in raw["signatures"]]
    if len(set(claimed)) != len(claimed):
        raise PackageError("one key id signs twice", code="E_DUP_KEY")
    signed_by = [keyid for keyid in claimed if keyid in known]
    if not signed_by:
        raise PackageError(
            "no key this host knows has signed the package",
            subject=", ".join(claimed),
            hint="if the publisher is to be believed: airssys trust add NAME --key FILE.pub --scope 'NAME/*'",
            code="E_UNTRUSTED",
        )
    envelope = Envelope.from_dict(copy.deepcopy(raw))  # from_dict takes its argument apart
    for keyid in signed_by:
        try:
            envelope.verify([_library_key(known[keyid])], 1)
        except VerificationError as error:
            raise PackageError(
                "the signature does not fit the content: it was changed after signing, or another key signed it",
                subject=keyid,
                hint="get the package again from its publisher",
                code="E_BAD_SIG",
            ) from error
    return tuple(signed_by)


def _no_signature() -> PackageError:
    return PackageError("the envelope holds no signature", code="E_THRESHOLD")


def _base64(text: str) -> bytes:
    # One spelling only (RFC 4648 section 4): the url-safe alphabet and stray padding bits would make other bytes
    # of the same envelope.
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error) as error:
        raise PackageError("a field of the envelope is not base64", code="E_SCHEMA") from error
    if base64.b64encode(data).decode() != text:
        raise PackageError("a field of the envelope is not canonical base64", code="E_SCHEMA")
    return data


def _library_key(key: PublicKey) -> SSlibKey:
    # Type and scheme come from here, never from a file, so no key is ever taken for one of another algorithm.
    return SSlibKey(key.keyid, "ed25519", "ed25519", {"public": key.raw.hex()})
