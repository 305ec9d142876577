"""The adapter: a core module that copies values between the guest's memory and a scratch memory, in bulk.

It is made from the types of the functions it stands for and appended to the guest's own component (`patcher`), so that
it reaches the guest's memory and allocator. The worker (`sandbox.fast`) reads and writes the scratch memory alone and
never follows a pointer of the guest's: every one of them is used by `memory.copy` here, where the engine checks it.

The scratch memory is laid out as `sandbox.fast.protocol` says.

Values that come out are copied in the order in which their pointers stand, an array before what its elements point to:
the reader knows from the lengths where each begins.

What the canonical ABI traps on is trapped on here: a pointer that is not aligned, a length beyond the memory, a call of
an import from within `realloc` or `post-return`. Reference: CanonicalABI.md, "Lifting" and "Lowering". The text form is
turned into binary by the engine's own library.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import wasmtime

from sandbox.abi.layout import (
    MAX_FLAT_PARAMETERS,
    alignment,
    cases_of,
    discriminant_size,
    fields,
    flat,
    flat_parameters,
    flat_result,
    members_of,
    payload_offset,
    size,
)
from sandbox.abi.types import Function, HandleType, ListType, OptionType, Primitive, TupleType, Type
from sandbox.fast.protocol import (
    AGAIN,
    ANNOUNCE,
    BLOBS,
    CALL,
    IMAGE,
    INLINE,
    LARGEST,
    OUT,
    PARAMETERS,
    SCRATCH_MAX_PAGES,
    SCRATCH_PAGES,
)
from sandbox.fast.straight import blobs, goes_straight

ELEMENT_COST, BLOB_COST = 64, 48
"""Fuel of going on to the next element of a list, and of a string in it, at most."""


class Unsuitable(Exception):
    """A function that no adapter can be made for; it stays on the general path."""


@dataclass(frozen=True)
class AdapterExport:
    """A function of the guest that the host calls.

    Attributes:
        name: as in the lifted interface.
        function: its type.
        realloc: number of the allocator that its canonical options name.
        post: whether they name a post-return.
    """

    name: str
    function: Function
    realloc: int
    post: bool


@dataclass(frozen=True)
class AdapterImport:
    """A function of the host that the guest calls through a table.

    Attributes:
        interface: the interface's full name.
        name: the function's.
        function: its type.
        realloc: number of the allocator that its canonical options name, if they do.
        slot: where in the table.
    """

    interface: str
    name: str
    function: Function
    realloc: int | None
    slot: int


def suits_export(function: Function) -> bool:
    """Whether an adapter can be made for an exported function of this type."""
    try:
        _Export(0, AdapterExport("", function, 0, False)).text()
    except Unsuitable:
        return False
    return True


def suits_import(function: Function) -> bool:
    """Whether an adapter can be made for an imported function of this type."""
    try:
        _Import(0, AdapterImport("", "", function, 0, 0)).text(_Walks())
    except Unsuitable:
        return False
    return True


def adapter(exports: Sequence[AdapterExport], imports: Sequence[AdapterImport], reallocs: int) -> bytes:
    """The module's binary. Its imports and exports: see `_module`.

    Raises:
        Unsuitable: one of the functions has a type that no adapter can be made for (see `suits_export`).
    """
    return bytes(wasmtime.wat2wasm(_module(exports, imports, reallocs)))


def _module(exports: Sequence[AdapterExport], imports: Sequence[AdapterImport], reallocs: int) -> str:
    walks = _Walks()
    outward = [_Import(number, each) for number, each in enumerate(imports)]
    inward = [_Export(number, each) for number, each in enumerate(exports)]
    bodies = [each.text(walks) for each in outward] + [each.text() for each in inward]
    lines = ['(import "guest" "memory" (memory $guest 0))']
    lines += [f'(import "guest" "realloc-{n}" (func $realloc-{n} (type $realloc)))' for n in range(reallocs)]
    lines += [line for each in inward for line in each.imported()]
    lines += [f'(import "host" "{each.interface}#{each.name}" (func $host-{n}))' for n, each in enumerate(imports)]
    lines += [each.general() for each in outward]
    if imports:
        lines.append('(import "shim" "table" (table $table 0 funcref))')
    lines.append(f"(memory $s {SCRATCH_PAGES} {SCRATCH_MAX_PAGES})")
    lines += [_GLOBALS, _ENSURE, _GRAB, _RESERVE, _put_image()]
    lines += [_inject(n) for n in range(reallocs)]
    lines += [_take(inward), *walks.functions(), *bodies]
    lines += [f"(elem (table $table) (i32.const {each.slot}) func $import-{n})" for n, each in enumerate(imports)]
    realloc = "(type $realloc (func (param i32 i32 i32 i32) (result i32)))"
    return "\n".join(["(module", realloc, *lines, ")"])


# -- what every adapter has --------------------------------------------------------------------------------------------

_GLOBALS = """
(global $cursor (mut i32) (i32.const 0))
(global $bound (mut i32) (i32.const 0)) ;; the worker has taken this adapter into use
(global $inside (mut i32) (i32.const 0)) ;; the guest's realloc or post-return runs: it may call nothing of ours
(global $result (mut i32) (i32.const 0)) ;; the guest's result that waits to be taken
(global $taking (mut i32) (i32.const -1)) ;; number of the export whose result it is"""

_ENSURE = f"""
(func $ensure (param $end i32)
  (local $have i32)
  (local.set $have (i32.shl (memory.size $s) (i32.const 16)))
  (if (i32.gt_u (local.get $end) (local.get $have)) (then
    (if (i32.gt_u (local.get $end) (i32.const {LARGEST})) (then unreachable))
    (if (i32.lt_s (memory.grow $s (i32.shr_u
          (i32.add (i32.sub (local.get $end) (local.get $have)) (i32.const 65535)) (i32.const 16))) (i32.const 0))
      (then unreachable)))))"""

_GRAB = f"""
(func $grab (param $from i32) (param $bytes i32) (result i32) ;; copy out of the guest; where it is now
  (local $to i32)
  (if (i32.gt_u (local.get $bytes) (i32.const {LARGEST})) (then unreachable))
  (local.set $to (global.get $cursor))
  (global.set $cursor (i32.add (local.get $to) (local.get $bytes)))
  (call $ensure (global.get $cursor))
  (memory.copy $s $guest (local.get $to) (local.get $from) (local.get $bytes))
  (local.get $to))"""

_RESERVE = """
(func (export "reserve") (param $nonce i32) (param $bytes i32) (result i32)
  (i32.store $s (i32.const 0) (local.get $nonce))
  (global.set $bound (i32.const 1))
  (call $ensure (local.get $bytes))
  (memory.size $s))"""


def _put_image() -> str:
    return """
