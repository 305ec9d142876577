"""The documents are true: links resolve, commands and tests they name exist, no machine's paths are in them."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import typing
from collections.abc import Iterator
from pathlib import Path

import airssys.client
import airssys.testing
import click
import pytest
from airssys.client import reference as client_reference
from airssys.componentize import componentize
from airssys.testing import reference

from supervisor.cli.app import COMMANDS, root
from supervisor.config import HostConfig, parse_config
from supervisor.control.endpoints import ENDPOINTS
from supervisor.control.reference import markdown
from supervisor.packages.manifest import parse_manifest
from supervisor.selftest import protocol
from supervisor.selftest.machine import ROUTINES
from supervisor.selftest.scene import SCENES

pytestmark = pytest.mark.block11_cli

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not any(part.startswith(".") or part in ("build", "dist") for part in path.relative_to(ROOT).parts)
)
NAMES = [str(path.relative_to(ROOT)) for path in PAGES]
LINK = re.compile(r"\[[^]\[]*\]\(([^()\s]+)\)")
FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
MACHINE = re.compile(r"(?<![\w.$-])/(?:work|tmp|root(?!/\.)|home/(?!\*))(?=/|\b)")
"""Paths of a machine; the forbidden paths of the policy (`/root/.ssh`, `/home/*`) are none."""
SHELL_WORDS = frozenset({"|", ">", ">>", "<", "&&", "||", ";", "2>", "&"})


def prose(text: str) -> str:
    """A page without its fenced and indented blocks and its code spans."""
    text = FENCE.sub("", text)
    text = "\n".join(line for line in text.split("\n") if not line.startswith("    "))
    return re.sub(r"`[^`\n]*`", "", text)


def anchors(text: str) -> set[str]:
    """The names under which a page's headings can be linked to, as the usual renderers make them."""
    found = set()
    for heading in re.findall(r"^#{1,6} +(.+?) *$", FENCE.sub("", text), re.MULTILINE):
        plain = re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower())
        found.add(plain.replace(" ", "-"))
    return found


def commands(text: str) -> Iterator[str]:
    """Each `airssys ...` command line: in blocks (continued lines joined) and in code spans."""
    joined = re.sub(r"\\\n\s*", " ", text)
    for line in joined.split("\n"):
        found = re.match(r"\s*(?:\$ +)?(?:\.venv/bin/|/opt/airssys/bin/)?(airssys +.*)$", line)
        if found and not line.startswith("airssys run"):
            yield re.split(r" {3,}", found[1])[0]
    yield from (span for span in re.findall(r"`(airssys +[^`\n]+)`", FENCE.sub("", text)))


def refuse(line: str) -> str:
    """Why the command line names a command or an option there is not; "" where it is one."""
    words: list[str] = []
    for word in shlex.split(line, comments=True):
        if word in SHELL_WORDS:
            break
        if word != "[OPTIONS]":  # stands for options in the reference's usage lines
            words.append(word.replace("...", "x"))
    command: click.Command = root
    context = click.Context(root, info_name="airssys")
    rest = words[1:]
    try:
        while True:
            given, rest, _ = command.make_parser(context).parse_args(rest)
            if not isinstance(command, click.Group):
                break
            if not rest:
                return ""  # `airssys trust` alone, or global options alone
            found = command.get_command(context, rest[0])
            if found is None:
                return f"no command {rest[0]}"
            command, rest = found, rest[1:]
            context = click.Context(command, info_name=command.name, parent=context)
    except click.UsageError as error:
        return error.format_message()
    if rest:
        return f"too many arguments: {rest}"
    for parameter in command.params:
        value = given.get(str(parameter.name))
        if isinstance(parameter.type, click.Choice):
            for choice in value if isinstance(value, list) else [value]:
                if isinstance(choice, str) and choice not in parameter.type.choices:
                    return f"no choice of {parameter.name}: {choice}"
    return ""


