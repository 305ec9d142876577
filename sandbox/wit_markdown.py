"""WIT packages as a page for people: every item with its documentation, in the order of the files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from sandbox.wit import Function, Interface, Member, Package, TypeDef, World


def markdown(packages: Iterable[Package], introduction: str) -> str:
    """The page: a title, `introduction`, and a chapter per package. The same input gives the same text."""
    lines = ["# WIT interfaces", "", introduction]
    for package in packages:
        lines += ["", f"## {package.full_name('').replace('/', '')}", "", *_paragraphs(package.docs)]
        for world in package.worlds:
            lines += _world(package, world)
        for interface in package.interfaces:
            lines += _interface(package, interface)
    return "\n".join(lines) + "\n"


def functions_only(packages: Iterable[Package], title: str, introduction: str) -> str:
    """A shorter page, for packages whose types are somebody else's: every interface and function, one line each."""
    lines = [f"# {title}", "", introduction]
    for package in packages:
        lines += ["", f"## {package.name}", "", *_paragraphs(package.docs)]
        for interface in package.interfaces:
            lines += ["", f"### `{package.name}/{interface.name}`"]
            if interface.docs:
                lines += ["", *_paragraphs(interface.docs)]
            lines += ["", *map(_function_line, interface.functions)] if interface.functions else []
    return "\n".join(lines) + "\n"


def _function_line(function: Function) -> str:
    method = function.name.startswith("[method]")
    name = function.name.removeprefix("[method]")
    parameters = ", ".join(f"{each.name}: {each.type}" for each in function.parameters[int(method) :])
    arrow = "" if function.result is None else f" -> {function.result}"
    docs = " ".join(function.docs.split())
    return f"- `{name}: func({parameters}){arrow}`{': ' + docs if docs else ''}"


def _world(package: Package, world: World) -> Iterator[str]:
    yield from ("", f"### World `{package.full_name(world.name)}`", "", *_paragraphs(world.docs), "")
    for word, references in (("imports", world.imports), ("exports", world.exports)):
        for reference in references:
            home = f"{reference.package}/" if reference.package else f"{package.name}/"
            version = reference.version or ("" if reference.package else package.version)
            yield f"- {word} `{home}{reference.interface}{'@' + version if version else ''}`"


def _interface(package: Package, interface: Interface) -> Iterator[str]:
    yield from ("", f"### Interface `{package.full_name(interface.name)}`", "", *_paragraphs(interface.docs))
    for use in interface.uses:
        names = ", ".join(f"`{there}`" if there == here else f"`{there}` as `{here}`" for there, here in use.names)
        yield from ("", f"Uses {names} of `{use.source.interface}`.")
    for function in interface.functions:
        yield from _function(function)
    for definition in interface.types:
        yield from _type(definition)


def _function(function: Function) -> Iterator[str]:
    parameters = ", ".join(f"{each.name}: {each.type}" for each in function.parameters)
    arrow = "" if function.result is None else f" -> {function.result}"
    yield from ("", f"#### `{function.name}`", "", "```wit")
    yield f"{function.name}: func({parameters}){arrow};"
    yield from ("```", "", *_paragraphs(function.docs))


def _type(definition: TypeDef) -> Iterator[str]:
    yield from ("", f"#### {definition.kind} `{definition.name}`", "")
    if definition.alias is not None:
        yield from ("```wit", f"type {definition.name} = {definition.alias};", "```", "")
    yield from _paragraphs(definition.docs)
    if definition.members:
        yield ""
    for member in definition.members:
        yield _member(definition.kind, member)


def _member(kind: str, member: Member) -> str:
    if member.type is None:
        written = member.name
    elif kind == "variant":
        written = f"{member.name}({member.type})"
    else:
        written = f"{member.name}: {member.type}"
    docs = " ".join(member.docs.split())
    return f"- `{written}`: {docs}" if docs else f"- `{written}`"


def _paragraphs(docs: str) -> list[str]:
    """Documentation with each paragraph on one line, so that where the WIT breaks lines does not show."""
    return "\n\n".join(" ".join(part.split()) for part in re.split(r"\n\s*\n", docs) if part.strip()).split("\n")