(func $put-image (param $to i32)
  (memory.copy $guest $s (local.get $to) (i32.load $s (i32.const 4)) (i32.load $s (i32.const 0))))"""


def _inject(realloc: int) -> str:
    """Allocate in the guest and copy there, blob by blob; the pointers go into images that follow."""
    return f"""
(func $inject-{realloc}
  (local $left i32) (local $at i32) (local $p i32) (local $align i32)
  (local.set $at (i32.const {BLOBS}))
  (local.set $left (i32.load $s (i32.const 8)))
  (global.set $inside (i32.const 1))
  (block $done (loop $next
    (br_if $done (i32.eqz (local.get $left)))
    (if (local.tee $align (i32.load $s offset=12 (local.get $at))) (then
      (local.set $p (call $realloc-{realloc} (i32.const 0) (i32.const 0) (local.get $align)
        (i32.load $s offset=8 (local.get $at))))
      (if (i32.and (local.get $p) (i32.sub (local.get $align) (i32.const 1))) (then unreachable))
      (memory.copy $guest $s (local.get $p) (i32.load $s offset=4 (local.get $at))
        (i32.load $s offset=8 (local.get $at)))
      (i32.store $s (i32.load $s (local.get $at)) (local.get $p))))
    (local.set $at (i32.add (local.get $at) (i32.const 16)))
    (local.set $left (i32.sub (local.get $left) (i32.const 1)))
    (br $next)))
  (global.set $inside (i32.const 0)))"""


def _take(exports: Sequence[_Export]) -> str:
    """Copy the result that waits, and let the guest free it."""
    cases = "\n".join(
        f"(if (i32.eq (local.get $of) (i32.const {each.number})) (then (call $take-{each.number})))" for each in exports
    )
    return f"""
