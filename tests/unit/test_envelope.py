"""The signed envelope: what was signed is accepted, anything else is refused with its own code."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.packages.envelope import (
    PAYLOAD_TYPE,
    PREDICATE_TYPE,
    VerifiedPackage,
    inspect,
    make_envelope,
    sign,
    verify,
)
from supervisor.packages.errors import ManifestError, PackageError
from supervisor.packages.keys import SigningKey
from supervisor.packages.layer import COMPONENT_PREAMBLE, check_component
from supervisor.packages.manifest import parse_manifest
from supervisor.packages.statement import make_statement

pytestmark = pytest.mark.block7_lifecycle

MANIFEST = """[component]
name = "acme/redactor"
version = "1.4.0"
release = 17
world = "airssys:core/runtime-host@1.0.0"
"""
WASM = COMPONENT_PREAMBLE + b"\x00\x05\x04note" + b"\x00\x81\x80\x00\x00"
CORE = b"\0asm\x01\x00\x00\x00"
ORDER = 2**252 + 27742317777372353535851937790883648493  # of the Ed25519 base point


def key(number: int) -> SigningKey:
    return SigningKey(Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32))


ACME, OTHER = key(1), key(2)


def statement() -> dict[str, Any]:
    value: dict[str, Any] = json.loads(make_statement(WASM, parse_manifest(MANIFEST)))
    return value


def enveloped(value: dict[str, Any], *keys: SigningKey) -> bytes:
    return make_envelope(rfc8785.dumps(value), keys or [ACME])


GOOD = make_envelope(make_statement(WASM, parse_manifest(MANIFEST)), [ACME])


def code(envelope: bytes | None, wasm: bytes = WASM, keys: tuple[SigningKey, ...] = (ACME,), **more: Any) -> str:
    with pytest.raises(PackageError) as caught:
        verify(wasm, envelope, [each.public for each in keys], **more)
    return caught.value.code


def edited(change: Callable[[dict[str, Any]], object], envelope: bytes = GOOD) -> bytes:
    value = json.loads(envelope)
    change(value)
    return json.dumps(value).encode()


def test_what_was_signed_is_accepted() -> None:
    """Manifest, digest, size and key come out of the signed bytes."""
    package = verify(WASM, GOOD, [OTHER.public, ACME.public], manifest_toml=MANIFEST)
    assert hashlib.sha256(WASM).hexdigest() == package.digest
    assert (len(WASM), (ACME.public.keyid,), ACME.public.keyid) == (package.size, package.keyids, package.keyid)
    assert parse_manifest(MANIFEST) == package.manifest


def test_signing_is_deterministic() -> None:
    """The same key and files give the same bytes, on any machine: a golden value."""
    assert GOOD == make_envelope(make_statement(WASM, parse_manifest(MANIFEST)), [ACME])
    assert "8f352085e00006c65a973afeb331248a5c3fb87eff7b294742a27906d195785f" == hashlib.sha256(GOOD).hexdigest()


def test_an_envelope_can_be_looked_at_without_a_key() -> None:
    """`inspect` tells the claims; it is another type than what `verify` returns."""
    claim = inspect(GOOD)
    assert not isinstance(claim, VerifiedPackage)
    assert ("acme/redactor", (ACME.public.keyid,)) == (claim.statement.manifest.component.name, claim.keyids)


# -- the component's bytes ------------------------------------------------------------------------------------------


@given(st.integers(0, len(WASM) - 1), st.integers(1, 255))
def test_a_flipped_byte_is_a_wrong_digest(at: int, mask: int) -> None:
    """Any changed byte of component.wasm is E_DIGEST."""
    flipped = bytearray(WASM)
    flipped[at] ^= mask
    assert "E_DIGEST" == code(GOOD, bytes(flipped))


@pytest.mark.parametrize("wasm", [WASM + b"\0", b"\0" + WASM, WASM[:-1], b"", WASM + WASM])
def test_other_lengths_are_refused(wasm: bytes) -> None:
    """Appended, prepended and cut bytes are E_SIZE."""
    assert "E_SIZE" == code(GOOD, wasm)


def test_a_signed_size_that_lies_is_refused() -> None:
    """Digest right, size wrong: E_SIZE."""
    value = statement()
    value["predicate"]["size"] += 1
    assert "E_SIZE" == code(enveloped(value))


@pytest.mark.parametrize(
    "wasm",
    [
        b"",
        b"\0as",
        CORE,
        CORE + b"\x00\x05\x04note",
        b"\x7fELF" + bytes(60),
        b"\0asm\x0e\x00\x01\x00",
        WASM + b"\x0d\x00",
        WASM[:-1],
        WASM + b"\x00",
        WASM + b"\x00\x80",
        WASM + b"\x00\x80\x80\x80\x80\x80\x00",
        WASM + b"\x00\xff\xff\xff\xff\x7f",
        WASM + b"\x00\xff\xff\xff\xff\x0f",
        COMPONENT_PREAMBLE + b"\x00\x00" * 100_001,
        b"PK\x03\x04" + bytes(30),
    ],
    ids=range(15),
)
def test_what_is_no_component_is_refused_even_signed(wasm: bytes) -> None:
    """Core modules, native code, cut files and unknown sections are E_LAYER whoever signed them."""
    envelope = make_envelope(make_statement(wasm, parse_manifest(MANIFEST)), [ACME])
    assert "E_LAYER" == code(envelope, wasm)
    check_component(WASM)  # positive control: the same framing, whole


# -- the envelope -----------------------------------------------------------------------------------------------


def test_no_envelope() -> None:
    """An unsigned package is refused; there is no way to say that this is all right."""
    assert "E_NO_ENVELOPE" == code(None)


@pytest.mark.parametrize(
    ("envelope", "expected"),
    [
        (b"{}", "E_THRESHOLD"),
        (edited(lambda e: e.update(signatures=[])), "E_THRESHOLD"),
        (edited(lambda e: e.pop("signatures")), "E_THRESHOLD"),
        (edited(lambda e: e.update(signatures={})), "E_SCHEMA"),
        (edited(lambda e: e.update(extra=1)), "E_SCHEMA"),
        (edited(lambda e: e["signatures"][0].update(extra=1)), "E_SCHEMA"),
        (edited(lambda e: e["signatures"][0].pop("keyid")), "E_SCHEMA"),
        (edited(lambda e: e["signatures"][0].update(keyid="")), "E_SCHEMA"),
        (edited(lambda e: e["signatures"][0].update(keyid=ACME.public.keyid.upper())), "E_SCHEMA"),
        (edited(lambda e: e["signatures"][0].update(keyid=OTHER.public.keyid)), "E_UNTRUSTED"),
        (edited(lambda e: e["signatures"][0].update(sig="AAAA")), "E_ALG"),
        (edited(lambda e: e["signatures"][0].update(sig=base64.b64encode(bytes(64)).decode())), "E_BAD_SIG"),
        (edited(lambda e: e["signatures"].append(e["signatures"][0])), "E_DUP_KEY"),
        (edited(lambda e: e.update(signatures=e["signatures"] * 9)), "E_SCHEMA"),
        (edited(lambda e: e.update(payload=e["payload"][:-4])), "E_BAD_SIG"),
        (edited(lambda e: e.update(payload="e30=")), "E_BAD_SIG"),
        (edited(lambda e: e.update(payload="e30")), "E_SCHEMA"),
        (edited(lambda e: e.update(payload="e31=")), "E_SCHEMA"),
        (edited(lambda e: e.update(payload="e30=\n")), "E_SCHEMA"),
        (edited(lambda e: e.update(payload="ä")), "E_SCHEMA"),
        (edited(lambda e: e.update(payload=1)), "E_SCHEMA"),
        (edited(lambda e: e.update(payloadType="application/vnd.in-toto+JSON")), "E_TYPE"),
        (edited(lambda e: e.update(payloadType="text/plain")), "E_TYPE"),
        (GOOD[:-20], "E_JSON"),
        (b"\xef\xbb\xbf" + GOOD, "E_JSON"),
        (GOOD + b"x", "E_JSON"),
        (b'{"payload":"e30=",' + GOOD[1:], "E_JSON"),
        (b" " * (256 * 1024) + GOOD, "E_SIZE"),
        (b"", "E_JSON"),
    ],
)
def test_edited_envelopes_are_refused(envelope: bytes, expected: str) -> None:
    """Each way to edit an envelope without the key has its code."""
    assert verify(WASM, edited(lambda e: None), [ACME.public])  # positive control: editing by itself is harmless
    assert expected == code(envelope)


def test_url_safe_base64_is_refused() -> None:
    """A second spelling of the same signature is refused; securesystemslib alone would take it."""
    for number in range(3, 60):
        signer = key(number)
        envelope = make_envelope(make_statement(WASM, parse_manifest(MANIFEST)), [signer])
        sig = json.loads(envelope)["signatures"][0]["sig"]
        if "+" in sig or "/" in sig:
            break
    safe = edited(lambda e: e["signatures"][0].update(sig=sig.replace("+", "-").replace("/", "_")), envelope)
    assert verify(WASM, envelope, [signer.public])
    assert "E_SCHEMA" == code(safe, keys=(signer,))


def test_the_payload_type_is_signed() -> None:
    """The same payload signed under another type does not pass as a statement."""
    envelope = make_envelope(make_statement(WASM, parse_manifest(MANIFEST)), [ACME], payload_type="text/plain")
    assert "E_TYPE" == code(envelope)
    assert "E_BAD_SIG" == code(edited(lambda e: e.update(payloadType=PAYLOAD_TYPE), envelope))


def test_a_malleated_signature_is_refused() -> None:
    """S + L instead of S is another spelling of the same signature and is E_BAD_SIG."""
    raw = base64.b64decode(json.loads(GOOD)["signatures"][0]["sig"])
    scalar = int.from_bytes(raw[32:], "little") + ORDER
    sig = base64.b64encode(raw[:32] + scalar.to_bytes(32, "little")).decode()
    assert "E_BAD_SIG" == code(edited(lambda e: e["signatures"][0].update(sig=sig)))


def test_signed_by_somebody_else() -> None:
    """A stranger's signature is E_UNTRUSTED; under the publisher's key id it is E_BAD_SIG."""
    envelope = enveloped(statement(), OTHER)
    assert "E_UNTRUSTED" == code(envelope)
    assert "E_UNTRUSTED" == code(envelope, keys=())
    assert "E_BAD_SIG" == code(edited(lambda e: e["signatures"][0].update(keyid=ACME.public.keyid), envelope))


def test_two_signatures_count_as_two_keys() -> None:
    """Two known keys are both reported; a stranger's beside a known one does not count and does not harm."""
    both = enveloped(statement(), ACME, OTHER)
    keys = {ACME.public.keyid, OTHER.public.keyid}
    assert keys == set(verify(WASM, both, [ACME.public, OTHER.public]).keyids)
    assert (ACME.public.keyid,) == verify(WASM, both, [ACME.public]).keyids


