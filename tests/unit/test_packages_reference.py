"""The reference pages name every key, and their examples are true."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from sandbox.types import Limits
from supervisor.config import HostConfig, parse_config
from supervisor.control import limits_reference
from supervisor.packages import errors
from supervisor.packages.limit_table import TABLE
from supervisor.packages.manifest import (
    GRACEFUL,
    CapabilitiesSection,
    ComponentSection,
    FilesystemCapability,
    LimitsSection,
    MessagingCapability,
    StorageCapability,
    SupervisionSection,
    parse_manifest,
)
from supervisor.packages.manifest_rules import FILE_ACCESS, MESSAGING_ACCESS, STORAGE_ACCESS, WORLDS
from supervisor.packages.trust import Level, Publisher
from supervisor.packages.units import parse_duration, parse_size

pytestmark = pytest.mark.block7_lifecycle

REFERENCE = Path(__file__).resolve().parents[2] / "docs" / "reference"


def page(name: str) -> str:
    return (REFERENCE / name).read_text()


def block(name: str) -> str:
    match = re.search(r"```toml\n(.*?)```", page(name), re.DOTALL)
    assert match is not None
    return match[1]


def keys(struct: type[msgspec.Struct]) -> list[str]:
    return [field.encode_name for field in msgspec.structs.fields(struct)]


@pytest.mark.parametrize(
    "struct",
    [
        ComponentSection,
        LimitsSection,
        SupervisionSection,
        CapabilitiesSection,
        FilesystemCapability,
        MessagingCapability,
        StorageCapability,
    ],
)
def test_the_manifest_page_names_every_key(struct: type[msgspec.Struct]) -> None:
    """Each key of each section is on the page, in code."""
    text = page("manifest.md")
    assert [] == [key for key in keys(struct) if f"`{key}`" not in text and f".{key}]`" not in text]


def test_the_manifest_page_names_every_word() -> None:
    """Worlds and access words are on the page."""
    text = page("manifest.md")
    for word in (*WORLDS, *FILE_ACCESS, *MESSAGING_ACCESS, *STORAGE_ACCESS, "permanent", "transient", "temporary"):
        assert f"`{word}`" in text


def test_the_manifest_pages_example_is_a_manifest() -> None:
    """The example parses, and where it states a limit or a supervision value it states the default."""
    manifest = parse_manifest(block("manifest.md"))
    assert (LimitsSection(), SupervisionSection()) == (manifest.limits_section, manifest.supervision)
    assert manifest.capabilities.rationale


def _rows(name: str, prefix: str) -> dict[str, list[str]]:
    rows = {}
    for line in page(name).splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if match := re.fullmatch(rf"`({prefix}[a-z-]+)`", cells[0]):
            rows[match[1]] = cells
    return rows


def test_the_config_page_names_exactly_the_keys_there_are() -> None:
    """A key on the page parses; a key that parses is on the page; its stated default is the default."""
    places = HostConfig("/c", "/s", "/r")
    rows = _rows("config.md", r"[a-z]+\.")
    elsewhere = {"config_dir", "state_dir", "run_dir", "limit_maxima", "supervisors", "messaging"}
    messaging = {"messaging.dead-letters", "messaging.dead-letter-size", "messaging.record"}
    assert len(set(keys(HostConfig)) - elsewhere) == len({key.strip("`") for key in rows} - messaging)
    assert messaging <= {key.strip("`") for key in rows}
    for key, cells in rows.items():
        table, name = key.split(".")
        default = cells[1].strip("`")
        assert places == parse_config(f"[{table}]\n{name} = {default}\n", places), key


def test_the_config_pages_example_is_a_configuration() -> None:
    """The example parses and says what it shows."""
    assert "review" == parse_config(block("config.md"), HostConfig("/c", "/s", "/r")).install_policy


def test_the_manifest_pages_defaults_are_the_defaults() -> None:
    """The tables of limits and supervision state what a manifest without them gets."""
    text = page("manifest.md")
    for struct in (LimitsSection, SupervisionSection):
        for field in msgspec.structs.fields(struct):
            match = re.search(rf"^\| `{field.encode_name}` \| `([^`]+)`", text, re.MULTILINE)
            assert match is not None, field.encode_name
            stated = match[1].strip('[]"').replace('", "', " ").split()
            values = [field.default] if isinstance(field.default, (int, str)) else list(field.default)
            assert values == [_value(word, field.name) for word in stated]


def _value(word: str, field: str) -> int | str:
    if word.replace("_", "").isdigit():
        return int(word)
    if word == "graceful":
        return GRACEFUL
    if field.endswith("_ms"):
        return parse_duration(word)
    return parse_size(word) if word[0].isdigit() else word


def test_the_packages_page_names_every_refusal() -> None:
    """The codes in the error class's list and the table agree, but for E_WEAK_KEY, which is about keys."""
    listed = set(re.findall(r"E_[A-Z_]+", errors.PackageError.__doc__ or ""))
    text = page("packages.md")
    table = set(re.findall(r"^\| `(E_[A-Z_]+)`", text, re.MULTILINE))
    assert listed - {"E_WEAK_KEY"} == table
    assert "`E_WEAK_KEY`" in text


def test_the_packages_page_names_every_field_of_a_publisher() -> None:
    """Fields and levels of the trust store are on the page."""
    text = page("packages.md")
    for word in (*keys(Publisher), *(level.value for level in Level)):
        assert f"`{word}`" in text


def test_each_limit_has_a_test_that_exists() -> None:
    """The table of limits names, for every key, tests there are, and every row is a field of `Limits`."""
    assert [row.key for row in TABLE] == list(limits_reference.TESTS)
    assert [row.field for row in TABLE] == list(Limits.__struct_fields__)
    for test in {test for tests in limits_reference.TESTS.values() for test in tests}:
        file, _, name = test.partition("::")
        assert f"def {name}(" in (Path(__file__).parents[1] / file).read_text(), test


def test_the_manifest_page_says_what_the_table_says() -> None:
    """What happens when a limit is reached stands on the page as the program's own table has it."""
    text = page("manifest.md")
    assert [] == [row.key for row in TABLE if f"{row.reached} |" not in text]


def test_the_limits_page_is_the_programs() -> None:
    """The generated page is in step."""
    assert limits_reference.markdown() == page("limits.md")