def test_the_checks_can_fail() -> None:
    """Positive control: a wrong command, option, choice and argument are refused, a right line is not."""
    assert "" == refuse("airssys install ./x --bind /logs=/srv/logs --yes --output json")
    assert "" == refuse("airssys --output json trust add acme --key f.pub --scope 'acme/*' --level deny | cat")
    for wrong in (
        "airssys instal ./x",
        "airssys install ./x --force",
        "airssys trust add acme --key f --scope x --level friend",
        "airssys down now",
        "airssys trust believe acme",
    ):
        assert refuse(wrong), wrong
    assert ["airssys up --detach", "airssys down"] == list(
        commands("    $ airssys up --detach   # c\nor `airssys down`\n")
    )
    assert MACHINE.search("see /" + "work/x") and MACHINE.search("(/" + "tmp/a)")
    assert not MACHINE.search("docs/work/x, $ROOT/tmp, /root/.ssh")
    assert {"a-first-look", "e_x"} == anchors("# A first look\n## `E_X`\n")


def test_there_are_pages() -> None:
    """The pages people look for are here."""
    for name in (
        "README.md",
        "CHANGELOG.md",
        "docs/architecture.md",
        "docs/guide/operators.md",
        "docs/guide/authors.md",
    ):
        assert name in NAMES
        assert 500 < len((ROOT / name).read_text())


@pytest.mark.parametrize("name", NAMES)
def test_links_resolve(name: str) -> None:
    """Each relative link leads to a file, and its anchor to a heading of it."""
    page = ROOT / name
    wrong = []
    for target in LINK.findall(prose(page.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file.read_text())):
            wrong.append(target)
    assert [] == wrong


@pytest.mark.parametrize("name", NAMES)
def test_commands_exist(name: str) -> None:
    """Each `airssys` command line names a command there is, with options and choices it has."""
    wrong = {line: why for line in commands((ROOT / name).read_text()) if (why := refuse(line))}
    assert {} == wrong


def test_the_guides_show_commands() -> None:
    """Positive control: the lines are found, and the operators' guide shows nearly every command."""
    assert 5 <= len(list(commands((ROOT / "README.md").read_text())))
    shown = {line.split()[1] for line in commands((ROOT / "docs/guide/operators.md").read_text())}
    shown |= {line.split()[1] for line in commands((ROOT / "docs/guide/authors.md").read_text())}
    assert set() == {name for name in COMMANDS if name not in shown}


@pytest.mark.parametrize("name", NAMES)
def test_named_tests_exist(name: str) -> None:
    """A test that a page names, as `test_x.py` or `test_x.py::test_y`, exists."""
    files: dict[str, str] = {}
    for path in (*(ROOT / "tests").rglob("test_*.py"), *(ROOT / "examples").rglob("test_*.py")):
        files[path.name] = files.get(path.name, "") + path.read_text()  # two may have one name
    wrong = []
    for file, test in re.findall(r"\b(test_\w+\.py)(?:::(test_\w+))?", (ROOT / name).read_text()):
        if file not in files or (test and f"def {test}(" not in files[file]):
            wrong.append(f"{file}::{test}")
    assert [] == wrong


@pytest.mark.parametrize("name", NAMES)
def test_no_machine_paths(name: str) -> None:
    """No path of the machine it was written on."""
    found = [line for line in (ROOT / name).read_text().splitlines() if MACHINE.search(line)]
    assert [] == found


def block(name: str, language: str) -> str:
    """The first block of this language on a page."""
    found = re.search(rf"```{language}\n(.*?)```", (ROOT / name).read_text(), re.DOTALL)
    assert found is not None
    return found[1]