def test_one_known_bad_signature_spoils_all() -> None:
    """A known key's signature that does not verify refuses the package, good ones beside it notwithstanding."""
    both = json.loads(enveloped(statement(), ACME, OTHER))
    by_other = next(each for each in both["signatures"] if each["keyid"] == OTHER.public.keyid)
    by_other["sig"] = base64.b64encode(bytes(64)).decode()
    assert "E_BAD_SIG" == code(json.dumps(both).encode(), keys=(ACME, OTHER))


def test_a_key_given_twice_is_one_key() -> None:
    """Key ids are computed from the bytes, so a key listed twice signs once."""
    assert (ACME.public.keyid,) == verify(WASM, GOOD, [ACME.public, key(1).public]).keyids


# -- the statement ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda s: s.update(_type="https://in-toto.io/Statement/v0.1"), "E_TYPE"),
        (lambda s: s.pop("_type"), "E_TYPE"),
        (lambda s: s.update(predicateType="https://slsa.dev/provenance/v1"), "E_TYPE"),
        (lambda s: s.update(predicateType=PREDICATE_TYPE + "/"), "E_TYPE"),
        (lambda s: s.update(predicateType=[PREDICATE_TYPE]), "E_TYPE"),
        (lambda s: s.update(extra=1), "E_SCHEMA"),
        (lambda s: s["predicate"].update(extra=1), "E_SCHEMA"),
        (lambda s: s["predicate"]["manifest"]["component"].update(extra=1), "E_SCHEMA"),
        (lambda s: s["predicate"]["manifest"]["component"].update(name="acme/\x1b[31mred"), "E_SCHEMA"),
        (lambda s: s["predicate"]["manifest"]["component"].update(description="\u202etxet"), "E_SCHEMA"),
        (lambda s: s["predicate"].pop("size"), "E_SCHEMA"),
        (lambda s: s.update(subject=s["subject"] * 2), "E_SCHEMA"),
        (lambda s: s.update(subject=[]), "E_SCHEMA"),
        (lambda s: s["subject"][0].update(extra=1), "E_SCHEMA"),
        (lambda s: s["subject"][0]["digest"].update(sha512="0" * 128), "E_SCHEMA"),
        (lambda s: s["subject"][0].update(digest={"sha1": "0" * 40}), "E_SCHEMA"),
        (lambda s: s["subject"][0].update(digest={}), "E_SCHEMA"),
        (lambda s: s["subject"][0]["digest"].update(sha256=s["subject"][0]["digest"]["sha256"].upper()), "E_SCHEMA"),
        (lambda s: s["subject"][0]["digest"].update(sha256="0" * 64), "E_DIGEST"),
        (lambda s: s["subject"][0].update(name="acme/other"), "E_SUBJECT"),
        (lambda s: s["subject"][0].update(name="component.wasm"), "E_SUBJECT"),
        (lambda s: s["predicate"]["manifest"]["component"].update(name="acme/other"), "E_SUBJECT"),
    ],
)
def test_signed_statements_of_another_kind_are_refused(
    change: Callable[[dict[str, Any]], object], expected: str
) -> None:
    """Correctly signed, but for another purpose, about something else, or in another form."""
    value = statement()
    change(value)
    assert expected == code(enveloped(value))


