"""The registry: which packages and instances there are, what the operator agreed to, and how workers ended.

One SQLite file (WAL, synchronous=FULL, one connection). Each method is one transaction: a kill or a full disk leaves
the state before or after it; a method that changes something raises UnavailableError when it cannot. Releases are
remembered per name even when a package is gone, so that a rollback is seen.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from sandbox.types import ComponentId
from sandbox.wire.compile_result import Crossing
from supervisor.control.errors import NoSpaceError, NotFoundError, RegistryError, RollbackError, UnavailableError

_MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE packages (
        id TEXT PRIMARY KEY, name TEXT NOT NULL, version TEXT NOT NULL, release INTEGER NOT NULL,
        digest TEXT NOT NULL, keyid TEXT NOT NULL, publisher TEXT NOT NULL, manifest TEXT NOT NULL,
        imports TEXT NOT NULL, installed_at REAL NOT NULL, installed_by TEXT NOT NULL
    ) STRICT;
    CREATE TABLE instances (
        component TEXT PRIMARY KEY, package TEXT NOT NULL REFERENCES packages(id), running INTEGER NOT NULL,
        bindings TEXT NOT NULL, consent TEXT NOT NULL, created_at REAL NOT NULL, start_order INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE releases (name TEXT PRIMARY KEY, release INTEGER NOT NULL) STRICT;
    CREATE TABLE ends (
        id INTEGER PRIMARY KEY AUTOINCREMENT, component TEXT NOT NULL, incarnation INTEGER NOT NULL,
        at REAL NOT NULL, outcome TEXT NOT NULL, detail TEXT NOT NULL
    ) STRICT;
    CREATE INDEX ends_by_component ON ends (component, id);
    CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
    """,
    "ALTER TABLE instances ADD COLUMN quarantine TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE releases ADD COLUMN package TEXT NOT NULL DEFAULT ''",
    """
    ALTER TABLE instances ADD COLUMN env TEXT NOT NULL DEFAULT '{}';
    ALTER TABLE instances ADD COLUMN args TEXT NOT NULL DEFAULT '[]'
    """,
    "ALTER TABLE instances ADD COLUMN crossing TEXT NOT NULL DEFAULT '{}'",
    "ALTER TABLE instances ADD COLUMN resting INTEGER NOT NULL DEFAULT 0",
)
"""Each entry brings the schema from version i to i + 1; an entry is never edited once released."""

KEPT_ENDS = 100
"""Ends remembered per component."""
_BATCH = 64


class PackageRow(msgspec.Struct, frozen=True):
    """One installed package. `manifest` is the signed predicate as JSON."""

    id: str
    name: str
    version: str
    release: int
    digest: str
    keyid: str
    publisher: str
    manifest: str
    imports: dict[str, list[str]]
    installed_at: float
    installed_by: str


class Consent(msgspec.Struct, frozen=True):
    """Who agreed to what, when."""

    user: str
    at: float
    capabilities: list[str]
    explicit: bool


class InstanceRow(msgspec.Struct, frozen=True):
    """One instance: what it is, and whether it should run."""

    component: ComponentId
    package: str
    running: bool
    bindings: dict[str, str]
    consent: Consent
    created_at: float
    quarantine: str = ""
    """Why only an operator may start it again, "" when the tree may."""
    env: dict[str, str] = {}
    """Environment variables the operator gave it."""
    args: list[str] = []
    """Arguments likewise."""
    crossing: Crossing = Crossing()
    """How values cross its boundary since it was last started, or installed."""
    resting: bool = False
    """Ended in a way its supervision does not start it again after; for as long as the host runs."""


class EndRow(msgspec.Struct, frozen=True):
    """How one worker ended."""

    component: str
    incarnation: int
    at: float
    outcome: str
    detail: str


