"""Machine code that tests add to the self-test's hostile guest."""

from __future__ import annotations

OWN_CODE = bytes.fromhex("48 8b 01 48 0f c8 c3")
"""mov rax, [rcx]; bswap rax; ret: the first word, its bytes turned round. The routine at `machine.END`."""
