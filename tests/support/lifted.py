"""Small components in text, for what the patcher must tell apart: each is a working guest that echoes its messages.

They are `lifecycle.wat`, with the parts put in that a component encoder would write: a table through which imports are
called, and a last module that fills it. `component` wraps the guest into as many components as are asked for.
"""

from __future__ import annotations

from pathlib import Path

import wasmtime

LIFECYCLE = Path(__file__).resolve().parents[2] / "supervisor/selftest/guest/lifecycle.wat"
STORAGE = "airssys:core/storage@1.0.0"
STORAGE_TYPE = """
  (type $e' (variant (case "not-found" string) (case "already-exists" string) (case "quota-exceeded")
    (case "invalid-key" string) (case "io-error" string)))
  (export "storage-error" (type $e (eq $e')))
  (type $bytes (list u8))
  (export "storage-value" (type $value (eq $bytes)))
  (export "get" (func (param "key" string) (result (result (option $value) (error $e)))))
  (export "exists" (func (param "key" string) (result (result bool (error $e)))))"""

_SHIM = """
(core module $shim
  (type $t (func (param i32 i32 i32)))
  (table (export "slots") {size} funcref)
  {before}
  (func (export "a") (param i32 i32 i32) (call_indirect (type $t)
    (local.get 0) (local.get 1) (local.get 2) (i32.const {get})))
  (func (export "b") (param i32 i32 i32) (call_indirect (type $t)
    (local.get 0) (local.get 1) (local.get 2) (i32.const {exists}))))
(core instance $shim (instantiate $shim))
(alias core export $shim "slots" (core table $slots))
"""
_FILL = """
(alias export $storage "get" (func $get))
(alias export $storage "exists" (func $exists))
(core func $low-get (canon lower (func $get) {get_options}))
(core func $low-exists (canon lower (func $exists) {exists_options}))
(core instance $lowered (export "x" (func $low-get)) (export "y" (func $low-exists)) (export "t" (table $slots)))
(core module $fill
  (import "" "x" (func $x (param i32 i32 i32)))
  (import "" "y" (func $y (param i32 i32 i32)))
  (import "" "t" (table {size} funcref))
  {elements})
(core instance (instantiate $fill (with "" (instance $lowered))))
"""
USUAL = "(memory $memory) (realloc $realloc)"


def text(replace: dict[str, str] | None = None, *, storage: bool = False, levels: int = 1, **parts: str) -> str:
    """The component's text.

    Args:
        replace: pieces of lifecycle.wat that are to be others; each must be there.
        storage: import storage, called through slots 3 (`get`) and 1 (`exists`) of a table.
        levels: how many components are around the one that holds the code; 1 is the root alone.
        parts: `get_options`, `exists_options`, `elements`, `size` and `before` (more in the shim module) of the
            table's modules; `code`, more at the end of the component with the code; `outside`, more at the root.
    """
    # Without its opening comment, which names the marks.
    whole = LIFECYCLE.read_text().partition("(component\n")[2]
    whole = ("(component\n" + whole).replace("@NAME@", "test/lifted").replace("@SIZE@", "0b")
    for old, new in (replace or {}).items():
        assert old in whole, old
        whole = whole.replace(old, new)
    imports = f'(import "{STORAGE}" (instance $storage {STORAGE_TYPE}))' if storage else ""
    given = f'(with "{STORAGE}" (instance $storage))' if storage else ""
    if storage:
        values = {
            "get": "3", "exists": "1", "size": "4", "before": "", "get_options": USUAL, "exists_options": USUAL,
            "elements": "(elem (i32.const 1) func $y) (elem (i32.const 3) func $x)",
        } | parts  # fmt: skip
        after = '(alias core export $code "realloc" (core func $realloc))'
        whole = whole.replace("(component $guest", "(component $guest\n" + imports + _SHIM.format(**values))
        whole = whole.replace(after, after + _FILL.format(**values))
    last = '(export "shutdown" (func $shutdown))'
    whole = whole.replace(last, last + parts.get("code", ""))
    whole = whole.replace("(instantiate $guest)", f"(instantiate $guest {given})")
    whole = whole.replace(";; @imports@", imports).replace(";; @exports@", parts.get("outside", ""))
    name = "airssys:core/component-lifecycle@1.0.0"
    for _ in range(levels - 1):
        whole = f"""(component {imports} {whole.replace("(component", "(component $inner", 1)}
          (instance $inner (instantiate $inner {given}))
          (alias export $inner "{name}" (instance $lifecycle))
          (export "{name}" (instance $lifecycle)))"""
    return whole


def component(replace: dict[str, str] | None = None, *, storage: bool = False, levels: int = 1, **parts: str) -> bytes:
    """The component's bytes; see `text`."""
    return bytes(wasmtime.wat2wasm(text(replace, storage=storage, levels=levels, **parts)))
