"""test/wasi-python: CPython without stubs; does through the standard library what a message names (see ../heavy.py)."""

import os
import sys
import time

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports import component_lifecycle as lifecycle
from wit_world.imports import errors, types


class ComponentLifecycle(exports.ComponentLifecycle):
    def initialize(self, config):
        print("initialized")

    def handle_message(self, message):
        command, _, text = message.payload.decode().partition(" ")
        answer = COMMANDS.get(command)
        if answer is None:
            raise Err(errors.WasmError_RuntimeError("unknown command"))
        return str(answer(text)).encode()

    def handle_callback(self, message):
        pass

    def metadata(self):
        return lifecycle.ComponentMetadata("test/wasi-python", "1.0.0", "", "", "", [], False)

    def health(self):
        return types.HealthStatus.HEALTHY

    def shutdown(self):
        pass


def slept(text):
    before = time.monotonic()
    time.sleep(int(text) / 1000)
    return int((time.monotonic() - before) * 1000)


def opened(text):
    try:
        with open(text):
            return "opened"
    except OSError as error:
        return error.strerror


def fail(text):
    raise ValueError(text)


COMMANDS = {
    "print": lambda text: print(text) or "ok",
    "eprint": lambda text: print(text, file=sys.stderr) or "ok",
    "sleep": slept,
    "clock": lambda _: time.monotonic_ns(),
    "time": lambda _: int(time.time()),
    "random": lambda text: os.urandom(int(text)).hex(),
    "env": lambda text: os.environ.get(text, "(none)"),
    "open": opened,
    "fail": fail,
    "exit": lambda text: os._exit(int(text)),
}
