"""The trust store: who may publish what, and what is believed no longer."""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from sandbox.errors import AirssysError
from supervisor.packages import files
from supervisor.packages.errors import PackageError, TrustStoreError
from supervisor.packages.keys import PublicKey, public_from_raw
from supervisor.packages.trust import Level, TrustStore, _in_scope

pytestmark = pytest.mark.block7_lifecycle

NOW = datetime.datetime(2026, 11, 22, 10, 0, tzinfo=datetime.UTC)
DIGEST = "ab" * 32


def key(number: int) -> PublicKey:
    return public_from_raw(Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32).public_key().public_bytes_raw())


A, B, C = key(1), key(2), key(3)


@pytest.fixture
def store(tmp_path: Path) -> TrustStore:
    return TrustStore(str(tmp_path / "trust"))


def code(call: Callable[[], object]) -> str:
    with pytest.raises(AirssysError) as caught:
        call()
    return caught.value.code


def test_nobody_is_trusted_at_first(store: TrustStore) -> None:
    """A store that does not exist yet is empty, and everything is refused."""
    assert [] == store.list()
    assert () == store.keys()
    assert "E_UNTRUSTED" == code(lambda: store.authorize("acme/x", [A.keyid]))
    assert not os.path.exists(store.directory)


def test_a_publisher_within_its_scope(store: TrustStore) -> None:
    """Added with a scope and a level, a publisher's key lets its packages in at that level."""
    store.add("acme", [A], ["acme/*"], level="trusted", now=NOW)
    decision = store.authorize("acme/reader", [A.keyid], digest=DIGEST)
    assert ("acme", Level.TRUSTED, (A.keyid,)) == (decision.publisher, decision.level, decision.keyids)
    assert not decision.needs_consent
    store.add("bravo", [B], ["tools/one"])
    assert store.authorize("tools/one", [B.keyid]).needs_consent
    assert (A, B) == tuple(sorted(store.keys(), key=(A, B).index))


@pytest.mark.parametrize("package", ["other/x", "acme-evil/x", "acm/x", "acme/../x", "acme/x/y", "acme", "acme/", "/x"])
def test_names_outside_the_scope(store: TrustStore, package: str) -> None:
    """`acme/*` covers one component under acme and nothing that merely begins alike."""
    store.add("acme", [A], ["acme/*"])
    assert store.authorize("acme/x", [A.keyid])
    assert "E_SCOPE" == code(lambda: store.authorize(package, [A.keyid]))


_PART = st.sampled_from(["acme", "acme-evil", "acm", "x", "reader", "a"])


@given(st.lists(st.tuples(_PART, _PART | st.just("*")), max_size=4), _PART, _PART)
def test_scopes_are_matched_by_component(scopes: list[tuple[str, str]], namespace: str, name: str) -> None:
    """A scope covers exactly the names whose two parts it spells, `*` standing for any second part."""
    expected = any(scope[0] == namespace and scope[1] in (name, "*") for scope in scopes)
    assert expected == _in_scope(["/".join(scope) for scope in scopes], f"{namespace}/{name}")


def test_another_publishers_key(store: TrustStore) -> None:
    """Each key opens its own publisher's scope only; an unknown one opens none."""
    store.add("acme", [A], ["acme/*"])
    store.add("bravo", [B], ["bravo/*"])
    assert "E_SCOPE" == code(lambda: store.authorize("acme/x", [B.keyid]))
    assert "E_UNTRUSTED" == code(lambda: store.authorize("acme/x", [C.keyid]))
    assert "E_UNTRUSTED" == code(lambda: store.authorize("acme/x", []))


def test_deny_wins(store: TrustStore) -> None:
    """A denied publisher's names are refused whoever signed, and its key's packages whatever their name."""
    store.add("acme", [A], ["acme/*", "evil/*"], level="trusted")
    assert store.authorize("evil/x", [A.keyid])
    store.add("evil", [B], ["evil/*"], level="deny")
    assert "E_DENIED" == code(lambda: store.authorize("evil/x", [A.keyid]))
    assert "E_DENIED" == code(lambda: store.authorize("acme/x", [A.keyid, B.keyid]))
    assert store.authorize("acme/x", [A.keyid])