(func (export "take")
  (local $of i32)
  (local.set $of (global.get $taking))
  (global.set $taking (i32.const -1))
  {cases})"""


# -- walks: copying what an image in scratch points to -----------------------------------------------------------------


class _Walks:
    """One function of the module for each type of list whose elements hold pointers."""

    def __init__(self) -> None:
        self._numbers: dict[Type, int] = {}
        self._texts: dict[int, str] = {}

    def functions(self) -> Iterator[str]:
        """The module's functions."""
        return iter(self._texts[number] for number in sorted(self._texts))

    def into(self, kind: Type, at: str) -> str:
        """Code that copies what a value of this type points to. `at`: an expression, where its image is in scratch."""
        if isinstance(kind, HandleType):
            raise Unsuitable("handles are the engine's")
        if not _points(kind):
            return ""
        return f"(call $walk-{self._number(kind)} {at})"

    def _number(self, kind: Type) -> int:
        number = self._numbers.get(kind)
        if number is None:
            number = self._numbers[kind] = len(self._numbers)
            self._texts[number] = self._function(number, kind)
        return number

    def _function(self, number: int, kind: Type) -> str:
        body = "\n".join(self._body(kind))
        return (
            f"(func $walk-{number} (param $at i32) (local $count i32) (local $element i32) (local $from i32)\n{body})"
        )

    def _body(self, kind: Type) -> Iterator[str]:
        at = "(local.get $at)"
        if isinstance(kind, Primitive):  # a string
            yield f"(drop (call $grab (i32.load $s {at}) (i32.load $s offset=4 {at})))"
            return
        if isinstance(kind, ListType):
            yield from self._list(kind)
            return
        members, cases = members_of(kind), cases_of(kind)
        if members is not None:
            for offset, member in zip(fields(members)[0], members, strict=True):
                yield self.into(member, f"(i32.add {at} (i32.const {offset}))")
            return
        load = {1: "i32.load8_u", 2: "i32.load16_u", 4: "i32.load"}[discriminant_size(len(cases or ()))]
        for number, payload in enumerate(cases or ()):
            if payload is not None and _points(payload):
                yield f"(if (i32.eq ({load} $s {at}) (i32.const {number})) (then"
                yield self.into(payload, f"(i32.add {at} (i32.const {payload_offset(kind)}))")
                yield "))"

    def _list(self, kind: ListType) -> Iterator[str]:
        element = size(kind.element)
        yield "(local.set $from (i32.load $s (local.get $at)))"
        yield "(local.set $count (i32.load $s offset=4 (local.get $at)))"
        if alignment(kind.element) > 1:
            yield f"(if (i32.and (local.get $from) (i32.const {alignment(kind.element) - 1})) (then unreachable))"
        yield f"(if (i32.gt_u (local.get $count) (i32.const {LARGEST // element})) (then unreachable))"
        grab = f"(call $grab (local.get $from) (i32.mul (local.get $count) (i32.const {element})))"
        if not _points(kind.element):
            yield f"(drop {grab})"
            return
        yield f"(local.set $element {grab})"
        yield "(block $done (loop $next (br_if $done (i32.eqz (local.get $count)))"
        yield self.into(kind.element, "(local.get $element)")
        yield f"(local.set $element (i32.add (local.get $element) (i32.const {element})))"
        yield "(local.set $count (i32.sub (local.get $count) (i32.const 1)))"
        yield "(br $next)))"


def _points(kind: Type) -> bool:
    """Whether a value of this type may hold a pointer."""
    if isinstance(kind, HandleType):
        raise Unsuitable("handles are the engine's")
    if isinstance(kind, ListType) or (isinstance(kind, Primitive) and kind.kind == "string"):
        return True
    parts = members_of(kind) or cases_of(kind) or ()
    return any(_points(part) for part in parts if part is not None)


# -- functions of the guest --------------------------------------------------------------------------------------------


