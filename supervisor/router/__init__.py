"""The router: moves messages between components, control and people outside; decides no more than who may talk to whom.

One unprivileged process, one thread: `loop` polls two ROUTER sockets, the supervisor and the auditor; `delivery` runs
the state machine of each worker, `asks` answers what a worker asks while it works, `bus` answers control. State lives
in `routes` (components and workers), `mailbox` and `correlation`, and nothing of it is on disk. May import `bridge`
(the capability language, the auditor's client) and `sandbox`.
"""
