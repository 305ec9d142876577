"""test/echo-python: answers every message with its own payload (see ../heavy.py)."""

from wit_world import exports
from wit_world.exports import component_lifecycle as lifecycle
from wit_world.imports import types


class ComponentLifecycle(exports.ComponentLifecycle):
    def initialize(self, config):
        pass

    def handle_message(self, message):
        return message.payload

    def handle_callback(self, message):
        pass

    def metadata(self):
        return lifecycle.ComponentMetadata("test/echo-python", "1.0.0", "", "", "", [], False)

    def health(self):
        return types.HealthStatus.HEALTHY

    def shutdown(self):
        pass
