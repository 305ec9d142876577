// test/echo-qjs: answers every message with its own payload (see ../heavy.py).
export const componentLifecycle = {
  initialize() {},
  handleMessage: (message) => message.payload,
  handleCallback() {},
  metadata: () => ({
    name: "test/echo-qjs", version: "1.0.0", description: "", author: "", license: "", supportedOperations: [],
    stateful: false,
  }),
  health: () => "healthy",
  shutdown() {},
};
