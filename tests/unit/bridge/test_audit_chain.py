"""The audit log's format: what a changed, removed, reordered or cut line does to it."""

from __future__ import annotations

import json
import os

import msgspec
import pytest
import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.audit import chain
from bridge.audit.chain import ChainBroken, canonical, decode_entry, make_line, verify
from bridge.audit.files import AuditKeyUnusable, load_key, load_public_key, log_files, rotated
from bridge.audit.ledger import Ledger, Pending
from sandbox.wire.audit_frames import Record

pytestmark = pytest.mark.block9_monitoring

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
texts = st.text(max_size=20)
details = st.dictionaries(texts, st.one_of(texts, st.integers(-(2**63), 2**64 - 1)), max_size=4)


def directory(path) -> int:
    """A descriptor of a directory."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY)


def fill(path, count: int, rotate_size: int = 1 << 30, every: int = 3) -> list[bytes]:
    """Write `count` records in batches and close the log; all lines."""
    dirfd = directory(path)
    ledger = Ledger(dirfd, KEY, rotate_size)
    records = [
        Pending("bridge#1", Record(n, "fs.read", "acme/reader/0", "allowed", "/é\n", "ok")) for n in range(1, count + 1)
    ]
    for start in range(0, count, every):
        ledger.write(records[start : start + every])
    ledger.checkpoint()
    ledger.close()
    lines = read_all(path)
    os.close(dirfd)
    return lines


def read_all(path) -> list[bytes]:
    """All lines of all files, oldest first."""
    dirfd = directory(path)
    names = log_files(dirfd)
    os.close(dirfd)
    return [line for name in names for line in (path / name).read_bytes().split(b"\n") if line]


@settings(deadline=None)
@given(st.dictionaries(texts, st.one_of(texts, st.integers(-(2**53) + 1, 2**53 - 1))), texts)
def test_canonical_is_rfc8785(detail, text):
    """The fast encoder gives the bytes of the reference, whatever the strings hold."""
    members = {"component": text, "detail": detail}
    assert rfc8785.dumps(members) == canonical(members)


@settings(deadline=None)
@given(texts, texts, details)
def test_lines_round_trip(text, name, detail):
    """A line parses into what was recorded, is one line, and verifies."""
    record = Record(7, "fs.read", text, "allowed", name, "ok", detail)
    line = make_line(1, chain.now(), "bridge#1", record, chain.GENESIS)
    assert b"\n" not in line
    entry = decode_entry(line)
    assert (text, name) == (entry.component, entry.object)
    assert 1 == verify([line], None).last_seq


def test_lost_walls_are_part_of_the_line():
    """What the host ran without is sorted in the line and under its hash; where nothing is lost there is no member."""
    record = Record(7, "fs.read", "a/b/0", "allowed", "/x", "ok", {})
    whole = make_line(1, chain.now(), "bridge#1", record, chain.GENESIS)
    assert b"lost" not in whole
    assert [] == decode_entry(whole).lost
    line = make_line(1, chain.now(), "bridge#1", record, chain.GENESIS, ("mdwe", "landlock"))
    assert line == rfc8785.dumps(json.loads(line))
    assert ["landlock", "mdwe"] == decode_entry(line).lost
    assert 1 == verify([line], None).last_seq
    for changed in (b'"lost":["landlock"]', b'"lost":[]', b'"lost":["mdwe","landlock"]'):
        with pytest.raises(ChainBroken):
            verify([line.replace(b'"lost":["landlock","mdwe"]', changed)], None)
    with pytest.raises(ChainBroken):
        verify([line.replace(b'"lost":["landlock","mdwe"],', b"")], None)


def test_a_good_log_verifies(tmp_path, monkeypatch):
    """Every line follows, every checkpoint is signed, the last line is covered."""
    monkeypatch.setattr("bridge.audit.ledger.CHECKPOINT_EVERY", 10)
    lines = fill(tmp_path, 35)
    found = verify(lines, KEY.public_key())
    assert (len(lines), len(lines), 4) == (found.last_seq, found.signed_seq, found.checkpoints)
    assert [10, 20, 30] == [decode_entry(line).seq for line in lines if decode_entry(line).event == chain.CHECKPOINT][
        :3
    ]
    assert 0 == verify([], KEY.public_key()).last_seq


@pytest.mark.parametrize("change", ["edit", "remove", "swap", "repeat", "insert", "junk", "respace", "rehash"])
def test_any_change_is_found(tmp_path, change):
    """Editing, removing, reordering, repeating or inserting a line breaks the chain there; unchanged it verifies."""
    lines = fill(tmp_path, 20)
    verify(lines, KEY.public_key())
    entry = decode_entry(lines[9])
    record = Record(entry.n, entry.event, entry.component, "denied", entry.object, entry.result, entry.detail)
    forged = make_line(entry.seq, entry.time, entry.producer, record, entry.prev)
    changed = {
        "edit": [*lines[:9], lines[9].replace(b"allowed", b"denied"), *lines[10:]],
        "remove": [*lines[:9], *lines[10:]],
        "swap": [*lines[:9], lines[10], lines[9], *lines[11:]],
        "repeat": [*lines[:9], lines[8], *lines[9:]],
        "insert": [*lines[:9], forged, *lines[9:]],
        "junk": [*lines[:9], b"junk", *lines[10:]],
        "respace": [*lines[:9], lines[9].replace(b":", b": ", 1), *lines[10:]],
        "rehash": [*lines[:9], forged, *lines[10:]],
    }[change]
    with pytest.raises(ChainBroken) as caught:
        verify(changed, KEY.public_key())
    assert "E_AUDIT_CHAIN" == caught.value.code
    assert caught.value.line in (10, 11)


def test_a_whole_new_chain_needs_the_key(tmp_path):
    """Rewriting everything consistently passes without a key and fails at the first checkpoint with it."""
    (tmp_path / "forged").mkdir()
    forger = Ed25519PrivateKey.generate()
    dirfd = directory(tmp_path / "forged")
    ledger = Ledger(dirfd, forger)
    ledger.write([Pending("bridge#1", Record(1, "fs.read", "a/b/0", "allowed", "/x"))])
    ledger.checkpoint()
    ledger.close()
    os.close(dirfd)
    lines = read_all(tmp_path / "forged")
    assert 2 == verify(lines, None).last_seq
    with pytest.raises(ChainBroken, match="another key"):
        verify(lines, KEY.public_key())
    keyid = chain.key_id(KEY.public_key())
    entry = decode_entry(lines[1])
    record = Record(0, entry.event, "", "info", "", "ok", entry.detail | {"key": keyid})
    with pytest.raises(ChainBroken, match="signature"):
        verify([lines[0], make_line(2, entry.time, "auditor", record, entry.prev)], KEY.public_key())


def test_a_cut_log_is_found_with_a_checkpoint_kept_elsewhere(tmp_path):
    """A log cut at a line still chains; a checkpoint that was copied shows that it is too short or another."""
    lines = fill(tmp_path, 20)
    detail = decode_entry(lines[-1]).detail
    kept = (int(detail["size"]), str(detail["head"]))
    verify(lines, KEY.public_key(), kept)
    verify(lines[:10], KEY.public_key())
    with pytest.raises(ChainBroken, match="cut"):
        verify(lines[:10], KEY.public_key(), kept)
    with pytest.raises(ChainBroken, match="not the line"):
        verify(lines, KEY.public_key(), (kept[0], "0" * 64))


def test_rotation_continues_the_chain(tmp_path):
    """Over many files the chain is one, each file but the last is signed to its end, numbers of producers survive."""
    lines = fill(tmp_path, 200, rotate_size=5_000)
    dirfd = directory(tmp_path)
    names = rotated(dirfd)
    assert len(names) > 5
    found = verify(lines, KEY.public_key())
    assert len(lines) == found.signed_seq
    for name in names:
        assert chain.CHECKPOINT == decode_entry((tmp_path / name).read_bytes().split(b"\n")[-2]).event
    ledger = Ledger(dirfd, KEY, 5_000)
    assert found.last_seq == ledger.seq
    assert (0, None) == (ledger.already("bridge#1", 199), ledger.already("bridge#1", 201))
    assert ledger.already("bridge#1", 200) is not None
    ledger.write([Pending("bridge#1", Record(201, "fs.read", "", "info", ""))])
    ledger.close()
    os.close(dirfd)
    verify(read_all(tmp_path), KEY.public_key())


def test_an_empty_file_after_rotation_follows(tmp_path):
    """Killed right after a rotation, the log goes on where the rotated file ended."""
    count = len(fill(tmp_path, 10))
    os.rename(tmp_path / "audit.jsonl", tmp_path / "audit.000001.jsonl")
    dirfd = directory(tmp_path)
    ledger = Ledger(dirfd, KEY)
    assert count == ledger.seq
    ledger.write([Pending("x", Record(1, "e", "", "info", ""))])
    ledger.close()
    os.close(dirfd)
    assert count + 1 == verify(read_all(tmp_path), KEY.public_key()).last_seq


def test_a_torn_last_line_is_cut(tmp_path):
    """Half a line at the end is removed; the chain goes on from the whole one before it."""
    lines = fill(tmp_path, 10)
    with (tmp_path / "audit.jsonl").open("ab") as file:
        file.write(lines[-1][:50])
    dirfd = directory(tmp_path)
    ledger = Ledger(dirfd, KEY)
    assert (50, len(lines)) == (ledger.torn, ledger.seq)
    ledger.close()
    os.close(dirfd)
    assert lines == read_all(tmp_path)


@pytest.mark.parametrize("line", [0, 4, 10])
def test_a_broken_log_is_not_continued(tmp_path, line):
    """The auditor refuses to start on a log that does not follow, naming the line; nothing is written to it."""
    lines = fill(tmp_path, 10)
    lines[line] = lines[line].replace(b'"result":"ok"', b'"result":"no"')
    data = b"\n".join([*lines, b""])
    (tmp_path / "audit.jsonl").write_bytes(data)
    dirfd = directory(tmp_path)
    with pytest.raises(ChainBroken) as caught:
        Ledger(dirfd, KEY)
    os.close(dirfd)
    assert caught.value.line in (line + 1, line + 2)
    assert data == (tmp_path / "audit.jsonl").read_bytes()


def test_a_failed_write_changes_nothing(tmp_path, monkeypatch):
    """When the disk refuses in the middle of a line, the part is cut off and the next write continues the chain."""
    fill(tmp_path, 5)
    before = (tmp_path / "audit.jsonl").read_bytes()
    dirfd = directory(tmp_path)
    ledger = Ledger(dirfd, KEY)
    real, calls = os.write, []

    def full(fd, data):
        calls.append(1)
        if len(calls) == 1:
            return real(fd, bytes(data)[:20])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("bridge.audit.files.os.write", full)
        with pytest.raises(OSError, match="No space"):
            ledger.write([Pending("x", Record(1, "e", "", "info", ""))])
    assert before == (tmp_path / "audit.jsonl").read_bytes()
    assert ledger.already("x", 1) is None
    ledger.write([Pending("x", Record(1, "e", "", "info", ""))])
    ledger.close()
    os.close(dirfd)
    verify(read_all(tmp_path), KEY.public_key())


def test_the_key_is_private_and_stays(tmp_path):
    """Made 0600 at the first start, read afterwards; its public half is for everyone; a readable key is refused."""
    dirfd = directory(tmp_path)
    key = load_key(dirfd)
    assert (0o600, 0o644) == tuple((tmp_path / name).stat().st_mode & 0o777 for name in ("audit.key", "audit.pub"))
    assert chain.key_id(key.public_key()) == chain.key_id(load_key(dirfd).public_key())
    assert chain.key_id(key.public_key()) == chain.key_id(load_public_key((tmp_path / "audit.pub").read_bytes()))
    (tmp_path / "audit.key").chmod(0o640)
    with pytest.raises(AuditKeyUnusable):
        load_key(dirfd)
    (tmp_path / "audit.key").chmod(0o600)
    (tmp_path / "audit.key").write_bytes(b"junk")
    with pytest.raises(AuditKeyUnusable):
        load_key(dirfd)
    os.close(dirfd)
    with pytest.raises(AuditKeyUnusable):
        load_public_key(b"junk")


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_line_or_refused(data):
    """Verification raises nothing but ChainBroken."""
    with pytest.raises(ChainBroken):
        verify([data], None)


def test_entries_are_strict():
    """Unknown or missing members are no entry."""
    with pytest.raises(msgspec.ValidationError):
        decode_entry(b'{"seq":1}')
