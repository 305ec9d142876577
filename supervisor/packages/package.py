"""A package as files in a directory, read once into bytes. Nothing is believed here.

component.wasm         the component, unmodified
component.toml         the manifest as its author wrote it; beside a signature it is a courtesy
component.dsse.json    the signed envelope, which holds the whole manifest
"""

from __future__ import annotations

import os

import msgspec

from supervisor.packages.errors import PackageError
from supervisor.packages.files import FileError, open_directory, read_regular
from supervisor.packages.toml_source import MAX_BYTES as MAX_MANIFEST

WASM_NAME = "component.wasm"
MANIFEST_NAME = "component.toml"
ENVELOPE_NAME = "component.dsse.json"
MAX_WASM = 64 * 1024 * 1024
"""Longest component.wasm, bytes."""
MAX_ENVELOPE = 256 * 1024
"""Longest envelope, bytes."""


class PackageFiles(msgspec.Struct, frozen=True):
    """The bytes of a package's files, nothing of them believed yet. None where there is no such file."""

    wasm: bytes
    envelope: bytes | None
    manifest: bytes | None


def read_package(directory: str) -> PackageFiles:
    """Read a package directory: regular files only, no links, nothing longer than its cap.

    Raises:
        PackageError: E_PACKAGE (no directory, no component.wasm, not a regular file), E_SIZE.
    """
    dir_fd = open_directory(directory)
    try:
        wasm = _read(dir_fd, directory, WASM_NAME, MAX_WASM)
        if wasm is None:
            raise PackageError(f"there is no {WASM_NAME}", subject=directory, hint="give a package's directory")
        return PackageFiles(
            wasm=wasm,
            envelope=_read(dir_fd, directory, ENVELOPE_NAME, MAX_ENVELOPE),
            manifest=_read(dir_fd, directory, MANIFEST_NAME, MAX_MANIFEST),
        )
    finally:
        os.close(dir_fd)


def _read(dir_fd: int, directory: str, name: str, most: int) -> bytes | None:
    try:
        return read_regular(name, max_bytes=most, dir_fd=dir_fd)[0]
    except FileNotFoundError:
        return None
    except FileError as error:
        raise PackageError(f"{name} {error.message}", subject=directory, code=error.code) from error