class Registry:
    """The registry's file.

    Args:
        path: the SQLite file; made 0600 if it is not there.

    Raises:
        RegistryError: the file is of a newer version, or not a registry.
    """

    def __init__(self, path: str) -> None:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        self._db = sqlite3.connect(path, isolation_level=None, timeout=5.0)
        try:
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute("PRAGMA foreign_keys=ON")
            self._migrate(path)
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise RegistryError(f"the registry cannot be opened: {error}", subject=path) from error
        except RegistryError:
            self._db.close()
            raise
        self._incarnations: Iterator[int] = iter(())

    def _migrate(self, path: str) -> None:
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version > len(_MIGRATIONS):
            raise RegistryError(
                f"the registry was written by a newer airssys (schema {version})",
                subject=path,
                hint="run that version, or restore a backup",
            )
        for number, script in enumerate(_MIGRATIONS[version:], version + 1):
            with self._transaction():
                for statement in script.split(";"):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version={number}")

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield
            self._db.execute("COMMIT")
        except BaseException as error:
            if self._db.in_transaction:  # SQLite may have ended it itself
                self._db.execute("ROLLBACK")
            if isinstance(error, sqlite3.OperationalError):
                raise _unwritable(error) from error
            raise

    # -- packages and instances -------------------------------------------------------------------------------

    def check_release(self, name: str, release: int, package: str) -> None:
        """Raise RollbackError when a higher release of this name was installed before, or this one with other content.

        Args:
            package: the package's id, which covers the component and the manifest.
        """
        row = self._db.execute("SELECT release, package FROM releases WHERE name=?", (name,)).fetchone()
        if row is not None and release == row[0] and row[1] not in ("", package):
            raise RollbackError(
                f"release {release} was installed before with other content",
                subject=name,
                hint="whatever changes gets a higher release number",
            )
        if row is not None and release < row[0]:
            raise RollbackError(
                f"release {release} is older than release {row[0]}, which was installed before",
                subject=name,
                hint="a publisher never reuses or lowers a release number",
            )

    def install(self, package: PackageRow, instance: InstanceRow) -> str | None:
        """Add package and instance, or point an existing instance at the package.

        Returns the id of the package the instance had before, if it was another. Raises RollbackError.
        """
        component = str(instance.component)
        with self._transaction():
            self.check_release(package.name, package.release, package.id)
            self._db.execute(
                "INSERT OR IGNORE INTO packages VALUES (?,?,?,?,?,?,?,?,?,?,?)",
                (
                    package.id,
                    package.name,
                    package.version,
                    package.release,
                    package.digest,
                    package.keyid,
                    package.publisher,
                    package.manifest,
                    _json(package.imports),
                    package.installed_at,
                    package.installed_by,
                ),
            )
            self._db.execute(
                "INSERT INTO releases VALUES (?,?,?) ON CONFLICT (name) "
                "DO UPDATE SET release=excluded.release, package=excluded.package",
                (package.name, package.release, package.id),
            )
            before = self._db.execute("SELECT package FROM instances WHERE component=?", (component,)).fetchone()
            self._db.execute("DELETE FROM instances WHERE component=?", (component,))
            self._db.execute(
                "INSERT INTO instances VALUES (?,?,?,?,?,?,?,?,?,?,?,?)",
                (
                    component,
                    instance.package,
                    int(instance.running),
                    _json(instance.bindings),
                    _json(instance.consent),
                    instance.created_at,
                    self._bump("start-order"),
                    instance.quarantine,
                    _json(instance.env),
                    _json(instance.args),
                    _json(instance.crossing),
                    int(instance.resting),
                ),
            )
            self._drop_unused_packages()
        return before[0] if before is not None and before[0] != instance.package else None

    def uninstall(self, component: ComponentId) -> None:
        """Forget an instance, and its package when no other instance uses it. Raises NotFoundError."""
        with self._transaction():
            done = self._db.execute("DELETE FROM instances WHERE component=?", (str(component),))
            if done.rowcount == 0:
                raise _unknown(component)
            self._db.execute("DELETE FROM ends WHERE component=?", (str(component),))
            self._db.execute("DELETE FROM counters WHERE name=?", (f"restarts/{component}",))
            self._drop_unused_packages()

    def _drop_unused_packages(self) -> None:
        self._db.execute("DELETE FROM packages WHERE id NOT IN (SELECT package FROM instances)")

    def set_running(self, component: ComponentId, running: bool) -> None:
        """Record what the operator wants. Raises NotFoundError."""
        with self._transaction():
            done = self._db.execute(
                "UPDATE instances SET running=? WHERE component=? AND running<>?",
                (int(running), str(component), int(running)),
            )
            if done.rowcount == 0:
                if self._db.execute("SELECT 1 FROM instances WHERE component=?", (str(component),)).fetchone() is None:
                    raise _unknown(component)
            elif running:
                self._db.execute(
                    "UPDATE instances SET start_order=? WHERE component=?", (self._bump("start-order"), str(component))
                )

    def set_quarantine(self, component: ComponentId, cause: str) -> None:
        """Remember that the tree gave up on an instance, or with "" that it may start it again."""
        with self._transaction():
            self._db.execute("UPDATE instances SET quarantine=? WHERE component=?", (cause[:4096], str(component)))

    def set_resting(self, component: ComponentId, resting: bool) -> None:
        """Remember that an instance ended for good, or that it is started anew."""
        with self._transaction():
            self._db.execute(
                "UPDATE instances SET resting=? WHERE component=? AND resting<>?",
                (int(resting), str(component), int(resting)),
            )

    def replicate(self, template: ComponentId, component: ComponentId) -> bool:
        """Make or change an instance so that it is what `template` is: package, bindings, environment, consent.

        Returns whether anything changed; whether it runs and its quarantine stay. Raises NotFoundError.
        """
        copied = "package, bindings, consent, env, args, crossing"
        with self._transaction():
            one = self._db.execute(
                f"SELECT {copied}, running, created_at FROM instances WHERE component=?",  # noqa: S608 - fixed columns
                (str(template),),
            ).fetchone()
            if one is None:
                raise _unknown(template)
            other = self._db.execute(
                f"SELECT {copied} FROM instances WHERE component=?",  # noqa: S608 - as above
                (str(component),),
            ).fetchone()
            if other == one[:6]:
                return False
            if other is None:
                self._db.execute(
                    f"INSERT INTO instances (component, {copied}, running, created_at, start_order) "  # noqa: S608
                    "VALUES (?,?,?,?,?,?,?,?,?,?)",
                    (str(component), *one, self._bump("start-order")),
                )
            else:
                self._db.execute(
                    "UPDATE instances SET package=?, bindings=?, consent=?, env=?, args=?, crossing=? "
                    "WHERE component=?",
                    (*one[:6], str(component)),
                )
            self._drop_unused_packages()
        return True

    def set_crossing(self, component: ComponentId, crossing: Crossing) -> None:
        """Remember how values cross an instance's boundary."""
        with self._transaction():
            self._db.execute("UPDATE instances SET crossing=? WHERE component=?", (_json(crossing), str(component)))

    def package(self, package: str) -> PackageRow:
        """One package. Raises NotFoundError."""
        row = self._db.execute("SELECT * FROM packages WHERE id=?", (package,)).fetchone()
        if row is None:
            raise NotFoundError("no such package", subject=package)
        return _package(row)

    def packages(self) -> list[PackageRow]:
        """All packages, by name and release."""
        return [_package(row) for row in self._db.execute("SELECT * FROM packages ORDER BY name, release, id")]

    def instance(self, component: ComponentId) -> InstanceRow:
        """One instance. Raises NotFoundError."""
        row = self._db.execute("SELECT * FROM instances WHERE component=?", (str(component),)).fetchone()
        if row is None:
            raise _unknown(component)
        return _instance(row)

    def instances(self) -> list[InstanceRow]:
        """All instances, in the order in which they were last told to start."""
        return [_instance(row) for row in self._db.execute("SELECT * FROM instances ORDER BY start_order")]

    # -- ends and counters ------------------------------------------------------------------------------------

    def add_end(self, end: EndRow) -> None:
        """Remember how a worker ended; the oldest beyond `KEPT_ENDS` are forgotten."""
        with self._transaction():
            self._db.execute(
                "INSERT INTO ends (component, incarnation, at, outcome, detail) VALUES (?,?,?,?,?)",
                (end.component, end.incarnation, end.at, end.outcome, end.detail[:4096]),
            )
            self._db.execute(
                "DELETE FROM ends WHERE component=? AND id NOT IN "
                "(SELECT id FROM ends WHERE component=? ORDER BY id DESC LIMIT ?)",
                (end.component, end.component, KEPT_ENDS),
            )

    def explain_end(self, component: ComponentId, incarnation: int, detail: str) -> bool:
        """Put the worker's own words in place of what the kernel told; False when no such end is known yet."""
        with self._transaction():
            done = self._db.execute(
                "UPDATE ends SET detail=? WHERE component=? AND incarnation=?",
                (detail[:4096], str(component), incarnation),
            )
        return done.rowcount > 0

    def ends(self, component: ComponentId, limit: int = 10) -> list[EndRow]:
        """How the component's last workers ended, newest first."""
        rows = self._db.execute(
            "SELECT component, incarnation, at, outcome, detail FROM ends WHERE component=? ORDER BY id DESC LIMIT ?",
            (str(component), limit),
        )
        return [EndRow(*row) for row in rows]

    def count_restart(self, component: ComponentId) -> int:
        """Count one restart by the tree; return how many there have been since it was installed."""
        with self._transaction():
            return self._bump(f"restarts/{component}")

    def restarts(self, component: ComponentId) -> int:
        """Restarts by the tree since it was installed."""
        row = self._db.execute("SELECT value FROM counters WHERE name=?", (f"restarts/{component}",)).fetchone()
        return 0 if row is None else int(row[0])

    def next_incarnation(self) -> int:
        """A number no worker of this host ever had; survives control (numbers are reserved in batches)."""
        number = next(self._incarnations, None)
        if number is None:
            with self._transaction():
                first = self._bump("incarnation", _BATCH) - _BATCH + 1
            self._incarnations = iter(range(first + 1, first + _BATCH))
            return first
        return number

    def _bump(self, name: str, by: int = 1) -> int:
        row = self._db.execute(
            "INSERT INTO counters VALUES (?,?) ON CONFLICT (name) DO UPDATE SET value=value+excluded.value "
            "RETURNING value",
            (name, by),
        ).fetchone()
        return int(row[0])


