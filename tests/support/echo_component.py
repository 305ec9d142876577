"""A component for any WIT type T, made as text: its guest hands values on as they lie in its memory, looking at none.

Exports, T being the type and P seventeen u8 that make the canonical ABI pass parameters through memory:

    echo    (list<T>) -> list<T>           what came
    first   (list<T>) -> T                 its first element
    listed  (T, P) -> list<T>              one element
    relay   (list<T>) -> list<T>           by way of the import `many`
    ask     (list<T>) -> result<list<T>, T>   by way of the import `answer`
    pass    (T, P) -> T                    by way of the import `one`; with it, `first` and `pass` where T is not a
                                           single core value, which no memory would carry

Imports: many (list<T>) -> list<T>, answer (list<T>) -> result<list<T>, T>, one (T, P) -> T.
"""

from __future__ import annotations

from dataclasses import dataclass

import wasmtime
from wasmtime import component as wt

from sandbox import marshal
from sandbox.abi.layout import flat
from sandbox.abi.types import (
    U8,
    EnumType,
    FlagsType,
    Function,
    ListType,
    Ok,
    OptionType,
    Primitive,
    RecordType,
    ResultType,
    TupleType,
    Type,
    VariantType,
)

PADDING = tuple((f"p{number}", U8) for number in range(17))
PAD = (0,) * len(PADDING)


class _Text:
    """Types as text. Those that must have a name are imported under one."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._names: dict[Type, str] = {}

    def type(self, kind: Type) -> str:
        match kind:
            case Primitive():
                return kind.kind
            case ListType():
                return f"(list {self.type(kind.element)})"
            case OptionType():
                return f"(option {self.type(kind.payload)})"
            case TupleType():
                return f"(tuple {' '.join(map(self.type, kind.elements))})"
            case ResultType():
                ok = f" {self.type(kind.ok)}" if kind.ok else ""
                err = f" (error {self.type(kind.err)})" if kind.err else ""
                return f"(result{ok}{err})"
        if kind not in self._names:
            self._named(kind)
        return self._names[kind]

    def _named(self, kind: Type) -> None:
        match kind:
            case RecordType():
                inner = " ".join(f'(field "{name}" {self.type(of)})' for name, of in kind.fields)
                body = f"(record {inner})"
            case VariantType():
                cases = [f'(case "{name}"{" " + self.type(of) if of else ""})' for name, of in kind.cases]
                body = f"(variant {' '.join(cases)})"
            case EnumType():
                body = "(enum " + " ".join(f'"{name}"' for name in kind.cases) + ")"
            case FlagsType():
                body = "(flags " + " ".join(f'"{name}"' for name in kind.flags) + ")"
            case _:
                raise TypeError(kind)
        number = len(self._names)
        self._names[kind] = f"$t{number}"
        self.lines += [f"(type $d{number} {body})", f'(import "t{number}" (type $t{number} (eq $d{number})))']

    def function(self, function: Function) -> str:
        given = " ".join(f'(param "{name}" {self.type(of)})' for name, of in function.parameters)
        return f"{given} (result {self.type(function.result)})" if function.result else given


@dataclass(frozen=True)
class Echo:
    """The component's text and its functions."""

    text: str
    exports: dict[str, Function]
    imports: dict[str, Function]


def echo(kind: Type) -> Echo:
    """For values of `kind`."""
    many, result = ListType(kind), ResultType(ListType(kind), kind)
    imports = {
        "many": Function("many", (("x", many),), many),
        "answer": Function("answer", (("x", many),), result),
    }
    exports = {
        "echo": Function("echo", (("x", many),), many),
        "listed": Function("listed", (("x", kind), *PADDING), many),
        "relay": Function("relay", (("x", many),), many),
        "ask": Function("ask", (("x", many),), result),
    }
    several = len(flat(kind)) > 1
    if several:
        imports["one"] = Function("one", (("x", kind), *PADDING), kind)
        exports["first"] = Function("first", (("x", many),), kind)
        exports["pass"] = Function("pass", (("x", kind), *PADDING), kind)
    text = _Text()
    imported = [f'(import "{name}" (func ${name} {text.function(of)}))' for name, of in imports.items()]
    exported = [
        f'(func (export "{name}") {text.function(of)}'
        f' (canon lift (core func $main "{name}") (memory $m) (realloc $realloc)))'
        for name, of in exports.items()
    ]
    options = "(memory $m) (realloc $realloc)"
    lowered = [f"(core func $l-{name} (canon lower (func ${name}) {options}))" for name in imports]
    given = " ".join(f'(export "{name}" (func $l-{name}))' for name in imports)
    body = "\n".join([*text.lines, *imported, _MEMORY, *lowered, _main(several), _instantiated(given), *exported])
    return Echo(f"(component\n{body}\n)", exports, imports)


