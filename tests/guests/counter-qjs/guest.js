// test/counter-qjs: counts messages in the stored value `n` and replies the count (see ../heavy.py).
import { get, set } from "airssys:core/storage@1.0.0";

// The engine has no TextEncoder; digits are enough here.
const encode = (text) => Uint8Array.from(text, (character) => character.charCodeAt(0));
const decode = (bytes) => String.fromCharCode(...bytes);

export const componentLifecycle = {
  initialize() {},
  handleMessage() {
    const was = get("n");
    const count = encode(String((was ? parseInt(decode(was)) : 0) + 1));
    set("n", count);
    return count;
  },
  handleCallback() {},
  metadata: () => ({
    name: "test/counter-qjs", version: "1.0.0", description: "", author: "", license: "", supportedOperations: [],
    stateful: true,
  }),
  health: () => "healthy",
  shutdown() {},
};
