"""Arrows point down: supervisor -> bridge -> sandbox; sdk imports none of them; nothing leads back up."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

pytestmark = pytest.mark.block10_sdk
CHECKOUT = Path(__file__).resolve().parents[2]
FORBIDDEN = {
    "sandbox": {"bridge", "supervisor", "airssys"},
    "bridge": {"supervisor", "airssys"},
    "supervisor": {"airssys"},
    "sdk": {"sandbox", "bridge", "supervisor"},
}
HEAVY_IN_THE_CAGE = {"asyncio", "zmq", "cryptography", "aiohttp", "httpx", "click", "rich", "sqlite3", "lmdb", "psutil"}


def imported(tree: ast.AST) -> set[str]:
    """Top-level names a module imports anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.split(".")[0])
    return found


def test_the_check_sees_imports() -> None:
    """Positive control: an import that points up is seen, also inside a function."""
    assert {"supervisor", "os"} == imported(ast.parse("import os\ndef f():\n    from supervisor import cli\n"))


@pytest.mark.parametrize("layer", FORBIDDEN)
def test_no_import_points_up(layer: str) -> None:
    """No module of a layer imports one above it; the command line, a client itself, may use the clients' codecs."""
    modules = list((CHECKOUT / layer).rglob("*.py"))
    assert modules
    wrong = {
        str(path.relative_to(CHECKOUT)): names
        for path in modules
        if (names := imported(ast.parse(path.read_text())) & FORBIDDEN[layer])
    }
    if layer == "supervisor":
        assert {"airssys"} == wrong.pop("supervisor/cli/payloads.py")
        assert "from airssys import codecs\n" in (CHECKOUT / "supervisor/cli/payloads.py").read_text()
    assert {} == wrong


def test_the_cage_imports_little() -> None:
    """What runs in a cage imports no event loop, no ZeroMQ, no cryptography, nothing of the operator's side."""
    wrong = {
        str(path.relative_to(CHECKOUT)): names
        for path in (CHECKOUT / "sandbox").rglob("*.py")
        if (names := imported(ast.parse(path.read_text())) & HEAVY_IN_THE_CAGE)
    }
    assert {} == wrong


@pytest.mark.parametrize("layer", FORBIDDEN)
def test_every_folder_says_what_it_is_for(layer: str) -> None:
    """Each package's __init__ opens with a paragraph."""
    for path in (CHECKOUT / layer).rglob("__init__.py"):
        assert ast.get_docstring(ast.parse(path.read_text())), path


def test_every_test_belongs_to_a_block() -> None:
    """Each test module carries its block's marker, so that a layer's gate runs it."""
    for path in (CHECKOUT / "tests").rglob("test_*.py"):
        assert "pytest.mark.block" in path.read_text(), path
