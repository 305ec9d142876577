"""Compile bombs: components that cost more to compile than they weigh. Written byte by byte, without a toolchain.

Each function returns a component's bytes; its argument is the size, so that a small one of the same shape can be shown
to compile. References: the WebAssembly core specification 2.0, "Binary format"; the component model's Binary.md.
"""

from __future__ import annotations

from collections.abc import Iterable

CORE = b"\0asm\x01\0\0\0"
COMPONENT = b"\0asm\x0d\0\x01\0"
_I32, _FUNC = b"\x7f", b"\x60"
_BLOCK, _LOOP, _IF, _END, _EMPTY = b"\x02", b"\x03", b"\x04", b"\x0b", b"\x40"


def leb(number: int) -> bytes:
    """Unsigned LEB128."""
    out = bytearray()
    while True:
        number, low = number >> 7, number & 0x7F
        out.append(low | (0x80 if number else 0))
        if not number:
            return bytes(out)


def sized(body: bytes) -> bytes:
    """Length, then the bytes."""
    return leb(len(body)) + body


def vector(items: Iterable[bytes]) -> bytes:
    """Count, then the items."""
    listed = list(items)
    return leb(len(listed)) + b"".join(listed)


def section(number: int, body: bytes) -> bytes:
    """One section of a module or a component."""
    return bytes([number]) + sized(body)


def name(text: str) -> bytes:
    """A name."""
    return sized(text.encode())


def module(*sections: tuple[int, bytes]) -> bytes:
    """A core module."""
    return CORE + b"".join(section(number, body) for number, body in sections)


def component(*sections: tuple[int, bytes]) -> bytes:
    """A component."""
    return COMPONENT + b"".join(section(number, body) for number, body in sections)


def around(core: bytes) -> bytes:
    """A component that holds one core module, which is compiled though nothing uses it."""
    return component((1, core))


def _code(*bodies: bytes) -> bytes:
    return vector(sized(body) for body in bodies)


def _function(instructions: bytes, types: bytes = _FUNC + b"\0\0", local: bytes = b"\0") -> bytes:
    """A component with one function."""
    return around(module((1, vector([types])), (3, vector([b"\0"])), (10, _code(local + instructions + _END))))


# -- code -----------------------------------------------------------------------------------------------------------


def straight_line(count: int) -> bytes:
    """One function of `count` multiplications in a row, each needing the one before."""
    step = b"\x20\0\x20\0\x6c\x41\x03\x6a\x21\0"  # x = x * x + 3
    return _function(step * count, local=b"\x01\x01" + _I32)


def live_values(count: int) -> bytes:
    """One function that keeps `count` values at once: work for the register allocator."""
    push = b"\x20\0\x41\x07\x6a\x22\0"  # leave a new value on the stack, each time
    return _function(push * count + b"\x6a" * (count - 1) + b"\x1a", local=b"\x01\x01" + _I32)


def branch_table(count: int) -> bytes:
    """One br_table with `count` targets."""
    return _function(_BLOCK + _EMPTY + b"\x41\0\x0e" + vector([b"\0"] * count) + b"\0" + _END)


def _branch_tables(count: int, width: int = 500) -> bytes:
    table = b"\x0e" + vector(leb(n) for n in range(width)) + b"\0"
    blocks = b"".join(_BLOCK + _EMPTY + b"\x41\0" + table + _END for _ in range(count))
    return (_BLOCK + _EMPTY) * width + blocks + _END * width


def branch_tables(count: int) -> bytes:
    """`count` br_tables of 500 targets, in 500 nested blocks: edges of the control-flow graph multiply."""
    return _function(_branch_tables(count))


def many_branch_tables(tables: int) -> bytes:
    """Twenty functions of `tables` such tables: time more than memory."""
    count = 20
    body = b"\0" + _branch_tables(tables) + _END
    return around(module((1, vector([_FUNC + b"\0\0"])), (3, leb(count) + b"\0" * count), (10, _code(*[body] * count))))


def nested_blocks(depth: int) -> bytes:
    """Blocks in blocks."""
    return _function((_BLOCK + _EMPTY) * depth + _END * depth)


def nested_loops(depth: int) -> bytes:
    """Loops in loops, each changing a local: every value flows through every header."""
    body = b"\x20\0\x41\x01\x6a\x21\0"
    return _function((_LOOP + _EMPTY + body) * depth + (b"\x20\0\x0d\0" + _END) * depth, local=b"\x01\x01" + _I32)


