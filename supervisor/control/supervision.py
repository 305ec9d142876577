"""The decision core of supervision: a tree, an end, a clock - and what is to be stopped and started, in which order.

The semantics are those of OTP's `supervisor`: a child that ends is started again if its restart kind and its outcome
say so, with the siblings its supervisor's strategy names; a supervisor that has restarted more than `max_restarts`
times within `window` ends all below it and hands the matter to its own supervisor, which takes it for that child's
abnormal end. Three things are this host's own:

- The root is one-for-one and never ends. Each of its children has its own intensity, a component that of its manifest,
  a supervisor that of its declaration; a child that exceeds it is quarantined with all below it.
- Restarts wait (`tree.Backoff`): each child has its own delays, and a restart takes the longest on the way up.
- Nothing here does anything: `lifecycle` and `operations` carry decisions out.

Components are named by their id as text (with slashes), supervisors by their name (without).
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec

from supervisor.config_tree import REPLICAS, ROOT, SupervisorSpec
from supervisor.control import strategy
from supervisor.control.strategy import Batches
from supervisor.control.tree import Backoff, RestartPolicy, Window, wants_restart


class Decision(msgspec.Struct, frozen=True):
    """What follows from one end. First `stop`, then wait `delay` seconds, then `start`."""

    verdict: Literal["rest", "restart", "quarantine"]
    """rest: it stays ended. quarantine: all below `at` stay ended until an operator releases them."""
    at: str = ""
    """restart: the supervisor that restarts. quarantine: the child of the root that exceeded its intensity."""
    stop: Batches = ()
    """Components to stop; without the one that ended. Some may not run."""
    start: Batches = ()
    delay: float = 0.0
    quarantined: tuple[str, ...] = ()
    gave_up: tuple[str, ...] = ()
    """Supervisors that exceeded their intensity, innermost first."""

    def alone(self, name: str) -> bool:
        """Whether nobody but the component that ended is concerned."""
        return not self.stop and self.start == ((name,),)


class _Child:
    """A component in the tree, or a supervisor as the child of another."""

    def __init__(self, parent: str, backoff: Backoff) -> None:
        self.parent, self.backoff = parent, backoff


class _Component(_Child):
    def __init__(self, parent: str, policy: RestartPolicy, window: Window, backoff: Backoff) -> None:
        super().__init__(parent, backoff)
        self.policy, self.window = policy, window
        self.absent = False  # not to be started with its siblings: stopped by an operator, or refused
        self.gone = False  # temporary and ended: forgotten until its supervisor itself is started again

    @property
    def left_out(self) -> bool:
        return self.absent or self.gone


class _Supervisor(_Child):
    def __init__(self, spec: SupervisorSpec, window: Window, backoff: Backoff, parent: Window | None) -> None:
        super().__init__(spec.parent, backoff)
        self.spec, self.window = spec, window
        self.stable = (parent or window).seconds
        self.started_at: float | None = None
        self.gave_up = 0


class Tree:
    """All supervisors and components of a host.

    Args:
        specs: the declared supervisors, as `config_tree.read_supervisors` gives them.
        jitter: spreads delays; random by default.
    """

    def __init__(self, specs: Sequence[SupervisorSpec] = (), jitter: random.Random | None = None) -> None:
        self._random = jitter or random.Random()  # noqa: S311 - spreads load, guards nothing
        self._specs = {spec.name: spec for spec in specs}
        self._places = {child: spec.name for spec in specs for child in spec.children if "/" in child}
        self._templates = {spec.template: spec for spec in specs if spec.strategy == REPLICAS}
        windows = {spec.name: Window(spec.max_restarts, spec.window_ms / 1000) for spec in specs}
        self._supervisors = {
            # A supervisor is delayed as its parent says, below the root as it says itself.
            spec.name: _Supervisor(
                spec,
                windows[spec.name],
                self._backoff(self._specs.get(spec.parent, spec)),
                windows.get(spec.parent),
            )
            for spec in specs
        }
        self._components: dict[str, _Component] = {}

    def _backoff(self, spec: SupervisorSpec) -> Backoff:
        first, most = spec.backoff_ms
        return Backoff(first / 1000, most / 1000, spec.window_ms / 1000, self._random)

    # -- who there is -----------------------------------------------------------------------------------------

    def add(self, name: str, policy: RestartPolicy) -> None:
        """A component, or a component's new policy; it starts afresh."""
        package, _, instance = name.rpartition("/")
        parent = self._places.get(name, ROOT)
        template = self._templates.get(package)
        if template is not None and instance.isdecimal() and int(instance) < template.replicas:
            parent = template.name
        spec = self._specs.get(parent)
        if spec is None:
            window = Window(policy.max_restarts, policy.window)
            backoff = Backoff(policy.backoff_first, policy.backoff_most, policy.window, self._random)
        else:
            window, backoff = self._supervisors[parent].window, self._backoff(spec)
        # In place of an old one, so that components of the root keep their order.
        self._components[name] = _Component(parent, policy, window, backoff)

    def remove(self, name: str) -> None:
        """A component is gone."""
        self._components.pop(name, None)

    def parent(self, name: str) -> str:
        """The supervisor of a component or supervisor."""
        child = self._components.get(name) or self._supervisors[name]
        return child.parent

    def supervisors(self) -> Iterator[SupervisorSpec]:
        """The declared ones, in the order of the file."""
        return iter(self._specs.values())

    def has(self, supervisor: str) -> bool:
        """Whether there is such a supervisor; the root is one."""
        return supervisor == ROOT or supervisor in self._supervisors

    def children(self, supervisor: str) -> list[str]:
        """Components that are there and supervisors, in start order; those of the root: supervisors first."""
        if supervisor == ROOT:
            top = [spec.name for spec in self._specs.values() if spec.parent == ROOT]
            return [*top, *(name for name, component in self._components.items() if component.parent == ROOT)]
        spec = self._specs[supervisor]
        if spec.strategy == REPLICAS:
            names = (f"{spec.template}/{index}" for index in range(spec.replicas))
            return [name for name in names if name in self._components]
        return [child for child in spec.children if "/" not in child or child in self._components]

    def below(self, supervisor: str) -> set[str]:
        """The names of all supervisors in a subtree, its top included."""
        inner = (child for child in self.children(supervisor) if "/" not in child)
        return {supervisor}.union(*(self.below(child) for child in inner))

    def top(self, name: str) -> str:
        """The child of the root that a component or supervisor is, or belongs to."""
        while (parent := self.parent(name)) != ROOT:
            name = parent
        return name

    def concerned(self, name: str) -> list[str]:
        """The components that its supervisor restarts along with a component, itself left out."""
        parent = self.parent(name)
        if parent == ROOT:
            return []
        again = strategy.restarted(self._specs[parent].strategy, self.children(parent), name)
        return [each for child in again for each in flat(self.batches(child)) if each != name]

    def recent(self, supervisor: str, now: float) -> int:
        """Restarts in a supervisor's window."""
        return self._supervisors[supervisor].window.recent(now)

    def times_given_up(self, supervisor: str) -> int:
        """How often a supervisor exceeded its intensity."""
        return self._supervisors[supervisor].gave_up

    # -- orders -----------------------------------------------------------------------------------------------

    def batches(self, child: str) -> Batches:
        """A component, or all below a supervisor, in start order, whether they are to run or not."""
        if child in self._components:
            return ((child,),)
        children = self.children(child)
        if child in self._specs and self._specs[child].strategy == REPLICAS:
            return (tuple(children),) if children else ()
        return tuple(batch for each in children for batch in self.batches(each))

    def start_order(self, child: str) -> Batches:
        """The same without what is not to be started. The root's own components come last, all at once."""
        batches = self.batches(child)
        if child == ROOT:
            ours = {name for name, component in self._components.items() if component.parent == ROOT}
            declared = (batch for batch in batches if not ours.intersection(batch))
            batches = (*declared, tuple(name for name in flat(batches) if name in ours))
        return self._wanted(batches)

    # -- what changes -----------------------------------------------------------------------------------------

    def set_absent(self, name: str, absent: bool) -> None:
        """Whether a component is left out when its supervisor starts its children."""
        self._components[name].absent = absent
        self._components[name].gone = False

    def rests(self, name: str) -> None:
        """A component has ended for good, as its restart kind has it."""
        component = self._components[name]
        # A temporary child is forgotten; a transient one that is done comes back with its siblings.
        component.gone = component.policy.restart == "temporary"

    def left_out(self, name: str) -> bool:
        """Whether a component is not to be started with its siblings."""
        return self._components[name].left_out

    def started(self, supervisor: str, now: float) -> None:
        """All below a supervisor is being started, its intensity anew; uptime counts from here."""
        for name in self.below(supervisor) - {ROOT}:
            self._supervisors[name].started_at = now
            self._supervisors[name].window.reset()
        for name in flat(self.batches(supervisor)):
            self._components[name].gone = False

    def reset(self, name: str) -> None:
        """Start afresh, as after an operator's start or release: the component, or all below the supervisor."""
        if name in self._components:
            component = self._components[name]
            component.backoff.reset()
            if component.parent == ROOT:
                component.window.reset()
            return
        for inner in self.below(name) - {ROOT}:
            self._supervisors[inner].window.reset()
            self._supervisors[inner].backoff.reset()
        for each in flat(self.batches(name)):
            self.reset(each)

    def pardon(self, name: str) -> None:
        """Reset the intensity of every supervisor above a component or supervisor that is released."""
        while (name := self.parent(name)) != ROOT:
            self._supervisors[name].window.reset()

    def forgive(self, since: float) -> None:
        """Uncount every end at or after `since`: the host was their cause."""
        for component in self._components.values():
            component.window.forgive(since)
            component.backoff.forgive(since)
        for supervisor in self._supervisors.values():
            supervisor.window.forgive(since)
            supervisor.backoff.forgive(since)

    # -- decisions --------------------------------------------------------------------------------------------

    def ended(self, name: str, outcome: str, now: float, uptime: float) -> Decision:
        """A component ended, or could not be started.

        Args:
            name: its id.
            outcome: how (an `Outcome`).
            now: monotonic seconds.
            uptime: seconds its worker was ready, 0 when it never was.
        """
        component = self._components[name]
        if not wants_restart(component.policy, outcome):
            self.rests(name)
            return Decision("rest")
        delay = component.backoff.after_end(now, uptime)
        if component.parent == ROOT:
            if component.window.allow(now):
                return Decision("restart", ROOT, start=((name,),), delay=delay)
            return Decision("quarantine", name, quarantined=(name,))
        return self._climb(name, now, delay)

    def _climb(self, ended: str, now: float, delay: float) -> Decision:
        """Find the supervisor that can still restart, from the parent of what ended upwards."""
        failed, gone = ended, {ended}
        stop: list[tuple[str, ...]] = []
        gave_up: list[str] = []
        while True:
            at = self.parent(failed)
            supervisor = self._supervisors[at]
            if supervisor.window.allow(now):
                again = strategy.restarted(supervisor.spec.strategy, self.children(at), failed)
                batches = tuple(batch for child in again for batch in self.batches(child))
                stop.extend(strategy.backwards(batches, tuple(gone)))
                for child in again:
                    if child in self._supervisors:
                        self.started(child, now + delay)
                    elif self._components[child].policy.restart == "temporary":
                        self._components[child].gone = True  # its supervisor stops it and forgets it
                return Decision("restart", at, tuple(stop), self._wanted(batches), delay, gave_up=tuple(gave_up))
            supervisor.gave_up += 1
            gave_up.append(at)
            batches = self.batches(at)
            stop.extend(strategy.backwards(batches, tuple(gone)))
            gone.update(name for batch in batches for name in batch)
            if supervisor.parent == ROOT:
                quarantined = tuple(name for batch in self._wanted(batches) for name in batch)
                return Decision("quarantine", at, tuple(stop), quarantined=quarantined, gave_up=tuple(gave_up))
            started = supervisor.started_at
            delay = max(delay, supervisor.backoff.after_end(now, 0.0 if started is None else max(0.0, now - started)))
            failed = at

    def _wanted(self, batches: Batches) -> Batches:
        kept = (tuple(name for name in batch if not self._components[name].left_out) for batch in batches)
        return tuple(batch for batch in kept if batch)


def flat(batches: Batches) -> Iterator[str]:
    """The components of batches, one after another."""
    for batch in batches:
        yield from batch
