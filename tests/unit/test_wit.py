"""The WIT parser, and that the packages we ship say what the contract says."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.resources import wit_directory
from sandbox.wit import Interface, Member, Package, Type, parse_directory, parse_files
from sandbox.wit_lexer import KEYWORDS, WitError
from sandbox.wit_markdown import markdown
from sandbox.wit_resolve import MAX_SIGNATURE, Resolver

pytestmark = pytest.mark.block2_wit

GOLDEN = Path(__file__).parent / "data/airssys-core-1.0.0.wit"
CORE, OSL = wit_directory() / "airssys-core", wit_directory() / "airssys-osl"
SOURCES = [path.read_text() for path in sorted([GOLDEN, *CORE.glob("*.wit"), *OSL.glob("*.wit")])]


def parse(text: str) -> Package:
    return parse_files({"test.wit": "package a:b@1.0.0;\n" + text})


def interface(body: str) -> Interface:
    return parse(f"interface i {{\n{body}\n}}").interfaces[0]


# -- the packages ---------------------------------------------------------------------------------------------------


def undocumented(members: tuple[Member, ...]) -> tuple[Member, ...]:
    return tuple(replace(member, docs="") for member in members)


def declarations(found: Interface) -> Interface:
    """An interface without documentation and places in files."""
    return replace(
        found,
        uses=tuple(replace(use, source=replace(use.source, line=0)) for use in found.uses),
        types=tuple(replace(each, members=undocumented(each.members), docs="", line=0) for each in found.types),
        functions=tuple(
            replace(each, parameters=undocumented(each.parameters), docs="", line=0) for each in found.functions
        ),
        docs="",
        file="",
    )


def test_core_declares_what_the_contract_says() -> None:
    """Same interfaces, names, order and types as the golden copy; only documentation differs."""
    golden = parse_files({"golden": GOLDEN.read_text()})
    ours = parse_directory(CORE)
    assert (golden.name, golden.version) == (ours.name, ours.version)
    expected = {each.name: declarations(each) for each in golden.interfaces}
    assert expected == {each.name: declarations(each) for each in ours.interfaces}
    for theirs, world in zip(golden.worlds, ours.worlds, strict=True):
        assert theirs.name == world.name
        assert [each.interface for each in theirs.imports] == [each.interface for each in world.imports]
        assert [each.interface for each in theirs.exports] == [each.interface for each in world.exports]


def test_a_changed_declaration_is_noticed() -> None:
    """Positive control: the comparison sees a swapped field, another type, and another order of cases."""
    golden = parse_files({"golden": GOLDEN.read_text()}).interfaces
    for old, new in (
        ("seconds: u64, nanoseconds: u32", "nanoseconds: u32, seconds: u64"),
        ("timeout-ms: u64", "timeout-ms: u32"),
        ("trace, debug", "debug, trace"),
    ):
        assert old in GOLDEN.read_text()
        changed = parse_files({"golden": GOLDEN.read_text().replace(old, new)}).interfaces
        assert [declarations(each) for each in golden] != [declarations(each) for each in changed]


def test_every_item_is_documented() -> None:
    """Packages, interfaces, worlds, functions and named types carry documentation."""
    for package in (parse_directory(CORE), parse_directory(OSL)):
        assert package.docs
        bare = [each.name for each in package.interfaces if not each.docs]
        bare += [each.name for each in package.worlds if not each.docs]
        for each in package.interfaces:
            bare += [f"{each.name}#{function.name}" for function in each.functions if not function.docs]
            bare += [f"{each.name}.{kind.name}" for kind in each.types if not kind.docs]
        assert [] == bare


# -- parsing --------------------------------------------------------------------------------------------------------


def test_documentation_and_escapes() -> None:
    """Documentation goes to what follows it; `%` makes a keyword a name; comments vanish."""
    found = interface("/// One.\n/// Two.\n%list: func(%type: list<u8>) -> bool; // no\n/* a\n b */ type t = u8;")
    function = found.functions[0]
    assert ("list", "One.\nTwo.", 5) == (function.name, function.docs, function.line)
    assert ("type", Type("list", (Type("u8"),))) == (function.parameters[0].name, function.parameters[0].type)
    assert (1, 7) == (len(found.types), found.types[0].line)


def test_resources() -> None:
    """A method is a function that borrows its resource first; a resource's name means owning it."""
    found = interface("resource r {\n/// One.\nm: func(a: u8) -> r;\n}\nresource s;\nf: func(x: borrow<s>);")
    assert [("r", "resource"), ("s", "resource")] == [(each.name, each.kind) for each in found.types]
    method, function = found.functions
    assert ("[method]r.m", "One.", Type("r")) == (method.name, method.docs, method.result)
    borrowed = ("self", Type("borrow", (Type("r"),)))
    assert [borrowed, ("a", Type("u8"))] == [(each.name, each.type) for each in method.parameters]
    assert "borrow<s>" == str(function.parameters[0].type)


