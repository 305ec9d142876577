"""Publishers' keys: files with care, ids computed, weak points refused."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from nacl.bindings import crypto_core_ed25519_add

from supervisor.packages.errors import KeyFileError, PackageError
from supervisor.packages.keys import generate, load_private, load_public, parse_public, public_from_raw

pytestmark = pytest.mark.block7_lifecycle

# The fourteen encodings of the eight points of small order (RFC 8032 encodings, canonical or not).
SMALL_ORDER = [
    bytes.fromhex(text)
    for text in (
        "0100000000000000000000000000000000000000000000000000000000000000",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000080",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
        "0100000000000000000000000000000000000000000000000000000000000080",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    )
]


def key_pem(raw: bytes) -> bytes:
    key = Ed25519PublicKey.from_public_bytes(raw)
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def test_generate_and_load(tmp_path: Path) -> None:
    """A new pair: private 0600, public 0644, one key id, computed from the raw key."""
    path = str(tmp_path / "acme.key")
    old = os.umask(0)
    try:
        public = generate(path)
    finally:
        os.umask(old)
    assert 0o600 == stat.S_IMODE(os.stat(path).st_mode)
    assert 0o644 == stat.S_IMODE(os.stat(f"{path}.pub").st_mode)
    assert public == load_public(f"{path}.pub") == load_private(path).public
    assert hashlib.sha256(public.raw).hexdigest() == public.keyid
    assert public.keyid.startswith(public.fingerprint.replace("-", ""))
    assert public == parse_public(public.pem())


@pytest.mark.parametrize("taken", ["acme.key", "acme.key.pub"])
def test_nothing_is_overwritten(tmp_path: Path, taken: str) -> None:
    """When one of the two names is taken, neither file is made and the old one stays."""
    (tmp_path / taken).write_text("precious")
    with pytest.raises(KeyFileError) as caught:
        generate(str(tmp_path / "acme.key"))
    assert "E_KEY" == caught.value.code
    assert [taken] == [entry.name for entry in tmp_path.iterdir()]
    assert "precious" == (tmp_path / taken).read_text()


def test_a_dangling_link_is_not_written_through(tmp_path: Path) -> None:
    """A link laid out under the name does not choose where the private key goes."""
    os.symlink(tmp_path / "elsewhere", tmp_path / "acme.key")
    with pytest.raises(KeyFileError):
        generate(str(tmp_path / "acme.key"))
    assert not (tmp_path / "elsewhere").exists()


def test_generate_into_nowhere(tmp_path: Path) -> None:
    """A directory that does not exist is an error with the file's name."""
    with pytest.raises(KeyFileError) as caught:
        generate(str(tmp_path / "no" / "acme.key"))
    assert "acme.key" in caught.value.subject


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o660, 0o666])
def test_a_private_key_others_may_touch_is_refused(tmp_path: Path, mode: int) -> None:
    """0600 loads; any right of group or world does not."""
    path = str(tmp_path / "k")
    generate(path)
    assert load_private(path)
    os.chmod(path, mode)
    with pytest.raises(KeyFileError):
        load_private(path)


def test_a_private_key_that_is_no_plain_file_is_refused(tmp_path: Path) -> None:
    """Links, FIFOs, directories and missing files are refused without blocking."""
    generate(str(tmp_path / "k"))
    os.symlink(tmp_path / "k", tmp_path / "link")
    os.mkfifo(tmp_path / "fifo", 0o600)
    for name in ("link", "fifo", ".", "missing"):
        with pytest.raises(KeyFileError):
            load_private(str(tmp_path / name))
    with pytest.raises(KeyFileError):
        load_public(str(tmp_path / "fifo"))


def test_other_contents_are_refused(tmp_path: Path) -> None:
    """Garbage, an encrypted key and a public key in the private one's place are errors, not crashes."""
    private = Ed25519PrivateKey.generate()
    for number, content in enumerate(
        (
            b"",
            b"garbage",
            b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")),
            key_pem(private.public_key().public_bytes_raw()),
            b"x" * 20_000,
        )
    ):
        path = tmp_path / str(number)
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(KeyFileError):
            load_private(str(path))
    for content in (b"", b"garbage", private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())):
        with pytest.raises(KeyFileError):
            parse_public(content)


def test_another_algorithm_is_refused(tmp_path: Path) -> None:
    """An ECDSA key, public or private, is E_ALG."""
    key = generate_private_key(SECP256R1())
    with pytest.raises(PackageError) as caught:
        parse_public(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    assert "E_ALG" == caught.value.code
    path = tmp_path / "k"
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path.chmod(0o600)
    with pytest.raises(PackageError) as caught:
        load_private(str(path))
    assert "E_ALG" == caught.value.code
    with pytest.raises(PackageError) as caught:
        public_from_raw(b"short")
    assert "E_ALG" == caught.value.code


@pytest.mark.parametrize("raw", SMALL_ORDER, ids=bytes.hex)
def test_points_of_small_order_are_refused(raw: bytes) -> None:
    """Each encoding of each small-order point is E_WEAK_KEY, raw or in a file."""
    for call in (lambda: public_from_raw(raw), lambda: parse_public(key_pem(raw))):
        with pytest.raises(PackageError) as caught:
            call()
        assert "E_WEAK_KEY" == caught.value.code


def test_points_of_mixed_order_and_off_the_curve_are_refused() -> None:
    """An honest key plus a point of order eight is refused; so is what is no point; the honest key is not."""
    honest = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    assert public_from_raw(honest)
    for raw in (crypto_core_ed25519_add(honest, SMALL_ORDER[4]), b"\x02" + bytes(31), b"\xff" * 32):
        with pytest.raises(PackageError) as caught:
            public_from_raw(raw)
        assert "E_WEAK_KEY" == caught.value.code


def test_without_the_check_a_weak_key_signs_everything() -> None:
    """Positive control: OpenSSL accepts, under the identity as key, one constant as signature of any message."""
    weak = Ed25519PublicKey.from_public_bytes(SMALL_ORDER[0])
    weak.verify(SMALL_ORDER[0] + bytes(32), b"any message at all")
    weak.verify(SMALL_ORDER[0] + bytes(32), b"and another")


def test_a_signing_key_does_not_show_itself(tmp_path: Path) -> None:
    """The text form of a private key is its public fingerprint."""
    generate(str(tmp_path / "k"))
    key = load_private(str(tmp_path / "k"))
    assert f"SigningKey({key.public.fingerprint})" == repr(key)
