"""The functions and types of WIT packages as `sandbox.abi.types`."""

from __future__ import annotations

import functools

from sandbox.abi.types import (
    EnumType,
    FlagsType,
    Function,
    HandleType,
    ListType,
    OptionType,
    Primitive,
    RecordType,
    ResultType,
    TupleType,
    Type,
    VariantType,
)
from sandbox.wit import PRIMITIVES, Interface, Package, TypeDef
from sandbox.wit import Type as Expression
from sandbox.wit_lexer import WitError
from sandbox.wit_resolve import Resolver


class Reader:
    """Reads interfaces of checked packages (`Resolver.of`)."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self.named = functools.cache(self._named)

    def functions(self, package: Package, interface: Interface) -> dict[str, Function]:
        """Every function of `interface`, by name."""
        return {
            each.name: Function(
                each.name,
                tuple(
                    (member.name, self._type(package, interface, member.type))
                    for member in each.parameters
                    if member.type is not None
                ),
                None if each.result is None else self._type(package, interface, each.result),
            )
            for each in interface.functions
        }

    def types(self, package: Package, interface: Interface) -> dict[str, Type]:
        """Every type `interface` defines itself, by name; aliases stand for what they mean, resources for `own`."""
        return {each.name: self.named(package, interface, each.name) for each in interface.types}

    def _named(self, package: Package, interface: Interface, name: str) -> Type:
        for definition in interface.types:
            if definition.name == name:
                return self._definition(package, interface, definition)
        for use in interface.uses:
            for there, here in use.names:
                if here == name:
                    return self.named(*self._resolver.interface(package, use.source, interface.file), there)
        raise WitError(f"unknown type {name} in interface {interface.name}", subject=interface.file)

    def _definition(self, package: Package, interface: Interface, definition: TypeDef) -> Type:
        if definition.alias is not None:
            return self._type(package, interface, definition.alias)
        name = f"{package.full_name(interface.name)}#{definition.name}"
        names = tuple(member.name for member in definition.members)
        kinds = [
            None if member.type is None else self._type(package, interface, member.type)
            for member in definition.members
        ]
        match definition.kind:
            case "resource":
                return HandleType(f"{package.name}/{interface.name}.{definition.name}", borrowed=False)
            case "record":
                return RecordType(tuple((n, kind) for n, kind in zip(names, kinds, strict=True) if kind), name)
            case "variant":
                return VariantType(tuple(zip(names, kinds, strict=True)), name)
            case "enum":
                return EnumType(names, name)
            case "flags":
                return FlagsType(names, name)
        raise WitError(f"unknown kind of type {definition.kind}", subject=interface.file)

    def _type(self, package: Package, interface: Interface, expression: Expression) -> Type:
        if expression.head in PRIMITIVES:
            return Primitive(expression.head)
        if not expression.arguments:
            return self.named(package, interface, expression.head)
        inner = [None if each is None else self._type(package, interface, each) for each in expression.arguments]
        if expression.head == "result":
            return ResultType(*inner)
        kinds = [each for each in inner if each is not None]
        if expression.head == "tuple":
            return TupleType(tuple(kinds))
        (only,) = kinds
        if expression.head == "list":
            return ListType(only)
        if expression.head == "option":
            return OptionType(only)
        if expression.head == "borrow" and isinstance(only, HandleType):
            return HandleType(only.resource, borrowed=True)
        raise WitError(f"unknown type {expression.head}", subject=interface.file)
