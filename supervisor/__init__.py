"""The host above the floor: parent, control, router, packages and the command line. Imports `bridge` and `sandbox`."""