class _Export:
    """Text of what one exported function needs."""

    def __init__(self, number: int, export: AdapterExport) -> None:
        self.number = number
        self._export = export

    def imported(self) -> Iterator[str]:
        """The imports of the module that it needs."""
        name, number = self._export.name, self.number
        yield f'(import "guest" "call-{name}" (func $call-{number} (param i32) (result i32)))'
        if self._export.post:
            yield f'(import "guest" "post-{name}" (func $post-{number} (param i32)))'

    def text(self) -> str:
        """The function the worker calls, and the one that takes a result."""
        function, number = self._export.function, self.number
        kind = function.result
        if len(flat_parameters(function)) <= MAX_FLAT_PARAMETERS or kind is None or len(flat_result(function)) <= 1:
            raise Unsuitable("parameters and result must go through memory")
        whole = size(kind)
        kinds = [each for _, each in function.parameters]
        widest = max(alignment(each) for each in kinds)
        post = ""
        if self._export.post:
            post = f"""
  (global.set $inside (i32.const 1))
  (call $post-{number} (global.get $result))
  (global.set $inside (i32.const 0))"""
        return f"""
(func $take-{number}
  (if (i32.eqz (i32.load $s (i32.const 12))) (then
  (global.set $cursor (i32.const {OUT + whole}))
  {"".join(self._blobs(kind, f"(i32.const {OUT})", "(drop (call $grab {pointer} {length}))"))})
  (else {"".join(self._blobs(kind, f"(i32.const {OUT})", _WITHIN))})){post})
(func (export "{self._export.name}") (local $p i32) (local $n i32) (local $at i32)
  (global.set $taking (i32.const -1))
  {self._enter(widest)}
  (global.set $result (local.tee $p (call $call-{number} (local.get $p))))
  (if (i32.and (local.get $p) (i32.const {alignment(kind) - 1})) (then unreachable))
  (memory.copy $s $guest (i32.const {OUT}) (local.get $p) (i32.const {whole}))
  (local.set $p (i32.const 0))
  (i32.store $s (i32.const 12) (i32.const 0))
  {"".join(self._blobs(kind, f"(i32.const {OUT})", _SUM))}
  (i32.store $s (i32.const 20) (local.get $p))
  (if (i32.gt_u (local.get $p) (i32.const {INLINE}))
    (then (global.set $taking (i32.const {number})))
    (else (call $take-{number}))))"""

    def _enter(self, widest: int) -> str:
        """Bring the parameters into the guest; the pointer to them is in $p."""
        realloc = f"call $realloc-{self._export.realloc} (i32.const 0) (i32.const 0)"
        parameters = TupleType(tuple(each for _, each in self._export.function.parameters))
        check = f"(if (i32.and (local.get $p) (i32.const {widest - 1})) (then unreachable))" if widest > 1 else ""
        if not goes_straight(parameters):
            return f"""(call $inject-{self._export.realloc})
  (global.set $inside (i32.const 1))
  (local.set $p ({realloc} (i32.const {widest}) (i32.load $s (i32.const 0))))
  (global.set $inside (i32.const 0))
  {check}
  (call $put-image (local.get $p))"""
        lines = [f"(local.set $at (i32.const {OUT}))", "(global.set $inside (i32.const 1))"]
        for slot, option, _ in blobs(parameters):
            lines.append("" if option is None else f"(if (i32.load8_u $s (i32.const {IMAGE + option})) (then")
            lines.append(f"""(local.set $n (i32.load $s (i32.const {IMAGE + slot + 4})))
    (i32.store $s (i32.const {IMAGE + slot}) (local.tee $p ({realloc} (i32.const 1) (local.get $n))))
    (memory.copy $guest $s (local.get $p) (local.get $at) (local.get $n))
    (local.set $at (i32.add (local.get $at) (local.get $n)))""")
            lines.append("" if option is None else "))")
        whole = size(parameters)
        lines.append(f"(local.set $p ({realloc} (i32.const {widest}) (i32.const {whole})))")
        lines += ["(global.set $inside (i32.const 0))", check]
        lines.append(f"(memory.copy $guest $s (local.get $p) (i32.const {IMAGE}) (i32.const {whole}))")
        return "\n  ".join(line for line in lines if line)

    def _blobs(self, kind: Type, at: str, action: str) -> Iterator[str]:
        """`action` for each string and list of bytes in an image in scratch: there are no lists of other things."""
        if isinstance(kind, HandleType):
            raise Unsuitable("handles are the engine's")
        if isinstance(kind, ListType) and _points(kind.element):
            raise Unsuitable("a list whose elements hold pointers")
        if isinstance(kind, ListType) and size(kind.element) != 1:
            raise Unsuitable("a list of more than bytes")
        if isinstance(kind, ListType) or (isinstance(kind, Primitive) and kind.kind == "string"):
            yield action.format(pointer=f"(i32.load $s {at})", length=f"(i32.load $s offset=4 {at})")
            return
        members, cases = members_of(kind), cases_of(kind)
        for offset, member in zip(fields(members)[0], members, strict=True) if members is not None else ():
            yield from self._blobs(member, f"(i32.add {at} (i32.const {offset}))", action)
        load = {1: "i32.load8_u", 2: "i32.load16_u", 4: "i32.load"}[discriminant_size(len(cases or ()))]
        for number, payload in enumerate(cases or ()):
            if payload is not None and _points(payload):
                yield f"\n  (if (i32.eq ({load} $s {at}) (i32.const {number})) (then"
                yield from self._blobs(payload, f"(i32.add {at} (i32.const {payload_offset(kind)}))", action)
                yield "))"


