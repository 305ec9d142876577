"""test/counter-python: counts messages in the stored value `n` and replies the count (see ../heavy.py)."""

from wit_world import exports
from wit_world.exports import component_lifecycle as lifecycle
from wit_world.imports import storage, types


class ComponentLifecycle(exports.ComponentLifecycle):
    def initialize(self, config):
        pass

    def handle_message(self, message):
        count = str(int(storage.get("n") or b"0") + 1).encode()
        storage.set("n", count)
        return count

    def handle_callback(self, message):
        pass

    def metadata(self):
        return lifecycle.ComponentMetadata("test/counter-python", "1.0.0", "", "", "", [], True)

    def health(self):
        return types.HealthStatus.HEALTHY

    def shutdown(self):
        pass
