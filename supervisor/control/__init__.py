"""Control decides: the API, the registry, trust, compilation, and the tree that starts and restarts components.

One unprivileged asyncio process. It has no rights over other processes: what needs them (starting, killing,
compiling, mounting) it asks of the supervisor, which may refuse. Its death ends nothing; it comes back and learns
from supervisor and router what lives. Imports `bridge.capabilities` and `sandbox`.
"""