_MEMORY = """
(core module $memory
  (memory (export "memory") 2 4096)
  (global $at (mut i32) (i32.const 4096))
  ;; Every call begins anew behind the first page: `reset` by the main module.
  (func (export "reset") (global.set $at (i32.const 65536)))
  (func (export "realloc") (param i32 i32 i32 i32) (result i32) (local $found i32)
    (local.set $found (i32.and (i32.add (global.get $at) (i32.sub (local.get 2) (i32.const 1)))
                               (i32.sub (i32.const 0) (local.get 2))))
    (global.set $at (i32.add (local.get $found) (local.get 3)))
    (block $fits
      (br_if $fits (i32.le_u (global.get $at) (i32.mul (memory.size) (i32.const 65536))))
      (if (i32.eq (i32.const -1) (memory.grow (i32.add (i32.const 1)
            (i32.div_u (i32.sub (global.get $at) (i32.mul (memory.size) (i32.const 65536))) (i32.const 65536)))))
        (then unreachable)))
    (local.get $found)))
(core instance $mem (instantiate $memory))
(alias core export $mem "memory" (core memory $m))
(alias core export $mem "realloc" (core func $realloc))
"""


def _main(several: bool) -> str:
    imports = """
  (import "mem" "memory" (memory 2))
  (import "mem" "reset" (func $reset))
  (import "host" "many" (func $many (param i32 i32 i32)))
  (import "host" "answer" (func $answer (param i32 i32 i32)))"""
    more = """
  (import "host" "one" (func $one (param i32 i32)))"""
    functions = """
  (func $pair (param i32 i32) (result i32)
    (i32.store (i32.const 16) (local.get 0)) (i32.store (i32.const 20) (local.get 1)) (call $reset) (i32.const 16))
  (func (export "echo") (param i32 i32) (result i32) (call $pair (local.get 0) (local.get 1)))
  (func (export "listed") (param i32) (result i32) (call $pair (local.get 0) (i32.const 1)))
  (func (export "relay") (param i32 i32) (result i32)
    (call $many (local.get 0) (local.get 1) (i32.const 32)) (call $reset) (i32.const 32))
  (func (export "ask") (param i32 i32) (result i32)
    (call $answer (local.get 0) (local.get 1) (i32.const 1024)) (call $reset) (i32.const 1024))"""
    others = """
  (func (export "first") (param i32 i32) (result i32) (call $reset) (local.get 0))
  (func (export "pass") (param i32) (result i32)
    (call $one (local.get 0) (i32.const 1024)) (call $reset) (i32.const 1024))"""
    return f"(core module $main{imports}{more if several else ''}{functions}{others if several else ''})"


def _instantiated(given: str) -> str:
    return f"""
(core instance $host {given})
(core instance $main (instantiate $main
  (with "mem" (instance $mem)) (with "host" (instance $host))))"""


def at_top(kind: Type, value: object) -> object:
    """A value of `kind` as a function's result: a good result stands for itself."""
    if isinstance(kind, ResultType) and not isinstance(kind.ok, ResultType) and isinstance(value, Ok):
        return value.value
    return value


class Running:
    """An instance whose imports give back what they are given; `seen` is what they were given last."""

    def __init__(self, engine: wasmtime.Engine, kind: Type) -> None:
        marshal.check_engine()
        self.engine, self.kind = engine, kind
        self.made = echo(kind)
        self.component = wt.Component(engine, self.made.text)
        self.store = marshal.Store(engine)
        self.seen: object = None
        self.linker = wt.Linker(engine)
        with self.linker.root() as root:
            for name, function in self.made.imports.items():
                marshal.define(root, name, function, getattr(self, f"_{name}"))
        self.instance = marshal.Instance(self.linker, self.store, self.component)
        self._exports = {name: self.instance.export(function) for name, function in self.made.exports.items()}

    def call(self, name: str, *arguments: object) -> object:
        """Call an export; those that take P get it added."""
        export = self._exports[name]
        assert export is not None
        return export(*arguments, *(PAD if name in ("listed", "pass") else ()))

    def _many(self, values: object) -> object:
        self.seen = values
        return self.give(values)

    def _answer(self, values: object) -> object:
        self.seen = values
        return self.give(values)

    def _one(self, value: object, *_padding: int) -> object:
        self.seen = value
        return at_top(self.kind, self.give(value))

    def give(self, value: object) -> object:
        """What the host functions return; a test may put another in its place."""
        return value
