"""Where the data files lie that belong to the program: beside the package in a checkout, inside it in a wheel."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def wit_directory() -> Path:
    """The directory that holds one directory per WIT package.

    Raises:
        FileNotFoundError: the installation is incomplete.
    """
    for candidate in (_PACKAGE / "_wit", _PACKAGE.parent / "wit"):
        if candidate.is_dir():
            return candidate
    raise FileNotFoundError("the WIT packages are missing: neither sandbox/_wit nor wit/ exists; install again")
