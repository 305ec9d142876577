"""The self-test: attacks the cage on this machine, with native code in real, sealed, unmodified workers.

A throw-away host is started the production way. Its component is an interpreter of attack programs; one function of
it, in the compiled component, is overwritten with machine code that makes raw system calls, and the result goes into
the throw-away host's cache under that host's own MAC key. Neither worker, zygote nor supervisor knows of the test.
The very same machine code runs the same programs in a forked child without the wall: an attack that does not work
there shows nothing, and is reported as a failed control.

May import everything of `supervisor`, `bridge` and `sandbox`; nothing but the command line imports it.
"""
