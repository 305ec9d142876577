"""What an index stands for: followed through exports, aliases, inline instances and arguments to where it was made.

A function can be handed on through several instances and nested components before the component exports it; what
counts is where it was lifted, and in which component. A `Scope` is one nested component with the arguments it was
instantiated with, so that its imports can be followed outwards.
"""

from __future__ import annotations

from dataclasses import dataclass

from sandbox.patch.binary import Unreadable
from sandbox.patch.component import (
    AliasExport,
    Component,
    Export,
    Import,
    Inline,
    Instantiate,
    Item,
    Ref,
)

MAX_STEPS = 200_000
"""Steps that following one component's definitions may take together."""
MAX_DEPTH = 100
"""Instances that are exports of instances that are exports, and so on."""


@dataclass
class Steps:
    """Steps that may still be taken."""

    left: int = MAX_STEPS

    def take(self) -> None:
        """Raises Unreadable when there are none left."""
        self.left -= 1
        if self.left < 0:
            raise Unreadable("its definitions refer to each other in too many steps")


@dataclass(frozen=True, eq=False)
class Scope:
    """A component where it is instantiated: at the root, or as the instance `instance` of `parent`.

    `arguments` are indices of the parent, by the name of the import they are for.
    """

    component: Component
    steps: Steps
    parent: Scope | None = None
    instance: int = -1
    nested: int = -1
    arguments: dict[str, Ref] | None = None

    @property
    def path(self) -> tuple[int, ...]:
        """Indices of the instances that lead here from the root: two scopes with the same path are the same."""
        return () if self.parent is None else (*self.parent.path, self.instance)


def resolve(scope: Scope, ref: Ref, depth: int = 0) -> tuple[Scope, Ref, Item]:
    """Where something was made: the scope, its index there, and its definition.

    What comes from outside the root, or in a way that is not followed (a component that is itself an import), ends at
    the `Import` or `AliasExport` that cannot be followed.

    Raises:
        Unreadable: an index or name that does not exist, or too many steps.
    """
    while True:
        scope.steps.take()
        item = scope.component.item(ref)
        if isinstance(item, Export):
            ref = item.ref
        elif isinstance(item, AliasExport) and not ref.sort.startswith("core"):
            found = export_of(scope, Ref("instance", item.instance), item.name, depth + 1)
            if found is None:
                return scope, ref, item
            scope, ref = found
        elif isinstance(item, Import) and scope.parent is not None:
            given = (scope.arguments or {}).get(item.name)
            if given is None:
                raise Unreadable(f"a nested component is not given {item.name[:100]}")
            scope, ref = scope.parent, given
        else:
            return scope, ref, item


def export_of(scope: Scope, instance: Ref, name: str, depth: int = 0) -> tuple[Scope, Ref] | None:
    """What an instance exports under a name; None when that is unknown here."""
    if depth > MAX_DEPTH:
        raise Unreadable(f"instances taken from instances more than {MAX_DEPTH} deep")
    scope, ref, item = resolve(scope, instance, depth)
    if isinstance(item, Inline):
        return (scope, item.exports[name]) if name in item.exports else None
    inner = instantiated(scope, ref, item)
    if inner is None or name not in inner.component.exports:
        return None
    return inner, inner.component.exports[name]


def instantiated(scope: Scope, ref: Ref, item: Item) -> Scope | None:
    """The inside of an instance that was made of a nested component written out in this one; else None."""
    if not isinstance(item, Instantiate) or ref.sort != "instance":
        return None
    component = scope.component.item(Ref("component", item.of))
    if not isinstance(component, Component):
        return None
    return Scope(component, scope.steps, scope, ref.index, item.of, item.arguments)


# -- core definitions, which never leave their component ---------------------------------------------------------------


def resolve_core(scope: Scope, ref: Ref) -> Ref | AliasExport:
    """A core definition with aliases of inline instances followed: its index, or of which core instance it is what.

    Two that are the same definition have equal results.
    """
    while True:
        scope.steps.take()
        item = scope.component.item(ref)
        if not isinstance(item, AliasExport):
            return ref
        instance = scope.component.item(Ref("core instance", item.instance))
        if not isinstance(instance, Inline) or item.name not in instance.exports:
            return item
        ref = instance.exports[item.name]
