"""What the adapter and the worker agree on about the scratch memory; `sandbox.patch.adapter` has the whole picture.

Little-endian 32-bit words:

=======  ===============================================================================================================
0        bytes of the image that is to go into the guest. Parameters that go straight (`sandbox.fast.straight`) do
         without the first three words
4        where the image is
8        how many blobs go before it, described from `BLOBS` on: where the pointer to it is to be written, where its
         bytes are, how many, and their alignment (0: there is none this time)
12       by the worker, after an import: bytes the scratch memory must have before it is asked again; 0: it has
         answered. Before `take`: whether the result is not wanted
16       by the adapter: why it calls (`CALL`, `ANNOUNCE`, `AGAIN`)
20       by the adapter: bytes that were copied out of the guest, or, announced, that will be
32       flat parameters of an import, 8 bytes each; what they point to from `OUT` on. On the way in, a place for images
=======  ===============================================================================================================
"""

from __future__ import annotations

from sandbox.abi.layout import MAX_FLAT_PARAMETERS

VERSION = 1
"""Raised with every change of what the adapter does: part of the key under which compiled components are kept."""
SCRATCH_PAGES, SCRATCH_MAX_PAGES = 2, 1021
"""The scratch memory's limits, pages of 64 KiB. The maximum is an unusual one, to be looked for."""
LARGEST = SCRATCH_MAX_PAGES << 16
PARAMETERS = 32
OUT = PARAMETERS + 8 * MAX_FLAT_PARAMETERS
"""Where what an import's parameters point to begins; and the image of an export's result."""
BLOBS = OUT
"""Where the descriptions of blobs begin, 16 bytes each."""
IMAGE, IMAGE_ROOM = PARAMETERS, OUT - PARAMETERS
"""A place for an image of at most so many bytes."""
INLINE = 1 << 16
"""Bytes of a result up to which it is copied by the call itself, and not by `take` when the worker has seen its length;
of an import's arguments up to which they are copied without asking the worker first."""
CALL, ANNOUNCE, AGAIN = 0, 1, 2
