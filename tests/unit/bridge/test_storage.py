"""The storage executor: values, exact quotas, isolation, a full disk and a killed process."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys

import lmdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from bridge.capabilities import StorageRule
from bridge.storage import Storage, StorageBroken, StorageFailure, check_key
from sandbox.types import ComponentId, Limits
from sandbox.wire.bridge_ops import Op, StorageError

pytestmark = pytest.mark.block6_storage

ONE, TWO = ComponentId("acme", "reader"), ComponentId("acme", "reader", "01")
LIMITS = Limits()


def open_storage(path, map_size: int = 16 << 20) -> Storage:
    """Open the environment in `path` and come back to where we were."""
    here, dirfd = os.open(".", os.O_RDONLY), os.open(path, os.O_RDONLY)
    try:
        return Storage.open(dirfd, map_size)
    finally:
        os.fchdir(here)
        os.close(here)
        os.close(dirfd)


@pytest.fixture
def storage(tmp_path):
    """An empty storage."""
    opened = open_storage(tmp_path)
    yield opened
    opened.close()


def case(call, *args) -> StorageError:
    """The case a call fails with."""
    with pytest.raises(StorageFailure) as caught:
        call(*args)
    return caught.value.case


def test_values_come_back(storage):
    """Set, get, exists, delete and list do what their names say."""
    assert storage.get(ONE, "k") is None
    storage.set(ONE, "k", b"v", LIMITS)
    storage.set(ONE, "empty", b"", LIMITS)
    assert (b"v", b"") == (storage.get(ONE, "k"), storage.get(ONE, "empty"))
    assert storage.exists(ONE, "empty")
    assert ["empty", "k"] == storage.list_keys(ONE)
    assert ["k"] == storage.list_keys(ONE, "k")
    storage.delete(ONE, "k")
    assert not storage.exists(ONE, "k")
    assert StorageError.NOT_FOUND == case(storage.delete, ONE, "k")


def test_components_do_not_meet(storage):
    """Ids that are prefixes of each other share nothing: not values, not lists, not usage."""
    storage.set(ONE, "k", b"one", LIMITS)
    storage.set(TWO, "k", b"two", LIMITS)
    storage.set(ComponentId("acme", "reader-x"), "k", b"three", LIMITS)
    assert (b"one", b"two") == (storage.get(ONE, "k"), storage.get(TWO, "k"))
    assert ["k"] == storage.list_keys(ONE)
    assert (4, 1) == (storage.usage(ONE, LIMITS).used, storage.usage(ONE, LIMITS).keys)
    assert 1 == storage.purge(ONE)
    assert b"two" == storage.get(TWO, "k")


@pytest.mark.parametrize("key", ["", "x" * 257, "é" * 129, "a\0b", "a\n", "\x7f", "a\x80b", "\ud800"])
def test_bad_keys(storage, key):
    """Keys are 1 to 256 bytes of UTF-8 without control characters, in every operation."""
    for call, *rest in ((storage.get,), (storage.set, b"", LIMITS), (storage.delete,), (storage.exists,)):
        assert StorageError.INVALID_KEY == case(call, ONE, key, *rest)
    storage.set(ONE, "x" * 256, b"the control", LIMITS)
    storage.set(ComponentId("n" * 64, "n" * 64, "n" * 64), "é" * 128, b"the longest there is", LIMITS)


def test_the_quota_is_exact(storage):
    """Keys and values count to the byte; one byte more is refused and changes nothing."""
    limits = Limits(storage=100)
    storage.set(ONE, "abcd", b"x" * 96, limits)
    assert (100, 100, 1) == tuple(getattr(storage.usage(ONE, limits), name) for name in ("used", "quota", "keys"))
    assert StorageError.QUOTA_EXCEEDED == case(storage.set, ONE, "abcd", b"x" * 97, limits)
    assert StorageError.QUOTA_EXCEEDED == case(storage.set, ONE, "e", b"", limits)
    assert b"x" * 96 == storage.get(ONE, "abcd")
    storage.set(TWO, "abcd", b"x" * 96, limits)  # the control: another's quota is another's
    storage.set(ONE, "abcd", b"x" * 95, limits)
    storage.set(ONE, "e", b"", limits)
    assert 100 == storage.usage(ONE, limits).used


def test_a_lowered_quota_can_be_got_under(storage):
    """Above a quota that was lowered, shrinking and deleting still work, growing does not."""
    storage.set(ONE, "a", b"x" * 100, LIMITS)
    low = Limits(storage=50)
    assert StorageError.QUOTA_EXCEEDED == case(storage.set, ONE, "b", b"", low)
    storage.set(ONE, "a", b"x" * 80, low)
    storage.delete(ONE, "a")
    storage.set(ONE, "a", b"x" * 49, low)


def test_the_number_of_keys_has_a_limit(storage):
    """A key beyond it is refused whatever room there is; one that exists may be written again, one gone makes room."""
    limits = Limits(storage_keys=2)
    storage.set(ONE, "a", b"", limits)
    storage.set(ONE, "b", b"", limits)
    assert StorageError.QUOTA_EXCEEDED == case(storage.set, ONE, "c", b"", limits)
    storage.set(ONE, "b", b"again", limits)
    storage.set(TWO, "c", b"", limits)  # the control: another's keys are another's
    storage.delete(ONE, "a")
    storage.set(ONE, "c", b"", limits)


def test_values_have_a_limit(storage):
    """A value beyond `message_size` is refused; one of exactly that size is stored."""
    limits = Limits(message_size=1000)
    assert StorageError.IO_ERROR == case(storage.set, ONE, "k", b"x" * 1001, limits)
    storage.set(ONE, "k", b"x" * 1000, limits)


def test_list_is_capped(storage, monkeypatch):
    """At most so many keys, the first in order; a prefix reaches the others."""
    monkeypatch.setattr("bridge.storage.MAX_KEYS", 3)
    for key in ("d", "c", "b", "a", "aa"):
        storage.set(ONE, key, b"", LIMITS)
    assert ["a", "aa", "b"] == storage.list_keys(ONE)
    assert ["d"] == storage.list_keys(ONE, "d")


def test_purge_of_many(storage):
    """A purge removes more than one step's worth and leaves usage at nothing."""
    for number in range(2_050):
        storage.set(ONE, f"k{number}", b"v", LIMITS)
    storage.set(TWO, "k", b"v", LIMITS)
    assert 2_050 == storage.purge(ONE)
    assert (0, 0) == (storage.usage(ONE, LIMITS).used, storage.usage(ONE, LIMITS).keys)
    assert ([], ["k"]) == (storage.list_keys(ONE), storage.list_keys(TWO))


