"""The router: moves messages between components, control and people outside; decides no more than who may talk to whom.

One unprivileged process, one thread: `loop` polls every worker's stream, the bus (a ZeroMQ ROUTER socket), the
supervisor and the auditor; `inbound` and `channels` are the ROUTER's end of the workers' streams, with every amount
bounded; `lives` is the state machine of each worker, `delivery` the way of each message; `asks` answers what a worker
asks while it works, with `topics`, `groups`, `alarms` and `deferred`; `bus` answers control, `clients` those outside.
State lives in `routes` (components and workers), `mailbox`, `correlation` and what was just named, and nothing of it is
on disk. May import `bridge` (the capability language, the auditor's client) and `sandbox`.
"""
