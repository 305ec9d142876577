// test/wasi-qjs: QuickJS with WASI; does what a message names (see ../heavy.py).
// The engine has no TextEncoder; ASCII is enough here.
const encode = (text) => Uint8Array.from(text, (character) => character.charCodeAt(0));
const decode = (bytes) => String.fromCharCode(...bytes);

const commands = {
  echo: (text) => text,
  random: () => String(Math.random()),
  time: () => Math.floor(Date.now() / 1000),
  fail: (text) => { throw new Error(text); },
};

export const componentLifecycle = {
  initialize() {},
  handleMessage(message) {
    const [, command, text] = /^(\S*) ?([^]*)$/.exec(decode(message.payload));
    if (!(command in commands)) throw { tag: "runtime-error", val: "unknown command" };
    return encode(String(commands[command](text)));
  },
  handleCallback() {},
  metadata: () => ({
    name: "test/wasi-qjs", version: "1.0.0", description: "", author: "", license: "", supportedOperations: [],
    stateful: false,
  }),
  health: () => "healthy",
  shutdown() {},
};
