"""Patching a guest at compile time, so that values cross its boundary in bulk (`sandbox.fast`).

Runs in the caged compiler alone, on bytes that were verified before. Nothing here is trusted with more than the guest:
what comes out is validated by the engine like any component.
"""
