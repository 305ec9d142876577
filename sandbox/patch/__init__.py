"""Patching a guest at compile time, so that values cross its boundary in bulk (`sandbox.fast`).

    names       what is reserved, and which functions are fast
    binary      bounded reading and writing of the binary format
    component   a component's index spaces, nested components included
    trace       what an index stands for, followed to where it was made
    core        which functions a core module puts into a table that it imports
    adapter     the core module that copies, made from the functions' types
    patcher     the patch itself

Runs in the caged compiler alone, on bytes that were verified before. Nothing here is trusted with more than the guest:
what comes out is validated by the engine like any component. Whatever the bytes are, `patcher.patch` returns, raises
`Declined` (the component runs on the general path) or `names.ReservedName` (it is refused).
"""