def test_a_full_environment_changes_nothing(tmp_path):
    """When the map is full a set answers io-error, old value and usage stay, and deleting makes room again."""
    storage = open_storage(tmp_path, 256 << 10)
    limits = Limits(storage=1 << 30)
    storage.set(ONE, "old", b"old", limits)
    count = 0
    with pytest.raises(StorageFailure) as caught:
        while True:
            storage.set(ONE, f"k{count}", b"x" * 4000, limits)
            count += 1
    assert (StorageError.IO_ERROR, "storage is full") == (caught.value.case, caught.value.message)
    assert count > 5
    before = storage.usage(ONE, limits)
    assert StorageError.IO_ERROR == case(storage.set, ONE, "old", b"x" * 60_000, limits)
    assert (b"old", before) == (storage.get(ONE, "old"), storage.usage(ONE, limits))
    for number in range(count):
        storage.delete(ONE, f"k{number}")
    storage.set(ONE, "old", b"x" * 4000, limits)
    storage.close()


def test_a_damaged_database_is_named(tmp_path):
    """A file that is no LMDB environment is refused with a stable code."""
    (tmp_path / "data.mdb").write_bytes(b"junk" * 4096)
    with pytest.raises(StorageBroken) as caught:
        open_storage(tmp_path)
    assert "E_STORAGE_OPEN" == caught.value.code


CHILD = """
import os, sys
from bridge.storage import Storage
from sandbox.types import ComponentId, Limits
storage = Storage.open(os.open(sys.argv[1], os.O_RDONLY), 16 << 20)
component, number = ComponentId("acme", "reader"), 0
while True:
    storage.set(component, f"k{number % 50}", str(number).encode() * (number % 300), Limits())
    if number % 7 == 3:
        storage.delete(component, f"k{number % 50}")
    os.write(1, b"%d\\n" % number)
    number += 1
"""


def check_consistent(path) -> None:
    """Usage equals what is there, for the component that was being written."""
    storage = open_storage(path)
    keys = storage.list_keys(ONE)
    used = sum(len(key) + len(storage.get(ONE, key)) for key in keys)
    found = storage.usage(ONE, LIMITS)
    storage.close()
    assert (used, len(keys)) == (found.used, found.keys)


