"""The C echo called through wasmtime-py as it is, in a process of its own: `stock_echo.py WASM {"NAME": BYTES, ...}`.

Prints microseconds of one `handle-message` with every field there, by name; the median.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import wasmtime
from wasmtime import component as wt

from sandbox.engine import make_engine


def record(**fields: Any) -> Any:
    """A record by its fields."""
    made = wt.Record()
    for name, value in fields.items():
        setattr(made, name.replace("_", "-"), value)
    return made


def never(*_arguments: Any) -> None:
    """No function of the host is called by an echo."""
    raise AssertionError


def main() -> None:
    engine = make_engine()
    component = wt.Component(engine, Path(sys.argv[1]).read_bytes())
    linker = wt.Linker(engine)
    with linker.root() as root:
        for interface, extern in component.type.imports(engine).items():
            with root.add_instance(interface) as served:
                assert isinstance(extern.ty, wt.ComponentInstanceType)
                for name, item in extern.ty.exports(engine).items():
                    if isinstance(item.ty, wt.FuncType):
                        served.add_func(name, never)
    store = wasmtime.Store(engine)
    store.set_fuel(1 << 60)
    instance = linker.instantiate(store, component)
    lifecycle = instance.get_export_index(store, "airssys:core/component-lifecycle@1.0.0")
    handle = instance.get_func(store, instance.get_export_index(store, "handle-message", lifecycle) or "")
    assert handle is not None
    sender = record(namespace="test", name="asker", instance="0")
    about = record(
        correlation_id="0" * 32,
        reply_to=sender,
        timestamp=record(seconds=1_700_000_000, nanoseconds=1),
        content_type="text/plain",
    )
    took: dict[str, float] = {}
    for name, size in json.loads(sys.argv[2]).items():
        message, times = record(sender=sender, payload=bytes(size), metadata=about), []
        for _ in range(3 if size > 10_000 else 30):
            began = time.perf_counter()
            answer = handle(store, message)
            handle.post_return(store)
            times.append(time.perf_counter() - began)
            assert bytes(answer) == message.payload
        took[name] = statistics.median(times) * 1e6
    print(json.dumps(took))


if __name__ == "__main__":
    main()
