"""Kernel primitives: thin, typed wrappers over the Linux calls the cage and its builders need.

Each module wraps one facility and raises `OSError` with the call's name; deciding what a failure means is the
caller's. Call numbers are those of x86-64 and aarch64, which share them from `pidfd_send_signal` (424) on.
"""
