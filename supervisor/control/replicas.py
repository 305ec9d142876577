"""Replicas of `simple-one-for-one` supervisors in the registry: instances 0 to N-1 of the template's package.

Instance 0 is what an operator installs; the others are what it is: package, bindings, environment, arguments, consent.
They are made when instance 0 is there, follow it when it changes, and go when it goes or fewer are asked for. What a
replica stored stays when it goes.
"""

from __future__ import annotations

from collections.abc import Iterable

from sandbox.types import ComponentId
from supervisor.config_tree import REPLICAS, SupervisorSpec
from supervisor.control.registry import Registry


def settle(registry: Registry, specs: Iterable[SupervisorSpec]) -> tuple[list[ComponentId], list[ComponentId]]:
    """Bring the registry in step with the declared replicas.

    Returns the replicas that were made or changed, and those that were removed. Raises UnavailableError.
    """
    changed: list[ComponentId] = []
    removed: list[ComponentId] = []
    for spec in specs:
        if spec.strategy != REPLICAS:
            continue
        installed = [row.component for row in registry.instances() if row.component.package == spec.template]
        first = _instance(spec, 0)
        wanted = [_instance(spec, index) for index in range(1, spec.replicas)] if first in installed else []
        changed.extend(replica for replica in wanted if registry.replicate(first, replica))
        for component in installed:
            if component != first and component not in wanted and component.instance.isdecimal():
                registry.uninstall(component)
                removed.append(component)
    return changed, removed


def template_of(component: ComponentId, specs: Iterable[SupervisorSpec]) -> SupervisorSpec | None:
    """The supervisor whose replica a component is, instance 0 included."""
    for spec in specs:
        if spec.template == component.package and component.instance.isdecimal():
            index = int(component.instance)
            if index < spec.replicas and component == _instance(spec, index):
                return spec
    return None


def _instance(spec: SupervisorSpec, index: int) -> ComponentId:
    return ComponentId.parse(f"{spec.template}/{index}")
