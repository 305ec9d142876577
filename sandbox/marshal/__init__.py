"""Values across the wasm boundary by marshalling of our own over wasmtime's C API: the general path.

For every function that does not go the fast way: all of a component's life but its messages, worlds that are not ours,
and guests that were not patched. A plan is made once per function and type: Python source that writes arguments into a
tree of cells laid out beforehand, or reads the engine's. No type is walked in a call, and no object made for a byte.

    reentrance   one flag: a guest runs
    capi         the C API by plain integers
    failures     exceptions that travel through the engine
    resources    handles of host and guest
    source       writing Python source
    shapes       what both directions know of a type
    cells        arrays of values, for lists
    lowering     Python -> engine
    lifting      engine -> Python
    explain      why a value was refused
    plans        the plan of a function
    exports      calling a guest: `Export`
    imports      host functions: `define`, `define_trap`, `define_resource`
    instances    stores and instances: `Store`, `Instance`
    check        whether the engine is the one that all this was written for
    engine_types types as the engine tells them, for worlds that are not ours; not imported here

How values look in Python: `sandbox.abi.types`. What the two paths rely on in common, and why:
docs/adr/0016-marshalling.md.
"""

from __future__ import annotations

from sandbox.marshal.check import EngineMismatch, check_engine
from sandbox.marshal.exports import Export
from sandbox.marshal.failures import BadValue, TypesDiffer
from sandbox.marshal.imports import define, define_resource, define_trap
from sandbox.marshal.instances import Instance, Store
from sandbox.marshal.plans import Plan, plan_of
from sandbox.marshal.reentrance import Reentered, gate
from sandbox.marshal.resources import GuestResource, name_resource

__all__ = [
    "BadValue",
    "EngineMismatch",
    "Export",
    "GuestResource",
    "Instance",
    "Plan",
    "Reentered",
    "Store",
    "TypesDiffer",
    "check_engine",
    "define",
    "define_resource",
    "define_trap",
    "gate",
    "name_resource",
    "plan_of",
]
