"""What components may do, and doing it: the capability language, executors for files and storage, the auditor.

The bridge process executes for workers that hold nothing; the auditor process (`bridge.audit`) remembers what was
decided. Both are unprivileged and single-threaded. This folder imports `sandbox` and is imported by `supervisor`
(the router and control ask `bridge.capabilities` the same questions the bridge asks).
"""