def test_a_threshold_counts_different_keys_of_one_publisher(store: TrustStore) -> None:
    """With threshold 2, one key is too few, whoever else signed; revoked keys do not count."""
    store.add("acme", [A, B], ["acme/*"], threshold=2)
    store.add("bravo", [C], ["bravo/*"])
    assert "E_THRESHOLD" == code(lambda: store.authorize("acme/x", [A.keyid]))
    assert "E_THRESHOLD" == code(lambda: store.authorize("acme/x", [A.keyid, A.keyid]))
    assert "E_THRESHOLD" == code(lambda: store.authorize("acme/x", [A.keyid, C.keyid]))
    assert store.authorize("acme/x", [A.keyid, B.keyid])
    store.revoke(B.keyid)
    assert "E_THRESHOLD" == code(lambda: store.authorize("acme/x", [A.keyid, B.keyid]))


@pytest.mark.parametrize("threshold", [0, -1, 2])
def test_thresholds_that_cannot_be(store: TrustStore, threshold: int) -> None:
    """Below one or above the number of keys is refused when the publisher is added."""
    assert "E_TRUST" == code(lambda: store.add("acme", [A], ["acme/*"], threshold=threshold))


def test_one_key_is_one_publishers(store: TrustStore) -> None:
    """A key given twice, or held by somebody else already, is E_DUP_KEY."""
    assert "E_DUP_KEY" == code(lambda: store.add("acme", [A, key(1)], ["acme/*"], threshold=2))
    store.add("acme", [A], ["acme/*"])
    assert "E_DUP_KEY" == code(lambda: store.add("bravo", [A], ["bravo/*"]))
    store.add("bravo", [B], ["bravo/*"])
    assert "E_DUP_KEY" == code(lambda: store.rotate("bravo", A))


def test_adding_again(store: TrustStore) -> None:
    """The same again changes nothing; something else under the same name is refused."""
    first = store.add("acme", [A], ["acme/*"], now=NOW)
    assert first == store.add("acme", [A], ["acme/*"])
    assert "E_TRUST" == code(lambda: store.add("acme", [A], ["acme/*", "other/*"]))
    assert "E_TRUST" == code(lambda: store.add("acme", [B], ["acme/*"]))
    assert [first] == store.list()


@pytest.mark.parametrize("name", ["", "Acme", "../acme", "a/b", "revoked", ".acme", "a" * 65, "acme\n", "-a", "a--b"])
def test_names_that_are_no_publishers(store: TrustStore, name: str) -> None:
    """A publisher's name is a file's name and a word: nothing else passes."""
    assert "E_TRUST" == code(lambda: store.add(name, [A], ["acme/*"]))


@pytest.mark.parametrize(
    "scope", ["", "*", "*/*", "acme", "acme/", "acme/**", "acme/x/*", "ac*/x", "../*", "host/*", "Acme/*"]
)
def test_scopes_that_are_none(store: TrustStore, scope: str) -> None:
    """A scope is namespace/* or namespace/name; nothing covers every namespace."""
    assert "E_TRUST" == code(lambda: store.add("acme", [A], [scope]))
    assert "E_TRUST" == code(lambda: store.add("acme", [A], []))


def test_a_level_that_is_none(store: TrustStore) -> None:
    """trusted, review, deny; and a publisher has a key."""
    assert "E_TRUST" == code(lambda: store.add("acme", [A], ["acme/*"], level="full"))
    assert "E_TRUST" == code(lambda: store.add("acme", [], ["acme/*"]))


def test_remove(store: TrustStore) -> None:
    """Who is removed is unknown again; removing a stranger is an error."""
    store.add("acme", [A], ["acme/*"])
    store.remove("acme")
    assert "E_UNTRUSTED" == code(lambda: store.authorize("acme/x", [A.keyid]))
    assert "E_TRUST" == code(lambda: store.remove("acme"))
    assert "E_TRUST" == code(lambda: store.get("acme"))


def test_rotate(store: TrustStore) -> None:
    """After a rotation the new key counts and the old one does not; scope and level stay."""
    store.add("acme", [A], ["acme/*"], level="trusted")
    store.rotate("acme", B)
    assert Level.TRUSTED is store.authorize("acme/x", [B.keyid]).level
    assert "E_UNTRUSTED" == code(lambda: store.authorize("acme/x", [A.keyid]))
    assert "E_TRUST" == code(lambda: store.rotate("acme", C, old=A.keyid))
    assert "E_TRUST" == code(lambda: store.rotate("nobody", C))


