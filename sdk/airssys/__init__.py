"""What other people's code imports: the client side and the tools of airssys.

Nothing here imports the host (`supervisor`, `bridge`, `sandbox`), so it installs alone and runs anywhere Python
does. `airssys.componentize` turns a core WebAssembly module into a component that the host accepts.
"""
