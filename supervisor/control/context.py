"""Everything control's handlers need, in one value made by `main`."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from supervisor.config import HostConfig
from supervisor.control.audit_link import AuditLink
from supervisor.control.installer import Installer
from supervisor.control.lifecycle import Lifecycle
from supervisor.control.registry import Registry
from supervisor.control.router_link import RouterLink
from supervisor.control.supervisor_link import SupervisorLink
from supervisor.packages.trust import TrustStore


@dataclass(frozen=True)
class Control:
    """The parts of a running control process."""

    config: HostConfig
    supervisor: SupervisorLink
    router: RouterLink
    audit: AuditLink
    registry: Registry
    trust: TrustStore
    installer: Installer
    lifecycle: Lifecycle
    started: float = field(default_factory=time.monotonic)
