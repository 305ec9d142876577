"""What a publisher signs: an in-toto Statement v1 about one file, with the manifest as its predicate.

{"_type": "https://in-toto.io/Statement/v1",
 "subject": [{"name": "acme/redactor", "digest": {"sha256": "<64 hexadecimal digits of component.wasm>"}}],
 "predicateType": "https://airssys.dev/component-package/v1",
 "predicate": {"size": 528147, "manifest": {...}}}
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
import rfc8785

from supervisor.packages.errors import PackageError
from supervisor.packages.manifest import Manifest
from supervisor.packages.package import MAX_ENVELOPE
from supervisor.packages.strict_json import loads_object

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://airssys.dev/component-package/v1"


class _Subject(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    digest: dict[str, str]


class _Predicate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    size: int
    manifest: dict[str, Any]


class _Statement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    type: str = msgspec.field(name="_type")
    subject: list[_Subject]
    predicate_type: str = msgspec.field(name="predicateType")
    predicate: _Predicate


class Statement(msgspec.Struct, frozen=True):
    """A statement's content."""

    manifest: Manifest
    digest: str
    """SHA-256 of component.wasm, 64 hexadecimal digits."""
    size: int
    """Length of component.wasm, bytes."""


def make_statement(wasm: bytes, manifest: Manifest) -> bytes:
    """The bytes a publisher signs: canonical JSON (RFC 8785), the same for the same package on every machine."""
    return rfc8785.dumps(
        {
            "_type": STATEMENT_TYPE,
            "subject": [{"name": manifest.component.name, "digest": {"sha256": hashlib.sha256(wasm).hexdigest()}}],
            "predicateType": PREDICATE_TYPE,
            "predicate": {"size": len(wasm), "manifest": manifest.to_predicate()},
        }
    )


def read_statement(payload: bytes) -> Statement:
    """Read a statement; its bytes are the signed ones, or nobody has to believe the answer.

    Raises:
        PackageError: E_SIZE, E_JSON, E_TYPE (signed for another purpose), E_SCHEMA, E_SUBJECT.
    """
    raw = loads_object(payload, max_bytes=MAX_ENVELOPE, what="the signed statement")
    for field, expected in (("_type", STATEMENT_TYPE), ("predicateType", PREDICATE_TYPE)):
        if raw.get(field) != expected:
            raise PackageError(
                f"{field} of the signed statement is not {expected}",
                subject=ascii(raw.get(field))[:100],
                hint="it was signed for another purpose",
                code="E_TYPE",
            )
    try:
        statement = msgspec.convert(raw, _Statement)
    except msgspec.ValidationError as error:
        raise PackageError(f"the signed statement has another form: {error}", code="E_SCHEMA") from error
    if len(statement.subject) != 1 or list(statement.subject[0].digest) != ["sha256"]:
        raise PackageError("a statement has exactly one subject with exactly one digest, sha256", code="E_SCHEMA")
    subject = statement.subject[0]
    if not is_digest(subject.digest["sha256"]):
        raise PackageError("the digest is not 64 small hexadecimal digits", code="E_SCHEMA")
    manifest = Manifest.from_predicate(statement.predicate.manifest)
    if subject.name != manifest.component.name:
        raise PackageError(
            f"the statement is about {subject.name[:130]!a}, its manifest about {manifest.component.name}",
            code="E_SUBJECT",
        )
    return Statement(manifest=manifest, digest=subject.digest["sha256"], size=statement.predicate.size)


def is_digest(text: str) -> bool:
    """Whether `text` is a SHA-256 as airssys writes it: 64 small hexadecimal digits."""
    return len(text) == 64 and set(text) <= set("0123456789abcdef")
