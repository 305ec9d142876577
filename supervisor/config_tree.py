"""`[[supervisor]]` of the host's configuration: the supervision tree as the operator declares it.

Implements the section on supervisors of `docs/reference/config.md`. Everything that can be wrong with a tree is found
here, with file, key and line; whoever gets the finished specs need not look again. What is named in no supervisor is a
child of the root, which is always there and never declared.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Literal, TypeAlias, get_args

import msgspec

from sandbox.types import MAX_NAME, ComponentId, valid_package_name
from supervisor.packages.toml_source import Table, integer, string, strings
from supervisor.packages.units import format_duration, parse_duration

ROOT = "root"
"""The supervisor of all: one-for-one, and what ends there for good is quarantined."""
Strategy: TypeAlias = Literal["one-for-one", "one-for-all", "rest-for-one", "simple-one-for-one"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)
REPLICAS: Strategy = "simple-one-for-one"
MAX_SUPERVISORS = 100
MAX_CHILDREN = 1_000
"""Most children of one supervisor, replicas included."""
_NAME_RE = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*\Z")


class SupervisorSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One `[[supervisor]]`, checked; milliseconds. `children` are component ids and supervisors, in start order."""

    name: str
    parent: str = ROOT
    strategy: Strategy = "one-for-one"
    children: tuple[str, ...] = ()
    max_restarts: int = 3
    window_ms: int = 60_000
    backoff_ms: tuple[int, int] = (100, 30_000)
    template: str = ""
    """The package that its replicas are instances of; "" where it has none."""
    replicas: int = 0


def read_supervisors(root: Table) -> tuple[SupervisorSpec, ...]:
    """Take `[[supervisor]]` out of a document, in the order of the file.

    Raises:
        SourceError: a table is wrong, or the tables together are no tree.
    """
    tables = root.tables("supervisor", most=MAX_SUPERVISORS)
    specs = [_read(table) for table in tables]
    by_name: dict[str, int] = {}
    for index, spec in enumerate(specs):
        if spec.name in by_name:
            raise tables[index].refuse("name", f"two supervisors are called {spec.name}")
        by_name[spec.name] = index
    _refuse_shared_children(tables, specs)
    parents = _parents(tables, specs, by_name)
    _refuse_cycles(tables, specs, parents)
    for index, spec in enumerate(specs):
        # A supervisor that names its parent and is not listed there comes after those that are, in the file's order.
        late = [s.name for s in specs if parents[s.name] == spec.name and s.name not in spec.children]
        if late and spec.strategy == REPLICAS:
            raise tables[by_name[late[0]]].refuse("parent", f"{spec.name} has replicas for children and no others")
        children = (*spec.children, *late)
        if len(children) > MAX_CHILDREN:
            raise tables[index].refuse("children", f"more than {MAX_CHILDREN} children")
        specs[index] = msgspec.structs.replace(spec, parent=parents[spec.name], children=children)
    return tuple(specs)


def _read(table: Table) -> SupervisorSpec:
    usual = SupervisorSpec("")
    spec = SupervisorSpec(
        name=table.take("name", _name),
        parent=table.take("parent", _parent, default=""),
        strategy=table.take("strategy", _strategy, default=usual.strategy),
        children=table.take("children", _children, default=()),
        max_restarts=table.take("max-restarts", _between(integer, 0, 1_000), default=usual.max_restarts),
        window_ms=table.take("window", _duration(1_000, 86_400_000), default=usual.window_ms),
        backoff_ms=table.take("backoff", _backoff, default=usual.backoff_ms),
        template=table.take("template", _template, default=""),
        replicas=table.take("replicas", _between(integer, 1, MAX_CHILDREN), default=0),
    )
    if spec.strategy == REPLICAS:
        for key in ("template", "replicas"):
            if key not in table:
                raise table.refuse(None, f'a supervisor of strategy "{REPLICAS}" says {key}')
        if spec.children:
            raise table.refuse("children", f'with strategy "{REPLICAS}" the children are the replicas of the template')
    else:
        for key in ("template", "replicas"):
            if key in table:
                raise table.refuse(key, f'{key} belongs to strategy "{REPLICAS}"')
    return spec


