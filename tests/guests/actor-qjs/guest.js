// test/actor-qjs: what examples/actors/callback does, in JavaScript (see ../heavy.py and that example's README).
import { selfId } from "airssys:core/host-messaging@1.0.0";
import { current, defer, publish, reply, request, subscribe } from "airssys:messaging/messaging@0.1.0";
import { sendAfter } from "airssys:messaging/timers@0.1.0";

// The engine has no TextEncoder; plain letters are enough here.
const encode = (text) => Uint8Array.from(text, (character) => character.charCodeAt(0));
const decode = (bytes) => String.fromCharCode(...bytes);
const PLAIN = { priority: "normal", ttlMs: 0, key: "", contentType: undefined };
const state = { last: "", heard: "", reminded: "" };
const tokens = [];

const commands = {
  ask(target, text) {
    const [namespace, name, instance] = target.split("/");
    return request({ namespace, name, instance }, encode(text), 2000, PLAIN);
  },
  later() {
    tokens.push(defer());
    return "this is not the reply";
  },
  give(text) {
    reply(tokens.shift(), encode(text));
    return "ok";
  },
  say: (topic, text) => String(publish(topic, encode(text), PLAIN)),
  follow(pattern) {
    subscribe(pattern);
    return "ok";
  },
  remind(milliseconds, text) {
    sendAfter(Number(milliseconds), encode(text));
    return "ok";
  },
};

function split(text, most) {
  const parts = text.split(" ");
  return most === 0 ? [] : [...parts.slice(0, most - 1), parts.slice(most - 1).join(" ")];
}

const same = (one, other) => ["namespace", "name", "instance"].every((part) => one[part] === other[part]);

export const componentLifecycle = {
  initialize() {},
  handleMessage(message) {
    const text = decode(message.payload);
    if (same(message.sender, selfId())) {
      state.reminded = text;
      return undefined;
    }
    const [word, rest] = split(text, 2);
    if (word in state) return encode(state[word]);
    try {
      return encode(commands[word](...split(rest ?? "", commands[word].length)));
    } catch (error) {
      const failure = error.payload ?? error;
      if (!failure.reason) throw error;
      return encode(`failed: ${failure.reason}`);
    }
  },
  handleCallback(message) {
    const { failure } = current();
    state.last = failure ? `failed ${failure.reason} ${failure.text}` : `reply ${decode(message.payload)}`;
  },
  metadata: () => ({
    name: "test/actor-qjs", version: "1.0.0", description: "", author: "", license: "",
    supportedOperations: Object.keys(commands), stateful: true,
  }),
  health: () => "healthy",
  shutdown() {},
};

export const topicHandler = {
  handleTopic(topic, message) {
    state.heard = `${topic} ${message.sender.name} ${decode(message.payload)}`;
  },
};