def test_resources_written_out() -> None:
    """A handle's type names the resource and the interface it is of, wherever it is used; only resources are lent."""
    package = parse(
        "interface i { resource r; type t = r; }"
        "interface j { use i.{r as q, t}; f: func(a: borrow<q>, b: list<t>) -> option<q>; }"
    )
    resolver = Resolver.of([package])
    assert {"f": "func(a: borrow<a:b/i.r>, b: list<own<a:b/i.r>>) -> option<own<a:b/i.r>>"} == resolver.functions(
        package, package.interfaces[1]
    )
    with pytest.raises(WitError, match="only a resource can be borrowed"):
        Resolver.of([parse("interface i { type t = u8; f: func(a: borrow<t>); }")])


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("interface i {\n f: func()\n}", 4, "expected `;`"),
        ("interface i {\n f: func(a: 5);\n}", 3, "unexpected character '5'"),
        ("interface i { resource r { constructor(); } }", 2, "is a keyword"),
        ("interface i { resource r { f: static func(); } }", 2, "expected `func`"),
        ("interface i { resource r { f: func(self: u8); } }", 2, "self is given twice"),
        ("interface i { f: func(a: borrow<list>); }", 2, "is a keyword"),
        ("interface i { f: func(list: u8); }", 2, "write `%list`"),
        ("interface i { f: func(a: u8, a: u8); }", 2, "a is given twice"),
        ("interface i { type a = u8; type a = u8; }", 2, "a is defined twice"),
        ("interface i { record r {} }", 2, "record r is empty"),
        ("interface i { f: func() -> stream<u8>; }", 2, "not a type"),
        ("interface i { f: func() -> " + "list<" * 40 + "u8" + ">" * 40 + "; }", 2, "too deeply"),
        ("interface i { /* never", 2, "never closed"),
        ("interface I-x { f: func(Ab: u8); }", 2, "not a WIT name"),
        ("world w { include x; }", 2, "expected import or export"),
        ("type a = u8;", 2, "expected package, interface or world"),
        ("interface i {}\npackage a:c;", 3, "must come first"),
        ("interface i {", 2, "the end of the file"),
    ],
)
def test_errors_name_file_and_line(text: str, line: int, message: str) -> None:
    """What is refused is refused with its place."""
    with pytest.raises(WitError, match=message.replace("(", r"\(")) as caught:
        parse(text)
    assert ("E_WIT", f"test.wit:{line}") == (caught.value.code, caught.value.subject)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a": "interface i {}"}, "no package"),
        ({"a": "package a:b;", "b": "package a:c;"}, "several packages"),
        ({"a": "package a:b; interface i {}", "b": "world i {}"}, "i is defined twice"),
        ({}, "no package"),
    ],
)
def test_packages_over_files(files: dict[str, str], message: str) -> None:
    """One package per directory, each name once."""
    with pytest.raises(WitError, match=message):
        parse_files(files)


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    """Bytes that are not UTF-8 are a WitError, not a crash."""
    (tmp_path / "a.wit").write_bytes(b"package a:b;\xff")
    with pytest.raises(WitError, match="not UTF-8"):
        parse_directory(tmp_path)


names = st.from_regex(r"[a-z][a-z0-9]{0,5}(-[a-z][a-z0-9]{0,3}){0,2}", fullmatch=True)
primitives = st.sampled_from(["u8", "u64", "s32", "f64", "bool", "char", "string"]).map(Type)
types = st.recursive(
    primitives,
    lambda inner: st.one_of(
        st.builds(lambda a: Type("list", (a,)), inner),
        st.builds(lambda a: Type("option", (a,)), inner),
        st.builds(lambda some: Type("tuple", tuple(some)), st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda ok, error: Type("result", (ok, error)), st.none() | inner, st.none() | inner),
    ),
    max_leaves=8,
)


@given(types)
def test_types_survive_writing_and_reading(kind: Type) -> None:
    """A type expression, written out and parsed, is itself."""
    assert kind == interface(f"type t = {kind};").types[0].alias


@given(st.lists(st.tuples(names, types), unique_by=lambda pair: pair[0], max_size=5), st.none() | types)
def test_functions_survive_writing_and_reading(parameters: list[tuple[str, Type]], result: Type | None) -> None:
    """So does a whole signature; its canonical text is what was written."""
    given_text = ", ".join(f"%{name}: {kind}" for name, kind in parameters)
    arrow = f" -> {result}" if result else ""
    package = parse(f"interface i {{ f: func({given_text}){arrow}; }}")
    function = package.interfaces[0].functions[0]
    assert (parameters, result) == ([(each.name, each.type) for each in function.parameters], function.result)
    text = Resolver.of([package]).functions(package, package.interfaces[0])["f"]
    assert f"func({given_text.replace('%', '')}){arrow}" == text