def kill_while_writing(path, lines: int) -> None:
    """Write in a child, kill it after so many acknowledged changes, check what is left."""
    with subprocess.Popen([sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE) as child:
        last = -1
        for _ in range(lines):
            last = int(child.stdout.readline())
        child.send_signal(signal.SIGKILL)
        for line in child.stdout:
            last = int(line) if line.endswith(b"\n") else last
    check_consistent(path)
    if last % 7 != 3:
        storage = open_storage(path)
        kept = storage.get(ONE, f"k{last % 50}")
        storage.close()
        # One more change may have been made after the last one the child could tell of.
        assert kept is not None


def test_kill_9_leaves_the_last_committed_state(tmp_path):
    """After SIGKILL between or within changes, acknowledged values are there and usage is exact."""
    for lines in (1, 13, 60):
        kill_while_writing(tmp_path, lines)


@pytest.mark.long
def test_kill_9_many_times(tmp_path):
    """The same at a hundred random moments on one database."""
    for _ in range(100):
        kill_while_writing(tmp_path, random.randrange(1, 200))


def test_through_the_bridge(host):
    """Cases and values arrive in the frame's form; without write access a set is denied and recorded."""
    host.policy([], {}, [StorageRule("self", ["read", "write"])], Limits(storage=10))
    worker = host.worker()
    assert (0, None) == worker.ask(Op.STORAGE_SET, "k", b"value")
    assert (0, b"value") == worker.ask(Op.STORAGE_GET, "k")
    assert (0, True) == worker.ask(Op.STORAGE_EXISTS, "k")
    assert (0, ["k"]) == worker.ask(Op.STORAGE_LIST_KEYS, None)
    assert (0, [6, 10, 1]) == worker.ask(Op.STORAGE_USAGE)
    assert StorageError.QUOTA_EXCEEDED == worker.ask(Op.STORAGE_SET, "k2", b"value")[0]
    assert StorageError.INVALID_KEY == worker.ask(Op.STORAGE_GET, "")[0]
    assert StorageError.NOT_FOUND == worker.ask(Op.STORAGE_DELETE, "none")[0]
    assert (0, None) == worker.ask(Op.STORAGE_DELETE, "k")
    host.policy([], {}, [StorageRule("self", ["read"])])
    assert StorageError.IO_ERROR == worker.ask(Op.STORAGE_SET, "k", b"v")[0]
    (line,) = host.records(denied=True)
    assert ("storage.set", "k", "denied") == (line["event"], line["object"], line["result"])


@settings(deadline=None)
@given(st.text(max_size=300))
def test_any_text_is_a_key_or_refused(key):
    """A key is taken as its bytes or refused as invalid."""
    try:
        assert key.encode() == check_key(key)
    except StorageFailure as error:
        assert StorageError.INVALID_KEY == error.case


class Model(RuleBasedStateMachine):
    """Storage against a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        import tempfile

        self.directory = tempfile.TemporaryDirectory()
        self.storage = open_storage(self.directory.name)
        self.model: dict[str, bytes] = {}
        self.limits = Limits(storage=200)

    keys = st.sampled_from(["a", "b", "ab", "é", "a/b"])

    @rule(key=keys, value=st.binary(max_size=120))
    def set(self, key, value):
        after = self.model | {key: value}
        used = sum(len(k.encode()) + len(v) for k, v in self.model.items())
        wanted = sum(len(k.encode()) + len(v) for k, v in after.items())
        if wanted > 200 and wanted > used:
            assert StorageError.QUOTA_EXCEEDED == case(self.storage.set, ONE, key, value, self.limits)
        else:
            self.storage.set(ONE, key, value, self.limits)
            self.model = after

    @rule(key=keys)
    def delete(self, key):
        if key in self.model:
            self.storage.delete(ONE, key)
            del self.model[key]
        else:
            assert StorageError.NOT_FOUND == case(self.storage.delete, ONE, key)

    @rule()
    def reopen(self):
        self.storage.close()
        self.storage = open_storage(self.directory.name)

    @invariant()
    def agrees(self):
        assert sorted(self.model, key=str.encode) == self.storage.list_keys(ONE)
        assert all(value == self.storage.get(ONE, key) for key, value in self.model.items())
        found = self.storage.usage(ONE, self.limits)
        assert (sum(len(k.encode()) + len(v) for k, v in self.model.items()), len(self.model)) == (
            found.used,
            found.keys,
        )

    def teardown(self):
        self.storage.close()
        self.directory.cleanup()


TestModel = pytest.mark.block6_storage(Model.TestCase)
TestModel.settings = settings(max_examples=15, stateful_step_count=20, deadline=None)


def test_lmdb_is_synchronous(storage):
    """Changes are synchronised at commit: neither NOSYNC nor NOMETASYNC nor a writable map is on."""
    flags = storage._environment.flags()
    assert (True, True, False) == (flags["sync"], flags["metasync"], flags["writemap"])
    assert isinstance(storage._environment, lmdb.Environment)