_WITHIN = """
    (if (i64.gt_u (i64.add (i64.extend_i32_u {pointer}) (i64.extend_i32_u {length}))
      (i64.shl (i64.extend_i32_u (memory.size $guest)) (i64.const 16))) (then unreachable))"""
_SUM = f"""
    (if (i32.gt_u {{length}} (i32.const {LARGEST})) (then unreachable))
    (local.set $p (i32.add (local.get $p) {{length}}))
    (if (i32.gt_u (local.get $p) (i32.const {LARGEST})) (then unreachable))"""


# -- functions of the host ---------------------------------------------------------------------------------------------


class _Import:
    """Text of what the guest calls instead of the lowered function."""

    def __init__(self, number: int, imported: AdapterImport) -> None:
        self._number = number
        self._import = imported

    def general(self) -> str:
        """The import of the function that stood in the table."""
        function = self._import.function
        parameters = " ".join(f"(param {core})" for core in flat_parameters(function))
        returned = " (param i32)" if len(flat_result(function)) > 1 else ""
        name = f"{self._import.interface}#{self._import.name}"
        return f'(import "general" "{name}" (func $general-{self._number} {parameters}{returned}))'

    def text(self, walks: _Walks) -> str:
        """The function that goes into the table.

        Until the worker has taken the adapter into use it passes the call on: functions run while a component is
        instantiated, and a component that is instantiated twice has two adapters, of which the worker knows one.
        """
        function, realloc = self._import.function, self._import.realloc
        cores = flat_parameters(function)
        if len(cores) > MAX_FLAT_PARAMETERS:
            raise Unsuitable("parameters go through memory")
        returns = len(flat_result(function)) > 1
        if function.result is not None and not returns:
            raise Unsuitable("the result is a single core value")
        if function.result is not None:
            _points(function.result)
            if realloc is None and _points(function.result):
                raise Unsuitable("the result needs an allocator and there is none")
        store = "\n  ".join(
            f"({core}.store $s (i32.const {PARAMETERS + 8 * n}) (local.get {n}))" for n, core in enumerate(cores)
        )
        places = itertools.accumulate((len(flat(kind)) for _, kind in function.parameters), initial=0)
        passed = " ".join(f"(local.get {n})" for n in range(len(cores) + returns))
        plain = list(zip(places, (kind for _, kind in function.parameters), strict=False))
        lengths = [f"(local.get {at + 1})" for at, kind in plain if _is_blob(kind)]
        lengths += [_walked(kind, at) for at, kind in plain if _walked(kind, at)]
        copies = "\n  ".join(self._gather(walks, kind, at) for at, kind in plain)
        answer = self._answer(returns, realloc) if function.result is not None else ""
        parameters = " ".join(f"(param {core})" for core in cores) + (" (param $to i32)" if returns else "")
        if returns:
            answer = (
                f"(if (i32.and (local.get $to) (i32.const {alignment(function.result) - 1})) (then unreachable))"
                if function.result is not None and alignment(function.result) > 1
                else ""
            ) + answer
        return f"""
(func $import-{self._number} {parameters} (local $total i32)
  (if (i32.eqz (global.get $bound)) (then (call $general-{self._number} {passed}) (return)))
  (if (global.get $inside) (then unreachable))
  {store}
  {self._announce(lengths)}
  (global.set $cursor (i32.const {OUT}))
  {copies}
  (i32.store $s (i32.const 16) (i32.const {CALL}))
  (i32.store $s (i32.const 20) (i32.sub (global.get $cursor) (i32.const {OUT})))
  (call $host-{self._number})
  {answer})"""

    def _announce(self, lengths: list[str]) -> str:
        """Large arguments: the worker hears of them before they are copied."""
        if not lengths:
            return ""
        bounds = "".join(f"(if (i32.gt_u {each} (i32.const {LARGEST})) (then unreachable))\n  " for each in lengths)
        total = lengths[0]
        for each in lengths[1:]:
            total = f"(i32.add {total} {each})"
        return f"""{bounds}
  (local.set $total {total})
  (if (i32.gt_u (local.get $total) (i32.const {INLINE})) (then
    (i32.store $s (i32.const 16) (i32.const {ANNOUNCE}))
    (i32.store $s (i32.const 20) (local.get $total))
    (call $host-{self._number})))"""

    def _answer(self, returns: bool, realloc: int | None) -> str:
        if not returns:
            return ""
        inject = "" if realloc is None else f"(call $inject-{realloc})"
        return f"""
  (if (i32.load $s (i32.const 12)) (then
    (call $ensure (i32.load $s (i32.const 12)))
    (i32.store $s (i32.const 16) (i32.const {AGAIN}))
    (call $host-{self._number})))
  {inject}
  (call $put-image (local.get $to))"""

    def _gather(self, walks: _Walks, kind: Type, at: int) -> str:
        """Copy what the flat parameters from `at` on point to."""
        if not _points(kind):
            _flat_is_plain(kind)
            return ""
        if _is_blob(kind):
            return f"(drop (call $grab (local.get {at}) (local.get {at + 1})))"
        if isinstance(kind, ListType):
            # The flat form is the list's image: pointer and length, 8 bytes apart.
            head = PARAMETERS + 8 * at
            join = f"(i32.store $s (i32.const {head + 4}) (local.get {at + 1}))"
            return f"{join} {walks.into(kind, f'(i32.const {head})')}"
        if isinstance(kind, OptionType):
            return f"(if (local.get {at}) (then {self._gather(walks, kind.payload, at + 1)}))"
        members = members_of(kind)
        if members is None:
            raise Unsuitable("a choice with payload among the parameters")
        inside = []
        for member in members:
            inside.append(self._gather(walks, member, at))
            at += len(flat(member))
        return " ".join(inside)


