"""The walls by name: the words that configuration, `doctor`, `status` and the audit log use for them."""

from __future__ import annotations

MAY_BE_ACCEPTED = ("landlock", "mdwe", "mseal", "cgroup", "grant mounts")
"""Walls that a `degraded` host may run without, once each is named in `workers.accept-lost`. The others hold the cage
up: without namespaces, system-call filters or an empty root there is none."""