def _unknown(component: ComponentId) -> NotFoundError:
    return NotFoundError("no such component", subject=str(component), hint="see airssys list")


def _unwritable(error: sqlite3.OperationalError) -> UnavailableError:
    if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_FULL:
        return NoSpaceError("the registry cannot be written: the disk is full", hint="make room on the host's disk")
    return UnavailableError(f"the registry cannot be written: {error}", hint="see the host's log")


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _package(row: tuple[str, str, str, int, str, str, str, str, str, float, str]) -> PackageRow:
    imports = msgspec.json.decode(row[8], type=dict[str, list[str]])
    return PackageRow(*row[:8], imports, *row[9:])


def _instance(row: tuple[str, str, int, str, str, float, int, str, str, str, str, int]) -> InstanceRow:
    component, package, running, bindings, consent, created_at, _, quarantine, env, args, crossing, resting = row
    return InstanceRow(
        ComponentId.parse(component),
        package,
        bool(running),
        msgspec.json.decode(bindings, type=dict[str, str]),
        msgspec.json.decode(consent, type=Consent),
        created_at,
        quarantine,
        msgspec.json.decode(env, type=dict[str, str]),
        msgspec.json.decode(args, type=list[str]),
        msgspec.json.decode(crossing, type=Crossing),
        bool(resting),
    )