def test_the_authors_example_builds(tmp_path: Path) -> None:
    """Source and manifest of the authors' guide are what they say: it compiles with the guide's flags and fits."""
    guide = (ROOT / "docs/guide/authors.md").read_text()
    flags = re.search(r"-m ziglang cc (.*?)-I sdk/c -o core.wasm", guide, re.DOTALL)
    assert flags is not None
    source = tmp_path / "component.c"
    source.write_text(block("docs/guide/authors.md", "c"))
    core = tmp_path / "core.wasm"
    argv = [sys.executable, "-m", "ziglang", "cc", *flags[1].replace("\\\n", " ").split()]
    caches = {"ZIG_GLOBAL_CACHE_DIR": f"{tmp_path}/global", "ZIG_LOCAL_CACHE_DIR": f"{tmp_path}/local"}
    done = subprocess.run(
        [*argv, "-I", str(ROOT / "sdk/c"), "-o", str(core), str(source)],
        env=os.environ | caches,
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 == done.returncode, done.stderr
    assert "" == done.stderr
    assert componentize((ROOT / "sdk/c/templates/osl-host.wasm").read_bytes(), core.read_bytes())
    manifest = parse_manifest(block("docs/guide/authors.md", "toml"))
    assert "me/hello" == manifest.component.name


def test_the_operators_configuration_is_one(tmp_path: Path) -> None:
    """The operators' guide shows a configuration the host takes."""
    places = HostConfig(str(tmp_path), str(tmp_path), str(tmp_path))
    config = parse_config(block("docs/guide/operators.md", "toml"), places)
    assert ((1000,), "always", "review") == (config.admins, config.audit_sync, config.install_policy)


def test_api_reference_is_in_step() -> None:
    """docs/reference/api.md is what the endpoints say."""
    assert markdown() == (ROOT / "docs/reference/api.md").read_text(), "run scripts/make-reference api"


def test_client_reference_is_in_step() -> None:
    """docs/reference/client.md is what the client library's docstrings say, and names all of it."""
    text = (ROOT / "docs/reference/client.md").read_text()
    assert client_reference.markdown() == text, "run scripts/make-reference client"
    assert [] == [name for name in airssys.client.__all__ if f"`{name}`" not in text and f"### {name}\n" not in text]


def test_api_reference_names_everything() -> None:
    """Every endpoint has a section, and every structure it takes or gives."""
    text = (ROOT / "docs/reference/api.md").read_text()
    for endpoint in ENDPOINTS:
        assert f"### {endpoint.method} {endpoint.path}\n" in text
        for kind in (endpoint.body, endpoint.answer):
            assert not isinstance(kind, type) or f"### {kind.__name__}\n" in text


def test_fixtures_reference_is_in_step() -> None:
    """docs/reference/fixtures.md is what the plugin's own docstrings say, and names every fixture and option."""
    text = (ROOT / "docs/reference/fixtures.md").read_text()
    assert reference.markdown() == text, "run scripts/make-reference fixtures"
    assert {"airssys_host", "airssys_worker", "airssys_publisher", "hostile_worker"} <= reference.fixtures().keys()
    for name in (*(f"### {fixture}\n" for fixture in reference.fixtures()), *airssys.testing.__all__):
        assert name in text


def test_protocol_reference_names_everything() -> None:
    """Each request, each field of it, each routine and scene stands on the page of `airssys selftest serve`."""
    text = (ROOT / "docs/reference/selftest-serve.md").read_text()
    for kind in typing.get_args(protocol.AnyRequest):
        assert f"| `{kind.__struct_config__.tag}` |" in text
    kinds = (*typing.get_args(protocol.AnyRequest), protocol.Hello, protocol.WallBody, protocol.ResultBody)
    bodies = (protocol.ProgramBody, protocol.StepBody, protocol.PlaceBody, protocol.ErrorBody)
    names = {field for kind in (*kinds, *bodies) for field in kind.__struct_encode_fields__}
    for name in (*names, *ROUTINES, *SCENES):
        assert f"`{name}`" in text or f'"{name}"' in text, name


def test_promised_numbers_can_be_reproduced() -> None:
    """Each benchmark that the page of numbers names is one of `scripts/bench`, and each of those stands on the page."""
    page = (ROOT / "docs/specification.md").read_text().split("## Time to recover")[0]
    named = re.findall(r"^\|[^|]+\|[^|]+\| `([a-z-]+)` \|", page, re.MULTILINE)
    script = (ROOT / "scripts/bench.py").read_text().split("BENCHMARKS", 1)[1]
    assert sorted(re.findall(r'^    "([a-z-]+)": ', script.split("}")[0], re.MULTILINE)) == sorted(named)