@given(st.sampled_from(SOURCES), st.data())
def test_mutated_text_parses_or_is_refused(source: str, data: st.DataObject) -> None:
    """Whatever is done to WIT text, the answer is a package or a WitError."""
    words = [*sorted(KEYWORDS), *"{}()<>,;:=./_@%*-", "->", "///", "/*", "\0", "é", "\n", "x"]
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(source)))
        cut = data.draw(st.integers(0, 40))
        source = source[:at] + data.draw(st.sampled_from(words)) + source[at + cut :]
    try:
        package = parse_files({"f": source})
        Resolver.of([package])
    except WitError as error:
        assert error.message


@given(st.text(max_size=200))
def test_any_text_parses_or_is_refused(text: str) -> None:
    """Text that never was WIT, too."""
    try:
        parse_files({"f": text})
    except WitError as error:
        assert error.message


# -- resolving ------------------------------------------------------------------------------------------------------


def test_names_resolve_across_interfaces_and_packages() -> None:
    """`use`, renaming and aliases end in the structure, wherever it was defined."""
    first = parse("interface t { record r { n: u8 } type alias = r; }\ninterface u { use t.{alias as there}; }")
    second = parse_files(
        {
            "c": "package c:d; interface i { use a:b/u@1.0.0.{there as here}; f: func(x: here) -> list<here>; }"
            "world w { import i; }"
        }
    )
    resolver = Resolver.of([first, second])
    expected = {"f": "func(x: record{n: u8}) -> list<record{n: u8}>"}
    assert expected == resolver.functions(second, second.interfaces[0])
    reached = [home.full_name(each.name) for home, each in resolver.imported(second, second.worlds[0])]
    assert ["a:b/t@1.0.0", "a:b/u@1.0.0", "c:d/i"] == reached


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("interface i { f: func(a: nothing); }", "unknown type nothing"),
        ("interface i { use j.{a}; }", "unknown interface j"),
        ("interface i { use x:y/j@1.0.0.{a}; }", "unknown interface x:y/j"),
        ("interface i { type a = b; type b = list<a>; }", "made of itself"),
        ("interface i { use j.{a}; } interface j { use i.{a}; }", "made of itself|uses itself"),
        ("world w { import nothing; }", "unknown interface nothing"),
    ],
)
def test_names_that_lead_nowhere(body: str, message: str) -> None:
    """Unknown and circular names are errors."""
    with pytest.raises(WitError, match=message):
        Resolver.of([parse(body)])


def test_types_that_double_at_each_level() -> None:
    """A type whose text would be exponential is refused, not written."""
    doubling = "".join(f"type a{n} = tuple<a{n - 1}, a{n - 1}>; " for n in range(1, 40))
    with pytest.raises(WitError, match=f"longer than {MAX_SIGNATURE}"):
        Resolver.of([parse(f"interface i {{ type a0 = u8; {doubling} }}")])


# -- the reference page ---------------------------------------------------------------------------------------------


def test_reference_page_is_in_step() -> None:
    """docs/reference/wit.md is what scripts/make-reference writes now."""
    script = Path(__file__).resolve().parents[2] / "scripts/make-reference"
    done = subprocess.run([sys.executable, str(script), "--check", "wit"], capture_output=True, text=True, check=False)
    assert (0, "wit: in step\n", "") == (done.returncode, done.stdout, done.stderr)


def test_markdown_shows_every_kind_of_item() -> None:
    """Functions, types and worlds appear with their documentation; paragraphs are joined."""
    package = parse(
        "/// One\n/// line.\n///\n/// Two.\ninterface i { use j.{r as q}; /// Doc.\n f: func(a: q) -> u8;\n"
        "variant v { /// A.\n a(u8), b } type t = list<u8>; }\ninterface j { record r { n: u8 } }\n"
        "world w { import i; export c:d/k@2.0.0; }"
    )
    page = markdown([package], "Intro.")
    for expected in (
        "\n## a:b@1.0.0\n",
        "\nOne line.\n\nTwo.\n",
        "\nf: func(a: q) -> u8;\n```\n\nDoc.\n",
        "\n- `a(u8)`: A.\n- `b`\n",
        "\ntype t = list<u8>;\n",
        "\n- `n: u8`\n",
        "\nUses `r` as `q` of `j`.\n",
        "\n- imports `a:b/i@1.0.0`\n- exports `c:d/k@2.0.0`\n",
    ):
        assert expected in page