def _refuse_shared_children(tables: list[Table], specs: list[SupervisorSpec]) -> None:
    """Each child has one supervisor: a component that two of them stop and start would obey neither."""
    seen: dict[str, str] = {}
    templates: dict[str, str] = {}
    for table, spec in zip(tables, specs, strict=True):
        if spec.template in templates and spec.template:
            raise table.refuse("template", f"{spec.template} is the template of {templates[spec.template]} already")
        templates[spec.template] = spec.name
    for table, spec in zip(tables, specs, strict=True):
        for child in spec.children:
            if child in seen:
                raise table.refuse("children", f"{child} is a child of {seen[child]} already")
            seen[child] = spec.name
            package = child.rpartition("/")[0]
            if package in templates and package:
                raise table.refuse("children", f"{package} is the template of {templates[package]}")


def _parents(tables: list[Table], specs: list[SupervisorSpec], by_name: dict[str, int]) -> dict[str, str]:
    """Whose child each supervisor is, from the two ways to say it."""
    parents: dict[str, str] = {}
    for table, spec in zip(tables, specs, strict=True):
        if spec.parent not in ("", ROOT) and spec.parent not in by_name:
            raise table.refuse("parent", f"there is no supervisor {spec.parent}")
        for child in spec.children:
            if "/" in child:
                continue
            if child not in by_name:
                raise table.refuse("children", f"there is no supervisor {child}", "a component is namespace/name")
            if specs[by_name[child]].parent not in ("", spec.name):
                message = f"{child} is a child of {specs[by_name[child]].parent}, as its own parent says"
                raise table.refuse("children", message)
            parents[child] = spec.name
    return {spec.name: parents.get(spec.name, spec.parent or ROOT) for spec in specs}


def _refuse_cycles(tables: list[Table], specs: list[SupervisorSpec], parents: dict[str, str]) -> None:
    for table, spec in zip(tables, specs, strict=True):
        above, way = parents[spec.name], [spec.name]
        while above != ROOT:
            way.append(above)
            if above == spec.name:
                raise table.refuse("name", f"the supervisor is its own ancestor: {' in '.join(way)}")
            if len(way) > len(specs):
                break  # it leads into a cycle it is no part of; that cycle's own members say so
            above = parents[above]


# -- values -----------------------------------------------------------------------------------------------------


def _name(value: Any) -> str:
    name = string(value)
    if not _NAME_RE.match(name) or len(name) > MAX_NAME:
        raise ValueError(f"a supervisor's name is lower-case letters, digits and dashes, at most {MAX_NAME}")
    if name == ROOT:
        raise ValueError("the root is always there and is not declared")
    return name


def _parent(value: Any) -> str:
    return ROOT if value == ROOT else _name(value)


def _strategy(value: Any) -> Strategy:
    for strategy in STRATEGIES:
        if value == strategy:
            return strategy
    raise ValueError(f"must be one of {', '.join(STRATEGIES)}")


def _children(value: Any) -> tuple[str, ...]:
    children = tuple(str(ComponentId.parse(child)) if "/" in child else _name(child) for child in strings(value))
    if len(children) > MAX_CHILDREN:
        raise ValueError(f"more than {MAX_CHILDREN} children")
    for index, child in enumerate(children):
        if child in children[:index]:
            raise ValueError(f"{child} is named twice")
    return children


def _template(value: Any) -> str:
    if not valid_package_name(string(value)):
        raise ValueError("must be a package's name, as acme/worker")
    return string(value)


def _between(parse: Callable[[Any], int], low: int, high: int) -> Callable[[Any], int]:
    def bounded(value: Any) -> int:
        number = parse(value)
        if not low <= number <= high:
            raise ValueError(f"must be between {low} and {high}")
        return number

    return bounded


def _duration(low: int, high: int) -> Callable[[Any], int]:
    def bounded(value: Any) -> int:
        duration = parse_duration(value)
        if not low <= duration <= high:
            raise ValueError(f"must be between {format_duration(low)} and {format_duration(high)}")
        return duration

    return bounded


def _backoff(value: Any) -> tuple[int, int]:
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError('must be the first and the longest delay, as ["100ms", "30s"]')
    bounded = _duration(1, 3_600_000)
    first, most = bounded(value[0]), bounded(value[1])
    if first > most:
        raise ValueError("the first delay is longer than the longest")
    return first, most