def test_rotate_one_of_several(store: TrustStore) -> None:
    """With several keys the one that goes must be named."""
    store.add("acme", [A, B], ["acme/*"], threshold=2)
    assert "E_TRUST" == code(lambda: store.rotate("acme", C))
    store.rotate("acme", C, old=A.keyid)
    assert {B.keyid, C.keyid} == {held.keyid for held in store.get("acme").keys}


def test_revoke_a_key(store: TrustStore) -> None:
    """A revoked key is refused at once, also through a store that was open before, and can never come back."""
    store.add("acme", [A], ["acme/*"], level="trusted")
    other = TrustStore(store.directory)
    assert other.authorize("acme/x", [A.keyid])
    store.revoke(A.keyid, reason="laptop stolen", now=NOW)
    with pytest.raises(PackageError) as caught:
        other.authorize("acme/x", [A.keyid])
    assert "E_REVOKED" == caught.value.code
    assert "laptop stolen" in caught.value.message
    store.remove("acme")
    assert "E_REVOKED" == code(lambda: store.add("again", [A], ["acme/*"]))
    store.add("acme", [B], ["acme/*"])
    assert "E_REVOKED" == code(lambda: store.rotate("acme", A))


def test_revoked_keys_are_still_shown_to_verify(store: TrustStore) -> None:
    """`keys` keeps revoked keys, so that the refusal says revoked and not unknown."""
    store.add("acme", [A], ["acme/*"])
    store.revoke(A.keyid)
    assert (A,) == store.keys()


def test_a_good_key_beside_a_revoked_one(store: TrustStore) -> None:
    """A thief's signature added to an honest package does not take it away."""
    store.add("acme", [A], ["acme/*"])
    store.add("bravo", [B], ["acme/*"])
    store.revoke(B.keyid)
    assert "acme" == store.authorize("acme/x", [A.keyid, B.keyid]).publisher


def test_revoke_a_digest(store: TrustStore) -> None:
    """A revoked component is refused whoever signed it."""
    store.add("acme", [A], ["acme/*"], level="trusted")
    store.revoke_digest(DIGEST, reason="leaks", now=NOW)
    assert "E_REVOKED" == code(lambda: store.authorize("acme/x", [A.keyid], digest=DIGEST))
    assert store.authorize("acme/x", [A.keyid], digest="cd" * 32)


def test_revoking_again_keeps_the_first_reason(store: TrustStore) -> None:
    """The first word stands; nonsense is refused."""
    store.revoke(A.keyid, reason="first", now=NOW)
    assert "first" == store.revoke(A.keyid, reason="second").keys[A.keyid].reason
    for nonsense in ("", "AB" * 32, "ab" * 31, "../x"):
        assert "E_TRUST" == code(lambda nonsense=nonsense: store.revoke(nonsense))
    assert "E_TRUST" == code(lambda: store.revoke(B.keyid, reason="\x1b[2J"))


def test_files_are_pretty_and_stable(store: TrustStore) -> None:
    """One file per publisher, indented, keys sorted, mode 0600, the same bytes for the same state."""
    store.add("acme", [B, A], ["acme/*", "acme-tools/x"], now=NOW)
    path = os.path.join(store.directory, "acme.json")
    text = Path(path).read_text()
    assert text.startswith('{\n  "added": "2026-11-22T10:00:00Z",\n  "keys": [')
    assert list(json.loads(text)) == sorted(json.loads(text))
    store.remove("acme")
    store.add("acme", [A, B], ["acme-tools/x", "acme/*"], now=NOW)
    assert text == Path(path).read_text()
    assert 0o600 == os.stat(path).st_mode & 0o777
    assert 0o700 == os.stat(store.directory).st_mode & 0o777


