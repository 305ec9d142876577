"""The host functions a guest imports, one module per WIT interface, and a package for WASI.

They run inside the worker, behind every wall, and hold no power: each is a thin call on one of the two channels. They
are plain functions of typed values (`sandbox.bindings`), which both ways across the boundary call alike: an error is
`Err(value)`, a resource its representation. `define` puts them into a linker, and makes the plans of marshalling; the
zygote does that once, before any fork.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sandbox import marshal
from sandbox.bindings import FUNCTIONS
from sandbox.fast import imports
from sandbox.host import filesystem, mail, messaging, services, storage, wasi
from sandbox.host.wasi.handles import Unreachable, handles
from sandbox.patch.names import FAST_IMPORTS, fast

INTERFACES: dict[str, dict[str, Callable[..., Any]]] = {
    "airssys:core/types@1.0.0": {},
    "airssys:core/errors@1.0.0": {},
    "airssys:core/capabilities@1.0.0": {},
    "airssys:core/host-messaging@1.0.0": messaging.FUNCTIONS,
    "airssys:core/host-services@1.0.0": services.FUNCTIONS,
    "airssys:core/storage@1.0.0": storage.FUNCTIONS,
    "airssys:osl/filesystem@0.1.0": filesystem.FUNCTIONS,
    "airssys:messaging/messaging@0.1.0": mail.FUNCTIONS,
    "airssys:messaging/timers@0.1.0": mail.TIMERS,
    **wasi.INTERFACES,
}
"""Everything a component may import, by full interface name."""


def define(linker: Any) -> None:
    """Add every interface to a component linker.

    Raises:
        EngineMismatch: the engine is not what marshalling was written for.
    """
    marshal.check_engine()
    for interface, kinds in wasi.RESOURCES.items():
        for resource, kind in kinds.items():
            marshal.name_resource(_resource_name(interface, resource), kind)
    with linker.root() as root:
        for interface, functions in INTERFACES.items():
            with root.add_instance(interface) as instance:
                for resource, number in wasi.RESOURCES.get(interface, {}).items():
                    name = _resource_name(interface, resource)
                    marshal.define_resource(instance, resource, name, number, handles.destructor(number))
                for function, implementation in functions.items():
                    if isinstance(implementation, Unreachable):
                        marshal.define_trap(instance, function, implementation)
                    else:
                        marshal.define(instance, function, FUNCTIONS[interface][function], implementation)
                for function in FAST_IMPORTS.get(interface, ()):
                    known = FUNCTIONS[interface][function]
                    imports.define(instance, fast(function), known, functions[function])


def _resource_name(interface: str, resource: str) -> str:
    """As `HandleType.resource` has it: without a version."""
    return f"{interface.partition('@')[0]}.{resource}"
