"""The machine code of the attacks: routines for x86-64, written down byte by byte.

They take the place of the guest's function `native(routine, block)`. Compiled code calls it with its context in rdi,
the caller's context in rsi, the offset of a routine in rdx and the address of eight words, within linear memory, in
rcx; rbx, rbp and r12 to r15 must come back as they were, the result in rax. `_ENTRY` makes the block's address absolute
and jumps. A routine finds the block in rcx, the address of linear memory in rax, and its own words where it says.

In a control the same bytes run in an ordinary process, called through ctypes (`supervisor.selftest.native`).
Reference: Intel SDM volume 2; System V ABI for x86-64.
"""

from __future__ import annotations

import struct

MEMORY_POINTER = 0xDD
"""Stands for the offset, in the compiled code's context, of the address of linear memory; `assemble` fills it in."""

_ENTRY = bytes.fromhex(
    "48 8b 87 dddddddd"  # mov rax, [rdi + MEMORY_POINTER]
    "4c 8d 1d f2ffffff"  # lea r11, [rip - 14]: where this code begins
    "49 01 d3"  # add r11, rdx
    "48 01 c1"  # add rcx, rax
    "41 ff e3"  # jmp r11
)
_ARGUMENTS = bytes.fromhex(
    "49 89 cb"  # mov r11, rcx
    "49 8b 03"  # mov rax, [r11]: the number
    "49 8b 7b 08"  # mov rdi, [r11 + 8]: six arguments
    "49 8b 73 10"  # mov rsi, [r11 + 16]
    "49 8b 53 18"  # mov rdx, [r11 + 24]
    "4d 8b 53 20"  # mov r10, [r11 + 32]
    "4d 8b 43 28"  # mov r8, [r11 + 40]
    "4d 8b 4b 30"  # mov r9, [r11 + 48]
)
_SYSCALL = "0f 05"

ROUTINES: dict[str, bytes] = {
    # Address of linear memory. The first two are known to the guest by their places, 64 and 72.
    "memory": bytes.fromhex("c3"),
    # Address of this code: lea rax, [rip - 79].
    "code": bytes.fromhex("48 8d 05 b1ffffff c3"),
    # number, six arguments -> what the kernel answered
    "syscall": _ARGUMENTS + bytes.fromhex(f"{_SYSCALL} c3"),
    # The same for calls that return twice: the child (or the thread, which has no stack) calls exit(0) at once.
    "fork": _ARGUMENTS
    + bytes.fromhex(
        f"{_SYSCALL}"
        "48 85 c0"  # test rax, rax
        "75 09"  # jnz the end
        "31 ff"  # xor edi, edi
        "b8 3c000000"  # mov eax, 60: exit
        f"{_SYSCALL}"
        "c3"
    ),
    # number, six arguments, by the 32-bit way in
    "int80": bytes.fromhex(
        "53 55"  # push rbx; push rbp
        "49 89 c9"  # mov r9, rcx
        "41 8b 01"  # mov eax, [r9]
        "41 8b 59 08"  # mov ebx, [r9 + 8]
        "41 8b 49 10"  # mov ecx, [r9 + 16]
        "41 8b 51 18"  # mov edx, [r9 + 24]
        "41 8b 71 20"  # mov esi, [r9 + 32]
        "41 8b 79 28"  # mov edi, [r9 + 40]
        "41 8b 69 30"  # mov ebp, [r9 + 48]
        "cd 80"  # int 0x80
        "48 98"  # cdqe
        "5d 5b c3"  # pop rbp; pop rbx; ret
    ),
    # address, three arguments -> what that code returned
    "call": bytes.fromhex(
        "48 83 ec 08"  # sub rsp, 8
        "48 8b 01"  # mov rax, [rcx]
        "48 8b 79 08"  # mov rdi, [rcx + 8]
        "48 8b 71 10"  # mov rsi, [rcx + 16]
        "48 8b 51 18"  # mov rdx, [rcx + 24]
        "ff d0"  # call rax
        "48 83 c4 08 c3"  # add rsp, 8; ret
    ),
    # address of FAR_CODE below 4 GiB -> what that code left in eax
    "far": bytes.fromhex(
        "48 8b 11"  # mov rdx, [rcx]
        "53 55"  # push rbx; push rbp
        "48 89 62 40"  # mov [rdx + 64], rsp
        "6a 23 52"  # push 0x23: the 32-bit code segment; push rdx
        "48 cb"  # retfq
    ),
    # address -> the eight bytes there
    "peek": bytes.fromhex("48 8b 01 48 8b 00 c3"),
    # address, value: write eight bytes
    "poke": bytes.fromhex("48 8b 01 48 8b 51 08 48 89 10 31 c0 c3"),
    # to, from, length
    "copy": bytes.fromhex("48 8b 39 48 8b 71 08 48 8b 49 10 31 c0 f3 a4 c3"),
    # the compiled code's context, the stack, the thread's control block
    "context": bytes.fromhex("48 89 f8 c3"),
    "stack": bytes.fromhex("48 89 e0 c3"),
    "thread": bytes.fromhex("64 48 8b 04 25 00000000 c3"),
    # the page this code is in
    "page": bytes.fromhex("48 8d 05 f9ffffff 48 25 00f0ffff c3"),  # lea rax, [rip - 7]; and rax, -4096
    # privileged instructions: in al, 0x60; hlt; and one that does not exist: ud2
    "port": bytes.fromhex("e4 60 c3"),
    "halt": bytes.fromhex("f4 c3"),
    "undefined": bytes.fromhex("0f 0b"),
    # jumps to itself; calls itself
    "spin": bytes.fromhex("eb fe"),
    "recurse": bytes.fromhex("e8 fbffffff c3"),
    # abort(3)'s last resort is a signal; a breakpoint is one as well
    "breakpoint": bytes.fromhex("cc c3"),
}

_PLACES = {"memory": 64, "code": 72}


def _lay_out() -> dict[str, int]:
    places = dict(_PLACES)
    at = 80
    for name, code in ROUTINES.items():
        if name not in places:
            places[name] = at
            at += -(-len(code) // 8) * 8
    places[""] = at
    return places


OFFSETS = _lay_out()
"""Name of a routine to its place in the code; "" is the end, where a user's own code goes."""
END = OFFSETS[""]


def assemble(memory_pointer: int, extra: bytes = b"") -> bytes:
    """The whole code.

    Args:
        memory_pointer: offset of the address of linear memory in the context the code is called with.
        extra: machine code of one's own, callable as the routine at `END`.
    """
    code = bytearray(b"\xcc" * END)  # gaps are breakpoints
    entry = _ENTRY.replace(bytes([MEMORY_POINTER] * 4), struct.pack("<i", memory_pointer))
    code[: len(entry)] = entry
    for name, body in ROUTINES.items():
        code[OFFSETS[name] : OFFSETS[name] + len(body)] = body
    return bytes(code) + extra


def far_code(address: int) -> bytes:
    """72 bytes for `address`, below 4 GiB: 32-bit code that calls getpid by int 0x80, and the way back."""
    way_in = (
        bytes.fromhex("b8 14000000 cd 80")  # mov eax, 20; int 0x80
        + b"\xea"
        + struct.pack("<IH", address + 32, 0x33)  # ljmp 0x33:address + 32
    )
    way_out = bytes.fromhex("48 8b 25 19000000 5d 5b c3")  # mov rsp, [rip + 25]; pop rbp; pop rbx; ret
    return way_in.ljust(32, b"\xcc") + way_out.ljust(40, b"\0")