def _damage(store: TrustStore, change: Callable[[dict[str, Any]], object]) -> str:
    path = Path(store.directory, "acme.json")
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))
    return code(lambda: store.authorize("acme/x", [A.keyid]))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda p: p.update(extra=1), "E_TRUST"),
        (lambda p: p.update(name="other"), "E_TRUST"),
        (lambda p: p.update(scopes=["*"]), "E_TRUST"),
        (lambda p: p.update(scopes=["b/*", "a/*"]), "E_TRUST"),
        (lambda p: p.update(level="full"), "E_TRUST"),
        (lambda p: p.update(threshold=0), "E_TRUST"),
        (lambda p: p.update(threshold=2), "E_TRUST"),
        (lambda p: p.update(threshold=2, keys=p["keys"] * 2), "E_TRUST"),
        (lambda p: p["keys"][0].update(keyid=B.keyid), "E_TRUST"),
        (lambda p: p["keys"][0].update(public="00"), "E_TRUST"),
        (lambda p: p["keys"][0].update(public="01" + "00" * 31), "E_WEAK_KEY"),
        (lambda p: p["keys"][0].update(public="ee" + "ff" * 30 + "7f"), "E_WEAK_KEY"),
    ],
)
def test_a_damaged_file_refuses_everything(store: TrustStore, change: Callable[[Any], object], expected: str) -> None:
    """Hand-made nonsense, weak keys and two ids for one key are found on load, and nothing is believed."""
    store.add("acme", [A], ["acme/*"])
    assert store.authorize("acme/x", [A.keyid])
    assert expected == _damage(store, change)


@pytest.mark.parametrize("content", [b"", b"{}", b'{"keys":{},"keys":{}}', b'{"keys":{"x":{"reason":"","added":""}}}'])
def test_damaged_revocations_refuse_everything(store: TrustStore, content: bytes) -> None:
    """An emergency list that cannot be read is no empty list."""
    store.add("acme", [A], ["acme/*"])
    Path(store.directory, "revoked.json").write_bytes(content)
    if content == b"{}":
        assert store.authorize("acme/x", [A.keyid])
    else:
        assert "E_TRUST" == code(lambda: store.authorize("acme/x", [A.keyid]))


def test_a_store_others_may_write_is_refused(store: TrustStore) -> None:
    """A group-writable file or directory, and a link, refuse everything."""
    store.add("acme", [A], ["acme/*"])
    path = os.path.join(store.directory, "acme.json")
    os.chmod(path, 0o664)
    assert code(lambda: store.authorize("acme/x", [A.keyid])) in ("E_POLICY_PERM", "E_TRUST")
    os.chmod(path, 0o600)
    assert store.authorize("acme/x", [A.keyid])
    os.chmod(store.directory, 0o770)
    assert "E_POLICY_PERM" == code(store.list)
    os.chmod(store.directory, 0o700)
    os.rename(path, store.directory + "-aside")
    os.symlink(store.directory + "-aside", path)
    assert "E_TRUST" == code(store.list)
    os.symlink(store.directory, store.directory + "-link")
    assert "E_TRUST" == code(TrustStore(store.directory + "-link").list)


def test_leftovers_of_a_crash_are_ignored(store: TrustStore) -> None:
    """A temporary file that a crash left is not a publisher."""
    store.add("acme", [A], ["acme/*"])
    Path(store.directory, ".acme.json.0011").write_text("{")
    assert 1 == len(store.list())


@pytest.mark.parametrize("count", range(1, 5))
def test_killed_at_each_sync_a_change_happened_or_did_not(store: TrustStore, count: int) -> None:
    """A revocation cut off at any sync point leaves the store readable, old or new."""
    store.add("acme", [A], ["acme/*"])
    child = os.fork()
    if child == 0:
        left = [count]
        real = os.fsync

        def cut(fd: int) -> None:
            left[0] -= 1
            if left[0] == 0:
                os._exit(9)
            real(fd)

        files.os.fsync = cut
        try:
            store.revoke(A.keyid)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    try:
        assert store.authorize("acme/x", [A.keyid])
    except PackageError as error:
        assert "E_REVOKED" == error.code
    assert [] == [name for name in os.listdir(store.directory) if name.endswith(".json") and name.startswith(".")]
    store.revoke(B.keyid)  # the lock died with its holder


def test_two_changers_do_not_lose_each_others_change(store: TrustStore) -> None:
    """Revocations from several processes at once all arrive."""
    keyids = [f"{number:02x}" * 32 for number in range(16)]
    children = []
    for keyid in keyids:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                store.revoke(keyid)
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    assert {0} == {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children}
    assert set(keyids) == store.revocations().keys.keys()


def test_errors_are_of_the_folders_hierarchy(store: TrustStore) -> None:
    """A misuse of the store is a TrustStoreError; a refused package is a PackageError."""
    with pytest.raises(TrustStoreError):
        store.get("nobody")
    with pytest.raises(PackageError):
        store.authorize("acme/x", [])
