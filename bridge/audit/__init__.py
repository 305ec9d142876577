"""The auditor: one process that owns the audit log, its chain and its signing key, and the client others record with.

`client` is what bridge, router and control use; `chain` is the log's format and its verification; `store` the files;
`auditor` the process's loop; `main` its entry. Nothing but the auditor ever opens the log for writing.
"""
