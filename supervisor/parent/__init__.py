"""The supervisor: the small privileged parent of every other process of the host.

It makes cages, mounts, channels and processes, and kills; it decides nothing. It parses frames of its own
(`sandbox.wire.supervisor_frames`) and nothing else: no TOML, no JSON, no component, no network.
"""