@pytest.mark.parametrize(
    "payload",
    [
        b'{"_type":1,"_type":2}',
        b'{"a":NaN}',
        b'{"a":1e400}',
        b"\xef\xbb\xbf{}",
        b'{"a":"\xff"}',
        b'{"a":' + b"[" * 10_000 + b"]" * 10_000 + b"}",
        b"",
        b"[]",
    ],
)
def test_signed_payloads_that_are_not_strict_json(payload: bytes) -> None:
    """The signed bytes themselves go through the strict loader."""
    assert "E_JSON" == code(make_envelope(payload, [ACME]))


def test_the_envelope_of_another_package() -> None:
    """A good envelope beside another package's bytes is E_DIGEST."""
    other = COMPONENT_PREAMBLE + b"\x00\x05\x04nota" + b"\x00\x81\x80\x00\x00"
    assert "E_DIGEST" == code(GOOD, other)


def test_the_manifest_beside_must_be_the_signed_one() -> None:
    """A component.toml that says something else than was signed is E_SCHEMA; comments and spelling are free."""
    assert verify(WASM, GOOD, [ACME.public], manifest_toml="# note\n" + MANIFEST + "[limits]\nmemory = 67108864\n")
    assert "E_SCHEMA" == code(GOOD, manifest_toml=MANIFEST.replace("release = 17", "release = 18"))
    with pytest.raises(ManifestError):
        verify(WASM, GOOD, [ACME.public], manifest_toml="nonsense")


