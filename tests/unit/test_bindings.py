"""The typed classes made from WIT: in step with wit/, complete, and refused where Python has no name for something."""

from __future__ import annotations

import enum
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from sandbox import contract
from sandbox.abi.of_wit import Reader
from sandbox.abi.types import EnumType, FlagsType, RecordType, VariantType
from sandbox.bindings import CLASSES, FUNCTIONS, airssys_core
from sandbox.wit import parse_files
from sandbox.wit_bindings import field_name, modules
from sandbox.wit_lexer import WitError
from sandbox.wit_resolve import Resolver

pytestmark = pytest.mark.block2_wit
ROOT = Path(__file__).resolve().parents[2]


def wit(text: str) -> str:
    """The module made of one package with one interface of these items."""
    made = modules([parse_files({"a.wit": f"package some:thing@1.0.0;\ninterface i {{ {text} }}"})])
    return made["some_thing.py"]


def test_checked_in_modules_are_in_step() -> None:
    """What `scripts/make-bindings` would write is what is checked in, and no module is left over."""
    made = modules(contract.load().packages)
    directory = ROOT / "sandbox/bindings"
    found = {path.name: path.read_text() for path in directory.glob("*.py") if path.name != "__init__.py"}
    assert made == found, "run scripts/make-bindings"


def test_the_script_sees_a_difference() -> None:
    """`--check` reads the same files and is content with them."""
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/make-bindings", "--check"], capture_output=True, text=True, check=False
    )
    assert 0 == done.returncode, done.stdout + done.stderr
    assert 9 == done.stdout.count("in step")


def test_every_type_has_its_class() -> None:
    """Each record, variant, enum and flags type of every package has a class with its fields, cases or names."""
    packages = contract.load().packages
    reader = Reader(Resolver.of(packages))
    named = [
        kind
        for package in packages
        for interface in package.interfaces
        for kind in reader.types(package, interface).values()
        if isinstance(kind, RecordType | VariantType | EnumType | FlagsType)
    ]
    assert {kind.name for kind in named} == set(CLASSES)
    for kind in named:
        found = CLASSES[kind.name]
        if isinstance(kind, VariantType):
            assert isinstance(found, dict)
            assert [name for name, _ in kind.cases] == list(found)
            for name, payload in kind.cases:
                assert issubclass(found[name], msgspec.Struct)
                assert (() if payload is None else ("value",)) == found[name].__struct_fields__
            continue
        assert isinstance(found, type)
        if isinstance(kind, RecordType):
            assert issubclass(found, msgspec.Struct)
            assert tuple(field_name(name) for name, _ in kind.fields) == found.__struct_fields__
        elif isinstance(kind, EnumType):
            assert issubclass(found, enum.Enum)
            assert list(kind.cases) == [member.value for member in found]
        else:
            assert issubclass(found, enum.Flag)
            assert [1 << number for number in range(len(kind.flags))] == [member.value for member in found]


def test_every_signature_is_there() -> None:
    """`FUNCTIONS` is what reading the WIT gives, without reading it."""
    packages = contract.load().packages
    reader = Reader(Resolver.of(packages))
    expected = {
        package.full_name(interface.name): reader.functions(package, interface)
        for package in packages
        for interface in package.interfaces
        if interface.functions
    }
    assert expected == dict(FUNCTIONS)


def test_unknown_names_are_no_members() -> None:
    """A table is asked for what is not in it, of a known package or not, and says so."""
    for name in ("airssys:core/types@1.0.0#nothing", "no:package/types#x", "os/path", ""):
        assert name not in CLASSES
        assert name not in FUNCTIONS


def test_values_compare_and_do_not_change() -> None:
    """A record is equal by its fields, and frozen; a case without payload has none."""
    one = airssys_core.ComponentId("acme", "reader", "0")
    assert airssys_core.ComponentId("acme", "reader", "0") == one
    assert airssys_core.ComponentId("acme", "reader", "1") != one
    with pytest.raises(AttributeError):
        one.name = "other"  # type: ignore[misc]
    assert airssys_core.StorageErrorQuotaExceeded() == airssys_core.StorageErrorQuotaExceeded()
    assert airssys_core.StorageErrorNotFound("k") != airssys_core.StorageErrorInvalidKey("k")
    assert isinstance(airssys_core.StorageErrorNotFound("k"), airssys_core.StorageError)


def test_words_that_python_keeps_are_escaped() -> None:
    """A field that is a keyword gets an underscore; types of long names stay within the line."""
    many = ", ".join(f"case-a{number}(tuple<u64, u16, s8>)" for number in range(40))
    text = wit(f"record row {{ %from: u8, class: option<option<u8>>, plain: result<u8> }} variant vast {{ {many} }}")
    assert "    from_: int\n    class_: Some | None\n    plain: Ok | Err\n" in text
    assert max(map(len, text.splitlines())) <= 120
    compile(text, "made", "exec")


@pytest.mark.parametrize(
    "text",
    [
        "variant a { b-c } record a-b-c { x: u8 }",
        "record a-b { x: u8 } record a-B { x: u8 }",
    ],
    ids=["case", "type"],
)
def test_two_things_of_one_name_are_refused(text: str) -> None:
    """Two types whose Python names would be one are an error when the module is made, not a surprise later."""
    with pytest.raises(WitError):
        wit(text)