def _walked(kind: Type, at: int) -> str:
    """What going through a list will cost at most, as if it were bytes, for a parameter that is one; "" for others."""
    if isinstance(kind, OptionType):
        inside = _walked(kind.payload, at + 1)
        return f"(select {inside} (i32.const 0) (local.get {at}))" if inside else ""
    if not isinstance(kind, ListType) or not _points(kind.element):
        return ""
    each = size(kind.element) + ELEMENT_COST + BLOB_COST * _pointers(kind.element)
    # A count that is too large is found out where the list is copied.
    count = f"(local.get {at + 1})"
    whole = f"(i32.mul {count} (i32.const {each}))"
    return f"(select {whole} (i32.const {LARGEST}) (i32.le_u {count} (i32.const {LARGEST // each})))"


def _pointers(kind: Type) -> int:
    """The most strings and lists in one value, those in lists apart."""
    if isinstance(kind, ListType) or (isinstance(kind, Primitive) and kind.kind == "string"):
        return 1
    members, cases = members_of(kind), cases_of(kind)
    if members is not None:
        return sum(_pointers(each) for each in members)
    return max((_pointers(each) for each in cases or () if each is not None), default=0)


def _flat_is_plain(kind: Type) -> None:
    """Raises Unsuitable for a parameter whose core values mean different things in different cases."""
    for member in members_of(kind) or ():
        _flat_is_plain(member)
    if isinstance(kind, OptionType):
        _flat_is_plain(kind.payload)
    elif cases_of(kind) is not None and len(flat(kind)) > 1:
        raise Unsuitable("a choice with payload among the parameters")


def _is_blob(kind: Type) -> bool:
    """A string, or a list of what has one byte."""
    if isinstance(kind, ListType):
        return isinstance(kind.element, Primitive) and kind.element.kind == "u8"
    return isinstance(kind, Primitive) and kind.kind == "string"