@settings(max_examples=300)
@given(st.integers(0, len(GOOD) - 1), st.integers(0, 255))
def test_no_changed_byte_of_the_envelope_changes_the_answer(at: int, byte: int) -> None:
    """Whatever single byte is put anywhere: the same package, or a refusal."""
    changed = bytearray(GOOD)
    changed[at] = byte
    expected = verify(WASM, GOOD, [ACME.public])
    try:
        assert expected == verify(WASM, bytes(changed), [ACME.public])
    except PackageError:
        pass


# -- signing a directory ----------------------------------------------------------------------------------------


def package(directory: Path, wasm: bytes = WASM, manifest: str = MANIFEST) -> str:
    (directory / "component.wasm").write_bytes(wasm)
    (directory / "component.toml").write_text(manifest)
    return str(directory)


def test_sign_writes_the_envelope(tmp_path: Path) -> None:
    """`sign` leaves the two files alone, adds the third, and a second run changes nothing."""
    directory = package(tmp_path)
    assert "acme/redactor" == sign(directory, ACME).manifest.component.name
    assert GOOD == (tmp_path / "component.dsse.json").read_bytes()
    sign(directory, ACME)
    assert GOOD == (tmp_path / "component.dsse.json").read_bytes()
    assert {"component.wasm", "component.toml", "component.dsse.json"} == set(os.listdir(directory))


