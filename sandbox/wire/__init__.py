"""Every frame that crosses a process boundary, as typed structures, and the codecs that carry them.

`packet` frames SEQPACKET messages, `zmtp` speaks ZMTP 3.1; `bridge_ops`, `router_frames`, `supervisor_frames`
and `audit_frames` are the vocabularies. One channel carries one kind of frame.
"""

import msgspec

UNDECODABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What decoding a stranger's bytes may raise. msgspec leaves invalid UTF-8 and deep nesting to Python's own errors, so
catching `msgspec.DecodeError` alone lets a peer end its reader."""
