"""WIT interfaces as the text of a component that imports every item of them, for an engine to judge."""

from __future__ import annotations

from collections.abc import Iterable

from sandbox.wit import Function, Interface, Package, Type, TypeDef, Use


def importing_all(packages: Iterable[Package]) -> str:
    """A component that imports every type and function of these packages and exports nothing."""
    writer = _Writer(list(packages))
    return f"(component $c\n{writer.everything()})"


class _Writer:
    def __init__(self, packages: list[Package]) -> None:
        self._packages = {package.name: package for package in packages}
        self._written: dict[str, list[str]] = {}
        self._resources: set[str] = set()
        """Names of resources in the interface that is being written."""

    def everything(self) -> str:
        for package in self._packages.values():
            for interface in package.interfaces:
                self._import(package, interface)
        return "\n".join(line for lines in self._written.values() for line in lines)

    def _import(self, package: Package, interface: Interface) -> None:
        name = package.full_name(interface.name)
        if name in self._written:
            return
        here = f"{package.name}/{interface.name}"
        lines = [f'(import "{name}" (instance ${here}']
        sources = [self._source(package, use) for use in interface.uses]
        for home, source in sources:
            self._import(home, source)
        self._resources = {each.name for each in interface.types if each.kind == "resource"}
        for use, (home, source) in zip(interface.uses, sources, strict=True):
            for there, mine in use.names:
                if any((each.name, each.kind) == (there, "resource") for each in source.types):
                    self._resources.add(mine)
                lines.append(f"  (alias outer $c ${home.name}/{source.name}.{there} (type $outer-{mine}))")
                lines.append(f'  (export "{mine}" (type ${mine} (eq $outer-{mine})))')
        for definition in interface.types:
            lines += self._type(definition)
        lines += [self._function(function) for function in interface.functions]
        lines.append("))")
        used = [mine for use in interface.uses for _, mine in use.names]
        for each in [*used, *(definition.name for definition in interface.types)]:
            lines.append(f'(alias export ${here} "{each}" (type ${here}.{each}))')
        self._written[name] = lines

    def _source(self, package: Package, use: Use) -> tuple[Package, Interface]:
        home = self._packages[use.source.package or package.name]
        source = next(each for each in home.interfaces if each.name == use.source.interface)
        return home, source

    def _type(self, definition: TypeDef) -> list[str]:
        name = definition.name
        if definition.kind == "resource":
            return [f'  (export "{name}" (type ${name} (sub resource)))']
        if definition.alias is not None:
            body = self._value(definition.alias)
        elif definition.kind in ("enum", "flags"):
            names = " ".join(f'"{each.name}"' for each in definition.members)
            body = f"({definition.kind} {names})"
        else:
            word = "field" if definition.kind == "record" else "case"
            members = [
                f'({word} "{each.name}"{" " + self._value(each.type) if each.type else ""})'
                for each in definition.members
            ]
            body = f"({definition.kind} {' '.join(members)})"
        return [f"  (type $inner-{name} {body})", f'  (export "{name}" (type ${name} (eq $inner-{name})))']

    def _function(self, function: Function) -> str:
        parameters = "".join(
            f' (param "{each.name}" {self._value(each.type)})' for each in function.parameters if each.type
        )
        result = f" (result {self._value(function.result)})" if function.result else ""
        return f'  (export "{function.name}" (func{parameters}{result}))'

    def _value(self, kind: Type) -> str:
        if kind.head == "borrow":
            return f"(borrow ${kind.arguments[0]})"
        if kind.head in self._resources:
            return f"(own ${kind.head})"
        inner = [self._value(argument) if argument is not None else None for argument in kind.arguments]
        if kind.head == "result":
            ok, error = inner
            return f"(result{' ' + ok if ok else ''}{f' (error {error})' if error else ''})"
        if inner:
            return f"({kind.head} {' '.join(each for each in inner if each)})"
        primitive = kind.head in ("bool", "u8", "u16", "u32", "u64", "string")
        return kind.head if primitive else f"${kind.head}"