def test_sign_does_not_depend_on_umask_or_locale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Umask, time zone and locale leave no trace in the envelope."""
    directory = package(tmp_path)
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    monkeypatch.setenv("LC_ALL", "tr_TR.UTF-8")
    old = os.umask(0o077)
    try:
        sign(directory, ACME)
    finally:
        os.umask(old)
    assert GOOD == (tmp_path / "component.dsse.json").read_bytes()
    assert 0o644 == os.stat(tmp_path / "component.dsse.json").st_mode & 0o777


def test_sign_with_two_keys(tmp_path: Path) -> None:
    """Two keys sign one statement; the same key twice, or none, is refused."""
    directory = package(tmp_path)
    sign(directory, ACME, OTHER)
    envelope = (tmp_path / "component.dsse.json").read_bytes()
    assert 2 == len(verify(WASM, envelope, [ACME.public, OTHER.public]).keyids)
    for keys in ((ACME, key(1)), ()):
        with pytest.raises(PackageError) as caught:
            sign(directory, *keys)
        assert "E_DUP_KEY" == caught.value.code


@pytest.mark.parametrize("wasm", [CORE, b"\x7fELF" + bytes(60), WASM[:-2], b"", b"\0asm"])
def test_sign_refuses_what_no_host_would_run(tmp_path: Path, wasm: bytes) -> None:
    """Core modules, native code and cut files are not signed, and no envelope is left."""
    directory = package(tmp_path, wasm)
    with pytest.raises(PackageError) as caught:
        sign(directory, ACME)
    assert "E_LAYER" == caught.value.code
    assert not (tmp_path / "component.dsse.json").exists()


def test_sign_refuses_a_wrong_manifest(tmp_path: Path) -> None:
    """The error names the file, key and line; a missing manifest is said to be missing."""
    directory = package(tmp_path, manifest=MANIFEST.replace("17", "0"))
    with pytest.raises(ManifestError) as caught:
        sign(directory, ACME)
    assert (os.path.join(directory, "component.toml"), 4) == (caught.value.file, caught.value.line)
    (tmp_path / "component.toml").unlink()
    with pytest.raises(PackageError):
        sign(directory, ACME)
