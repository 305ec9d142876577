"""test/actor-python: what examples/actors/callback does, in Python (see ../heavy.py and that example's README)."""

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports import component_lifecycle as lifecycle
from wit_world.imports import host_messaging, messaging, timers, types

PLAIN = messaging.Options(messaging.Priority.NORMAL, 0, "", None)
state = {"last": "", "heard": "", "reminded": ""}
tokens = []


def ask(target, text):
    return messaging.request(types.ComponentId(*target.split("/")), text.encode(), 2000, PLAIN)


def later():
    tokens.append(messaging.defer())
    return "this is not the reply"


def give(text):
    messaging.reply(tokens.pop(0), text.encode())
    return "ok"


def say(topic, text):
    return str(messaging.publish(topic, text.encode(), PLAIN))


def follow(pattern):
    messaging.subscribe(pattern)
    return "ok"


def remind(milliseconds, text):
    timers.send_after(int(milliseconds), text.encode())
    return "ok"


COMMANDS = {"ask": (ask, 2), "later": (later, 0), "give": (give, 1), "say": (say, 2), "follow": (follow, 1)}
COMMANDS["remind"] = (remind, 2)


class ComponentLifecycle(exports.ComponentLifecycle):
    def initialize(self, config):
        pass

    def handle_message(self, message):
        text = message.payload.decode()
        if message.sender == host_messaging.self_id():
            state["reminded"] = text
            return None
        word, _, rest = text.partition(" ")
        if word in state:
            return state[word].encode()
        function, count = COMMANDS[word]
        try:
            return function(*(rest.split(" ", count - 1) if count else ())).encode()
        except Err as error:
            return f"failed: {error.value.reason.name.lower().replace('_', '-')}".encode()

    def handle_callback(self, message):
        info = messaging.current()
        if info.failure is None:
            state["last"] = f"reply {message.payload.decode()}"
        else:
            reason = info.failure.reason.name.lower().replace("_", "-")
            state["last"] = f"failed {reason} {info.failure.text}"

    def metadata(self):
        return lifecycle.ComponentMetadata("test/actor-python", "1.0.0", "", "", "", list(COMMANDS), True)

    def health(self):
        return types.HealthStatus.HEALTHY

    def shutdown(self):
        pass


class TopicHandler(exports.TopicHandler):
    def handle_topic(self, topic, msg):
        state["heard"] = f"{topic} {msg.sender.name} {msg.payload.decode()}"
