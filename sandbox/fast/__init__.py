"""The fast way across the wasm boundary: bytes through a scratch memory that Python sees as a buffer.

A patched component (`sandbox.patch`) copies its arguments and results in bulk between its own memory and the scratch
memory; here they are packed and unpacked, by functions made once from the WIT types. What a component or a function
has no adapter for goes the general way (`sandbox.marshal`). Imports `sandbox.abi`, `sandbox.bindings`, and of the patch
the numbers both sides agree on.
"""
