"""WIT packages as Python: a module per package, made and checked in by `scripts/make-bindings`.

`CLASSES` has the class of every record, enum and flags type by its full name, as `RecordType.name` gives it
(`airssys:core/types@1.0.0#component-id`), and of every variant the classes of its cases by WIT name. `FUNCTIONS` has
every function's signature by full interface name. Both read a package's module when it is first asked for, so that a
process has only those it uses. How values look: `sandbox.abi.types`. Imports `sandbox.abi` only.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import TypeVar

from sandbox.abi.types import Function

PACKAGES = (
    "airssys:core",
    "airssys:osl",
    "airssys:messaging",
    "wasi:io",
    "wasi:clocks",
    "wasi:random",
    "wasi:cli",
    "wasi:filesystem",
    "wasi:sockets",
)
_T = TypeVar("_T")


class _Tables(Mapping[str, _T]):
    """One table of all modules together."""

    def __init__(self, table: str) -> None:
        self._table = table

    def _of(self, package: str) -> dict[str, _T]:
        module = importlib.import_module(f"{__name__}.{package.replace(':', '_').replace('-', '_')}")
        found: dict[str, _T] = getattr(module, self._table)
        return found

    def __getitem__(self, name: str) -> _T:
        package = name.partition("/")[0]
        if package not in PACKAGES:
            raise KeyError(name)
        return self._of(package)[name]

    def __iter__(self) -> Iterator[str]:
        return (name for package in PACKAGES for name in self._of(package))

    def __len__(self) -> int:
        return sum(len(self._of(package)) for package in PACKAGES)


CLASSES: Mapping[str, type | dict[str, type]] = _Tables("CLASSES")
"""Classes by a type's full name; a variant has a table of its cases."""

FUNCTIONS: Mapping[str, dict[str, Function]] = _Tables("FUNCTIONS")
"""Signatures by full interface name, then by function; interfaces without functions are not listed."""
