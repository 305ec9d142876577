"""A function's type as the engine tells it, for components whose WIT this host does not have.

Type names are lost in a compiled component, so records come out without a class: their values are tuples. Not for
workers: it walks wasmtime-py's type objects.
"""

from __future__ import annotations

from wasmtime import component as wt

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

_PRIMITIVES: dict[type, str] = {
    wt.Bool: "bool", wt.Char: "char", wt.String: "string", wt.F32: "f32", wt.F64: "f64",
    wt.U8: "u8", wt.U16: "u16", wt.U32: "u32", wt.U64: "u64",
    wt.S8: "s8", wt.S16: "s16", wt.S32: "s32", wt.S64: "s64",
}  # fmt: skip


class EngineTypes:
    """Translates one component's types. Resources are told apart by identity; those without a name are numbered."""

    def __init__(self) -> None:
        self._resources: list[tuple[wt.ResourceType, str]] = []

    def name_resource(self, resource: wt.ResourceType, name: str) -> None:
        """Let a resource be known as `name`, as in `HandleType.resource`."""
        self._resources.insert(0, (resource, name))

    def function(self, name: str, kind: wt.FuncType) -> Function:
        """As `of_engine`."""
        result = kind.result
        return Function(
            name,
            tuple((each, self.type(of)) for each, of in kind.params),
            None if result is None else self.type(result),
        )

    def type(self, kind: object) -> Type:
        """One type.

        Raises:
            TypeError: one that is not marshalled: a stream, a future, a map, an error context.
        """
        if type(kind) in _PRIMITIVES:
            return Primitive(_PRIMITIVES[type(kind)])
        if isinstance(kind, wt.ListType):
            return ListType(self.type(kind.element))
        if isinstance(kind, wt.OptionType):
            return OptionType(self.type(kind.payload))
        if isinstance(kind, wt.ResultType):
            return ResultType(self._perhaps(kind.ok), self._perhaps(kind.err))
        if isinstance(kind, wt.TupleType):
            return TupleType(tuple(map(self.type, kind.elements)))
        if isinstance(kind, wt.RecordType):
            return RecordType(tuple((name, self.type(of)) for name, of in kind.fields))
        if isinstance(kind, wt.VariantType):
            return VariantType(tuple((name, self._perhaps(of)) for name, of in kind.cases))
        if isinstance(kind, wt.EnumType):
            return EnumType(tuple(kind.names))
        if isinstance(kind, wt.FlagsType):
            return FlagsType(tuple(kind.names))
        if isinstance(kind, wt.OwnType | wt.BorrowType):
            return HandleType(self._resource(kind.ty), borrowed=isinstance(kind, wt.BorrowType))
        raise TypeError(f"values of {type(kind).__name__} are not marshalled")

    def _perhaps(self, kind: object | None) -> Type | None:
        return None if kind is None else self.type(kind)

    def _resource(self, kind: wt.ResourceType) -> str:
        for known, name in self._resources:
            if known == kind:
                return name
        name = f"resource {len(self._resources)}"
        self._resources.append((kind, name))
        return name


def of_engine(name: str, kind: wt.FuncType) -> Function:
    """The function `name` of the engine's type `kind`.

    Raises:
        TypeError: a type in it is not marshalled.
    """
    return EngineTypes().function(name, kind)