def many_locals(count: int) -> bytes:
    """A function that says in six bytes that it has `count` locals."""
    return _function(b"", local=b"\x01" + leb(count) + _I32)


def functions(count: int) -> bytes:
    """`count` functions."""
    return around(
        module(
            (1, vector([_FUNC + b"\0\0"])),
            (3, leb(count) + b"\0" * count),
            (10, leb(count) + (sized(b"\0" + _END)) * count),
        )
    )


# -- tables of the module -------------------------------------------------------------------------------------------


def types(count: int) -> bytes:
    """`count` function types."""
    return around(module((1, leb(count) + (_FUNC + b"\0\0") * count)))


def imports(count: int) -> bytes:
    """`count` imports of a core module."""
    one = name("m") + name("f") + b"\0\0"
    return around(module((1, vector([_FUNC + b"\0\0"])), (2, leb(count) + one * count)))


def exports(count: int) -> bytes:
    """`count` exports, each with a name of its own."""
    entries = b"".join(name(f"{number:x}") + b"\0\0" for number in range(count))
    core = module(
        (1, vector([_FUNC + b"\0\0"])), (3, vector([b"\0"])), (7, leb(count) + entries), (10, _code(b"\0" + _END))
    )
    return around(core)


def memories(count: int) -> bytes:
    """`count` memories."""
    return around(module((5, leb(count) + b"\0\x01" * count)))


def tables(count: int) -> bytes:
    """`count` tables."""
    return around(module((4, leb(count) + b"\x70\0\x01" * count)))


def huge_table(elements: int) -> bytes:
    """A table that says it begins with `elements` elements, all initialised."""
    first = leb(elements)
    core = module(
        (1, vector([_FUNC + b"\0\0"])),
        (3, vector([b"\0"])),
        (4, vector([b"\x70\0" + first])),
        (9, vector([b"\0\x41\0" + _END + leb(min(elements, 4_000_000)) + b"\0" * min(elements, 4_000_000)])),
        (10, _code(b"\0" + _END)),
    )
    return around(core)


def global_values(count: int) -> bytes:
    """`count` globals."""
    return around(module((6, leb(count) + (_I32 + b"\0\x41\0" + _END) * count)))


def data(size: int) -> bytes:
    """One data segment of `size` bytes."""
    return around(
        module((5, b"\x01\0" + leb(-(-size // 65536) + 1)), (11, vector([b"\0\x41\0" + _END + sized(bytes(size))])))
    )


def far_data(gap: int) -> bytes:
    """Two bytes of data `gap` bytes apart: an image of the memory would be that large."""
    pages = -(-gap // 65536) + 1
    at = b"\0\x41" + _signed(gap) + _END + sized(b"x")
    return around(module((5, b"\x01\0" + leb(pages)), (11, vector([b"\0\x41\0" + _END + sized(b"x"), at]))))


def _signed(number: int) -> bytes:
    out = bytearray()
    while True:
        number, low = number >> 7, number & 0x7F
        if number == 0 and not low & 0x40:
            out.append(low)
            return bytes(out)
        out.append(low | 0x80)


def long_names(size: int) -> bytes:
    """One export under a name of `size` bytes."""
    core = module(
        (1, vector([_FUNC + b"\0\0"])),
        (3, vector([b"\0"])),
        (7, vector([name("n" * size) + b"\0\0"])),
        (10, _code(b"\0" + _END)),
    )
    return around(core)


# -- components -----------------------------------------------------------------------------------------------------


def nested_components(depth: int) -> bytes:
    """Components in components."""
    inner = component()
    for _ in range(depth):
        inner = component((4, inner))
    return inner


def doubling_instances(levels: int) -> bytes:
    """Each level makes two instances of the level below: 2 to the `levels` instances out of a few bytes a level."""
    inner = component((1, module()), (2, vector([b"\0\0\0"])))
    for _ in range(levels):
        inner = component((4, inner), (5, vector([b"\0\0\0"] * 2)))
    return inner


def doubling_types(levels: int) -> bytes:
    """Each type is a tuple of two of the one before: 2 to the `levels` leaves."""
    kinds = [b"\x6f\x02\x7a\x7a"] + [b"\x6f\x02" + _signed(n) * 2 for n in range(levels - 1)]
    return component((7, vector(kinds)))


def modules(count: int) -> bytes:
    """`count` core modules in one component."""
    return COMPONENT + section(1, module()) * count


def core_instances(count: int) -> bytes:
    """`count` instances of one core module."""
    return component((1, module()), (2, leb(count) + b"\0\0\0" * count))
