"""The Component Model's types, how the canonical ABI lays their values out, and the host's own interfaces in them.

Pure computation, no engine: both ways across the wasm boundary (`sandbox.marshal`, `sandbox.fast`) and the compiler,
which writes adapters (`sandbox.patch`), work from the same description of a function. References: Component Model,
`design/mvp/Explainer.md` (types) and `design/mvp/CanonicalABI.md` (layout and flattening). Imports `sandbox.wit*` only.
"""
