"""Host functions for guests: plain typed functions of Python behind one callback of the engine's."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

from wasmtime import component as wt

from sandbox.abi.types import Function
from sandbox.marshal import capi
from sandbox.marshal.failures import BadValue, TypesDiffer, stop
from sandbox.marshal.plans import Reader, Writer, plan_of
from sandbox.marshal.resources import name_resource

Implementation = Callable[..., Any]
"""Takes the function's arguments and gives its result, as in `sandbox.abi.types`; an error as `Err(value)`."""
Destructor = Callable[[int], None]
"""Takes the representation of a resource that the guest has dropped."""


class _Served:
    """A host function as the callback finds it."""

    __slots__ = ("count", "implementation", "name", "read", "write")

    def __init__(self, name: str, count: int, implementation: Implementation) -> None:
        self.name, self.count, self.implementation = name, count, implementation
        self.read: Reader | None = None
        self.write: Writer | None = None


_served: dict[int, _Served] = {}
_destructors: dict[int, Destructor] = {}
_last = 0


def define(linker_instance: Any, name: str, function: Function, implementation: Implementation) -> None:
    """Add a host function to an instance of a linker (`wasmtime.component.LinkerInstance`).

    An exception that it raises ends the guest's call, and is raised there. So does a value that is not of the result's
    type, as BadValue.

    Raises:
        WasmtimeError: the name is taken, or no name.
    """
    plan = plan_of(function)
    served = _Served(function.name, plan.count, implementation)
    served.read = plan.read_arguments if plan.count else None
    served.write = plan.write_result
    _add(linker_instance, name, served)


def define_trap(linker_instance: Any, name: str, implementation: Callable[[], Any]) -> None:
    """Add a function whose arguments are not looked at, because it always raises."""
    _add(linker_instance, name, _Served(name, -1, implementation))


def define_resource(linker_instance: Any, name: str, resource: str, number: int, destructor: Destructor) -> None:
    """Add a resource type of the host's.

    Args:
        linker_instance: of the interface it belongs to.
        name: in that interface.
        resource: as `HandleType.resource` has it.
        number: by which the engine tells it from other types; the host gives each its own.
        destructor: called when the guest drops a handle that it owns.

    Raises:
        WasmtimeError: the name is taken, or no name.
        ValueError: the resource has another number already.
    """
    name_resource(resource, number)
    kind = wt.ResourceType.host(number)
    encoded = name.encode()
    key = _next()
    _destructors[key] = destructor
    error = capi.add_resource(
        capi.pointer_of(linker_instance),
        encoded,
        len(encoded),
        capi.pointer_of(kind),
        _on_drop,
        key,
        _on_drop_forgotten,
    )
    if error:
        raise capi.error_at(error)


def _add(linker_instance: Any, name: str, served: _Served) -> None:
    encoded = name.encode()
    key = _next()
    _served[key] = served
    error = capi.add_func(capi.pointer_of(linker_instance), encoded, len(encoded), _on_call, key, _on_call_forgotten)
    if error:
        raise capi.error_at(error)


def _next() -> int:
    global _last
    _last += 1
    return _last


# -- the engine's callbacks: nothing may be raised out of one ----------------------------------------------------------


def _called(key: int, context: int, _type: int, arguments: int, count: int, result: int, results: int) -> int:
    try:
        served = _served[key]
        read = served.read
        if read is None:
            if count and served.count >= 0:
                raise TypesDiffer("arguments where there are none", subject=served.name)
            answer = served.implementation()
        else:
            if count != served.count:
                raise TypesDiffer("another number of arguments", subject=served.name)
            answer = served.implementation(*read(capi.MEMORY, arguments, context))
        write = served.write
        if write is None:
            if answer is not None:
                raise BadValue(f"a result where there is none: {type(answer).__name__}", subject=served.name)
            return 0
        if results != 1:
            raise TypesDiffer("another number of results", subject=served.name)
        keep: list[Any] = []
        write.write(context, keep, (answer,))
        # The engine takes its results, and frees them: it gets a copy that it has made itself.
        capi.val_clone(write.address, result)
        return 0
    except BaseException as error:  # whatever it is, the engine must hear of a failure
        return stop(error)


def _dropped(key: int, _context: int, representation: int) -> int:
    try:
        _destructors[key](representation)
        return 0
    except BaseException as error:  # as above
        return stop(error)


# When the interpreter ends, linkers may go after this module's names have: what they need is theirs.
def _call_forgotten(key: int, served: dict[int, _Served] = _served) -> None:
    served.pop(key, None)


def _drop_forgotten(key: int, destructors: dict[int, Destructor] = _destructors) -> None:
    destructors.pop(key, None)


# Made once, with the module: after the seal no callback can be made (`process.no_writable_code`).
_callbacks = (
    capi.FunctionCallback(_called),
    capi.DestructorCallback(_dropped),
    capi.FinalizerCallback(_call_forgotten),
    capi.FinalizerCallback(_drop_forgotten),
)
ctypes.pythonapi.Py_IncRef(ctypes.py_object(_callbacks))  # never freed, for the same reason
_on_call, _on_drop, _on_call_forgotten, _on_drop_forgotten = (capi.callback_address(each) for each in _callbacks)
