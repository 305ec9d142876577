"""System-call policies as data, one TOML file each; `sandbox.kernel.seccomp` compiles them."""
