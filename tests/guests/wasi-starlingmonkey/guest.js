// test/wasi-starlingmonkey: SpiderMonkey with WASI; does what a message names (see ../heavy.py).
const encoder = new TextEncoder();
const decoder = new TextDecoder();

const commands = {
  print: (text) => { console.log(text); return "ok"; },
  eprint: (text) => { console.error(text); return "ok"; },
  clock: () => Math.floor(performance.now() * 1e6),
  time: () => Math.floor(Date.now() / 1000),
  random: (text) => Array.from(crypto.getRandomValues(new Uint8Array(Number(text))), (b) => b.toString(16).padStart(2, "0")).join(""),
  fail: (text) => { throw new Error(text); },
};

export const componentLifecycle = {
  initialize() { console.log("initialized"); },
  handleMessage(message) {
    const [, command, text] = /^(\S*) ?([^]*)$/.exec(decoder.decode(message.payload));
    if (!(command in commands)) throw { tag: "runtime-error", val: "unknown command" };
    return encoder.encode(String(commands[command](text)));
  },
  handleCallback() {},
  metadata: () => ({
    name: "test/wasi-starlingmonkey", version: "1.0.0", description: "", author: "", license: "",
    supportedOperations: [], stateful: false,
  }),
  health: () => "healthy",
  shutdown() {},
};
