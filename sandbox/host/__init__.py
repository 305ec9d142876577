"""The host functions a guest imports, one module per WIT interface, and a package for WASI.

They run inside the worker, behind every wall, and hold no power: each is a thin call on one of the two channels.
`define` puts them into a linker; the zygote does that once, before any fork.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from wasmtime.component import ResourceType

from sandbox.host import filesystem, messaging, services, storage, wasi
from sandbox.host.wasi.handles import handles

INTERFACES: dict[str, dict[str, Callable[..., Any]]] = {
    "airssys:core/types@1.0.0": {},
    "airssys:core/errors@1.0.0": {},
    "airssys:core/capabilities@1.0.0": {},
    "airssys:core/host-messaging@1.0.0": messaging.FUNCTIONS,
    "airssys:core/host-services@1.0.0": services.FUNCTIONS,
    "airssys:core/storage@1.0.0": storage.FUNCTIONS,
    "airssys:osl/filesystem@0.1.0": filesystem.FUNCTIONS,
    **wasi.INTERFACES,
}
"""Everything a component may import, by full interface name."""


def define(linker: Any) -> None:
    """Add every interface to a component linker."""
    with linker.root() as root:
        for name, functions in INTERFACES.items():
            with root.add_instance(name) as instance:
                for resource, kind in wasi.RESOURCES.get(name, {}).items():
                    instance.add_resource(resource, ResourceType.host(kind), handles.destructor(kind))
                for function, implementation in functions.items():
                    instance.add_func(function, implementation)
