"""Package files on disk, one directory per package id, there as a whole or not at all.

A directory is written under a temporary name, synced, and renamed; what a crash leaves behind is swept when control
starts. Nothing read from here is trusted: each start verifies the bytes again.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil

from supervisor.control.errors import NotFoundError
from supervisor.packages.files import read_regular
from supervisor.packages.package import PackageFiles

MAX_WASM = 64 << 20
MAX_ENVELOPE = 256 << 10
MAX_MANIFEST = 256 << 10
_FILES = {"component.wasm": MAX_WASM, "component.dsse.json": MAX_ENVELOPE, "component.toml": MAX_MANIFEST}


class PackageStore:
    """`<root>/<package id>/{component.wasm, component.dsse.json, component.toml}`."""

    def __init__(self, root: str) -> None:
        self.root = root
        os.makedirs(root, mode=0o700, exist_ok=True)

    def put(self, package: str, files: PackageFiles) -> None:
        """Store; does nothing when the package is there already."""
        final = os.path.join(self.root, package)
        if os.path.isdir(final):
            return
        temporary = os.path.join(self.root, f".{package}.{secrets.token_hex(8)}")
        os.mkdir(temporary, 0o700)
        try:
            contents = {
                "component.wasm": files.wasm,
                "component.dsse.json": files.envelope,
                "component.toml": files.manifest,
            }
            for name, data in contents.items():
                if data is None:
                    continue
                fd = os.open(
                    os.path.join(temporary, name), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode=0o600
                )
                with open(fd, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(fd)
            _sync_directory(temporary)
            with contextlib.suppress(FileExistsError):
                os.rename(temporary, final)
            _sync_directory(self.root)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def get(self, package: str) -> PackageFiles:
        """The files of a package.

        Raises:
            NotFoundError: not stored.
            FileError: somebody put something else in a file's place.
        """
        wasm, envelope, manifest = (self._read(package, name, limit) for name, limit in _FILES.items())
        if wasm is None:
            raise NotFoundError("the package's files are gone", subject=package, hint="install it again")
        return PackageFiles(wasm, envelope, manifest)

    def drop(self, package: str) -> None:
        """Remove a package's files, if any. The rename makes it one step; what stays is swept."""
        temporary = os.path.join(self.root, f".{package}.{secrets.token_hex(8)}")
        with contextlib.suppress(FileNotFoundError):
            os.rename(os.path.join(self.root, package), temporary)
        shutil.rmtree(temporary, ignore_errors=True)

    def sweep(self, keep: set[str], *, unfinished: bool = False) -> list[str]:
        """Remove every package but `keep`; return what was removed.

        `unfinished` removes what a crash left half-written too: only where nothing is being written.
        """
        gone = sorted(
            name for name in os.listdir(self.root) if name not in keep and (unfinished or not name.startswith("."))
        )
        for name in gone:
            shutil.rmtree(os.path.join(self.root, name), ignore_errors=True)
        return gone

    def _read(self, package: str, name: str, limit: int) -> bytes | None:
        try:
            return read_regular(os.path.join(self.root, package, name), max_bytes=limit)[0]
        except FileNotFoundError:
            return None


def _sync_directory(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
