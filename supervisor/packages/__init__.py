"""Packages and who may publish them: manifest, keys, signed envelope, trust store.

A package is two files, `component.wasm` and its signed envelope `component.dsse.json`; the manifest is inside the
envelope. Everything here works on bytes and files, offline, for control and for the command line alike; nothing here
imports the engine or an event loop.
"""
