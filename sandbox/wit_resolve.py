"""What a WIT name stands for: references across packages, and types written out in full.

A resolved type is one line of text without any name of its own: `record{seconds: u64, nanoseconds: u32}`. Two types
are the same for the Component Model exactly when these lines are, so signatures can be compared, stored and shown.
A resource is the one type that is what it is by its name: `own<wasi:io/poll.pollable>`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sandbox.wit import PRIMITIVES, Function, Interface, Package, Reference, Type, TypeDef, World
from sandbox.wit_lexer import WitError

MAX_SIGNATURE = 16 * 1024
"""Longest type written out, characters. Types that double in size at each level must not take the memory."""


@dataclass(frozen=True)
class Resolver:
    """The packages, by name and version."""

    packages: dict[tuple[str, str], Package]

    @classmethod
    def of(cls, packages: Iterable[Package]) -> Resolver:
        """Resolver over these packages, checked: every name in them resolves.

        Raises:
            WitError: an unknown interface or type, a type made of itself, or a type too long.
        """
        resolver = cls({(package.name, package.version): package for package in packages})
        for package in resolver.packages.values():
            for interface in package.interfaces:
                resolver.types(package, interface)
                resolver.functions(package, interface)
            for world in package.worlds:
                resolver.imported(package, world)
                resolver.exported(package, world)
        return resolver

    # interfaces

    def interface(self, package: Package, reference: Reference, file: str) -> tuple[Package, Interface]:
        """The interface that `reference` means inside `package`. Raises: WitError, it does not exist."""
        home: Package | None = package
        if reference.package:
            home = self.packages.get((reference.package, reference.version))
        for interface in home.interfaces if home else ():
            if home and interface.name == reference.interface:
                return home, interface
        name = f"{reference.package}/{reference.interface}" if reference.package else reference.interface
        raise WitError(f"unknown interface {name}", subject=f"{file}:{reference.line}")

    def imported(self, package: Package, world: World) -> list[tuple[Package, Interface]]:
        """The interfaces `world` imports, with those that they and its exports take types from."""
        found: dict[str, tuple[Package, Interface]] = {}
        for reference in (*world.imports, *world.exports):
            home, interface = self.interface(package, reference, world.file)
            for at, each in self._with_used(home, interface):
                if reference in world.imports or each is not interface:
                    found.setdefault(at.full_name(each.name), (at, each))
        return list(found.values())

    def exported(self, package: Package, world: World) -> list[tuple[Package, Interface]]:
        """The interfaces `world` exports."""
        return [self.interface(package, reference, world.file) for reference in world.exports]

    def _with_used(self, package: Package, interface: Interface, depth: int = 0) -> Iterator[tuple[Package, Interface]]:
        if depth > len(self.packages) + 32:
            raise WitError(f"interface {interface.name} uses itself", subject=interface.file)
        for use in interface.uses:
            yield from self._with_used(*self.interface(package, use.source, interface.file), depth + 1)
        yield package, interface

    # types and functions

    def types(self, package: Package, interface: Interface) -> dict[str, str]:
        """Every type name of `interface`, those it uses included -> the type written out."""
        names = [here for use in interface.uses for _, here in use.names] + [each.name for each in interface.types]
        return {name: self._name(package, interface, name, ()) for name in names}

    def functions(self, package: Package, interface: Interface) -> dict[str, str]:
        """Every function of `interface` -> its signature, as `func(key: string) -> result<bool, variant{...}>`."""
        return {each.name: self._function(package, interface, each) for each in interface.functions}

    def _function(self, package: Package, interface: Interface, function: Function) -> str:
        given = [
            (member.name, self._type(package, interface, member.type, ()))
            for member in function.parameters
            if member.type is not None
        ]
        result = None if function.result is None else self._type(package, interface, function.result, ())
        return function_text(given, result)

    def _name(self, package: Package, interface: Interface, name: str, inside: tuple[str, ...]) -> str:
        """A type's name, looked up here, then where it is used from. `inside` are the names being written out."""
        place = f"{interface.file}/{interface.name}.{name}"
        if place in inside or len(inside) > 64:
            raise WitError(f"type {name} is made of itself", subject=interface.file)
        for definition in interface.types:
            if definition.name == name:
                return self._definition(package, interface, definition, (*inside, place))
        for use in interface.uses:
            for there, here in use.names:
                if here == name:
                    home, source = self.interface(package, use.source, interface.file)
                    return self._name(home, source, there, (*inside, place))
        raise WitError(f"unknown type {name} in interface {interface.name}", subject=interface.file)

    def _definition(self, package: Package, interface: Interface, definition: TypeDef, inside: tuple[str, ...]) -> str:
        if definition.alias is not None:
            return self._type(package, interface, definition.alias, inside)
        if definition.kind == "resource":
            return owned(package, interface, definition.name)
        members = [
            (member.name, None if member.type is None else self._type(package, interface, member.type, inside))
            for member in definition.members
        ]
        return bounded(members_text(definition.kind, members), interface.file)

    def _type(self, package: Package, interface: Interface, kind: Type, inside: tuple[str, ...]) -> str:
        if not kind.arguments and kind.head not in PRIMITIVES:
            return self._name(package, interface, kind.head, inside)
        inner = [
            None if argument is None else self._type(package, interface, argument, inside)
            for argument in kind.arguments
        ]
        if kind.head == "borrow":
            return self._borrowed(interface, inner[0] or "")
        return bounded(type_text(kind.head, inner), interface.file)

    def _borrowed(self, interface: Interface, text: str) -> str:
        if not text.startswith("own<"):
            raise WitError("only a resource can be borrowed", subject=interface.file)
        return "borrow" + text.removeprefix("own")


# -- the canonical text --------------------------------------------------------------------------------------------


def owned(package: Package, interface: Interface, resource: str) -> str:
    """`own<wasi:io/poll.pollable>`, the type of a handle; versions are left out, they do not tell resources apart."""
    return f"own<{package.name}/{interface.name}.{resource}>"


def type_text(head: str, arguments: list[str | None]) -> str:
    """`list<u8>`, `result<_, string>`, `u64`."""
    if head == "result":
        ok, error = arguments
        if error is None:
            return "result" if ok is None else f"result<{ok}>"
        return f"result<{ok or '_'}, {error}>"
    return f"{head}<{', '.join(argument or '_' for argument in arguments)}>" if arguments else head


def members_text(kind: str, members: list[tuple[str, str | None]]) -> str:
    """`record{name: string}`, `variant{none, some(u8)}`, `enum{read, write}`, `flags{a, b}`."""
    if kind == "record":
        return f"record{{{', '.join(f'{name}: {text}' for name, text in members)}}}"
    return f"{kind}{{{', '.join(name if text is None else f'{name}({text})' for name, text in members)}}}"


def function_text(parameters: list[tuple[str, str]], result: str | None) -> str:
    """`func(key: string) -> bool`."""
    text = f"func({', '.join(f'{name}: {kind}' for name, kind in parameters)})"
    return text if result is None else f"{text} -> {result}"


def bounded(text: str, subject: str) -> str:
    """`text`, if it is not longer than `MAX_SIGNATURE`. Raises: WitError."""
    if len(text) > MAX_SIGNATURE:
        raise WitError(f"a type longer than {MAX_SIGNATURE} characters", subject=subject)
    return text
