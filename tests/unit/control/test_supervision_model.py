"""The decision core against a plain model of OTP's supervisor, written independently of it as processes that end."""

from __future__ import annotations

import random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from supervisor.config_tree import SupervisorSpec
from supervisor.control.supervision import Decision, Tree, flat
from supervisor.control.tree import JITTER, RestartPolicy

pytestmark = pytest.mark.block3_actors
KINDS = ("permanent", "transient", "temporary")


class Worker:
    """A child that is a process."""

    def __init__(self, name: str, kind: str) -> None:
        self.name, self.kind = name, kind
        self.alive = False
        self.removed = False  # a temporary child that ended is in its supervisor's list no more
        self.held = False  # an operator stopped it

    def terminate(self, log: list) -> None:
        if self.alive:
            log.append(("stop", self.name))
        self.alive = False

    def begin(self, log: list, fresh: bool) -> None:
        if fresh:
            self.removed = False
        if not self.removed and not self.held:
            log.append(("start", self.name))
            self.alive = True


class Parent:
    """supervisor.erl, as far as it decides. The parent of the topmost ones is the host."""

    def __init__(self, spec: SupervisorSpec) -> None:
        self.name, self.strategy = spec.name, spec.strategy
        self.most, self.window = spec.max_restarts, spec.window_ms / 1000
        self.children: list[Worker | Parent] = []
        self.above: Parent | None = None
        self.restarts: list[float] = []

    def terminate(self, log: list) -> None:
        for child in reversed(self.children):
            child.terminate(log)

    def begin(self, log: list, fresh: bool) -> None:
        self.restarts = []  # a new process
        for child in self.children:
            child.begin(log, True)

    def add_restart(self, now: float) -> bool:
        self.restarts = [at for at in [*self.restarts, now] if now - at <= self.window]
        return len(self.restarts) <= self.most

    def exited(self, child: Worker | Parent, now: float, log: list) -> str:
        """A child has ended and is to be restarted; "quarantine" when nobody up to the host can."""
        if not self.add_restart(now):
            self.restarts.pop()  # it is over; what a released one counts begins with nothing anyway
            self.terminate(log)
            return "quarantine" if self.above is None else self.above.exited(self, now, log)
        if self.strategy == "one-for-all":
            concerned = list(self.children)
        elif self.strategy == "rest-for-one":
            concerned = self.children[self.children.index(child) :]
        else:
            concerned = [child]
        for each in reversed(concerned):
            each.terminate(log)
            if isinstance(each, Worker) and each.kind == "temporary" and each is not child:
                each.removed = True
        for each in concerned:
            each.begin(log, False)
        return "restart"


@st.composite
def trees(draw: st.DrawFn) -> tuple[list[SupervisorSpec], dict[str, str]]:
    """Supervisors (parents first, each listed by its parent) and kinds of components; some are the root's own."""
    count = draw(st.integers(1, 4))
    parents = [None, *(draw(st.none() | st.integers(0, index - 1)) for index in range(1, count))]
    kinds: dict[str, str] = {}
    children: list[list[str]] = [[] for _ in range(count)]
    replicated = [
        index not in parents and draw(st.integers(0, 3)) == 0  # replicas have no supervisors beside them
        for index in range(count)
    ]
    specs = []
    for index in range(count):
        own = [f"s{inner}" for inner in range(count) if parents[inner] == index]
        if not replicated[index]:
            own += [f"a/c{index}-{number}/0" for number in range(draw(st.integers(0, 3)))]
            children[index] = draw(st.permutations(own))
            kinds |= {name: draw(st.sampled_from(KINDS)) for name in own if "/" in name}
        else:
            kind = draw(st.sampled_from(KINDS))
            kinds |= {f"a/r{index}/{number}": kind for number in range(2)}
        specs.append(
            SupervisorSpec(
                f"s{index}",
                "root" if parents[index] is None else f"s{parents[index]}",
                "simple-one-for-one"
                if replicated[index]
                else draw(st.sampled_from(["one-for-one", "one-for-all", "rest-for-one"])),
                tuple(children[index]),
                max_restarts=draw(st.integers(0, 3)),
                window_ms=draw(st.sampled_from([1_000, 10_000])),
                template=f"a/r{index}" if replicated[index] else "",
                replicas=2 if replicated[index] else 0,
            )
        )
    return specs, kinds


class Supervision(RuleBasedStateMachine):
    """Ends, operators and time, on both at once."""

    @initialize(tree=trees())
    def build(self, tree) -> None:
        specs, kinds = tree
        self.now = 1_000.0
        self.tree = Tree(specs, random.Random(1))
        for name, kind in kinds.items():
            self.tree.add(name, RestartPolicy(restart=kind))
        self.workers = {name: Worker(name, kind) for name, kind in kinds.items()}
        self.parents = {spec.name: Parent(spec) for spec in specs}
        self.of: dict[str, Parent] = {}
        for spec in specs:
            parent = self.parents[spec.name]
            names = spec.children or tuple(f"{spec.template}/{index}" for index in range(spec.replicas))
            for name in names:
                child = self.parents[name] if name in self.parents else self.workers[name]
                parent.children.append(child)
                if isinstance(child, Parent):
                    child.above = parent
                else:
                    self.of[name] = parent
        self.quarantined: set[str] = set()
        log: list = []
        for parent in self.parents.values():
            if parent.above is None:
                parent.begin(log, True)
        assert [name for _, name in log] == list(flat(self.tree.start_order("root")))
        self.tree.started("root", self.now)

    def pick(self, data, names) -> str:
        return data.draw(st.sampled_from(sorted(names)))

    @rule(seconds=st.floats(0, 12))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: any(worker.alive for worker in self.workers.values()))
    @rule(data=st.data(), outcome=st.sampled_from(["exited", "trap", "deadline"]), uptime=st.floats(0, 20))
    def end(self, data, outcome: str, uptime: float) -> None:
        name = self.pick(data, (n for n, worker in self.workers.items() if worker.alive))
        alive = {n for n, worker in self.workers.items() if worker.alive}
        worker = self.workers[name]
        worker.alive = False
        log: list = []
        if worker.kind == "temporary" or (worker.kind == "transient" and outcome == "exited"):
            worker.removed = worker.kind == "temporary"
            verdict = "rest"
        else:
            verdict = self.of[name].exited(worker, self.now, log)
        decision: Decision = self.tree.ended(name, outcome, self.now, uptime)
        assert verdict == decision.verdict
        assert [n for what, n in log if what == "stop"] == [n for n in flat(decision.stop) if n in alive]
        assert name not in set(flat(decision.stop))
        assert 0 <= decision.delay <= 30 * (1 + JITTER)
        if verdict == "restart":
            assert [n for what, n in log if what == "start"] == list(flat(decision.start))
        if verdict == "quarantine":
            self.quarantined.add(decision.at)
            assert {n for n in self.below(decision.at) if not self.held(n)} == set(decision.quarantined)

    def held(self, name: str) -> bool:
        return self.workers[name].held or self.workers[name].removed

    def below(self, supervisor: str) -> set[str]:
        return set(flat(self.tree.batches(supervisor)))

    @precondition(lambda self: self.quarantined)
    @rule(data=st.data())
    def release(self, data) -> None:
        top = self.pick(data, self.quarantined)
        self.quarantined.discard(top)
        log: list = []
        self.parents[top].begin(log, True)
        self.tree.reset(top)
        self.tree.started(top, self.now)
        assert [name for _, name in log] == list(flat(self.tree.start_order(top)))

    @precondition(lambda self: any(worker.alive for worker in self.workers.values()))
    @rule(data=st.data())
    def operator_stops(self, data) -> None:
        name = self.pick(data, (n for n, worker in self.workers.items() if worker.alive))
        self.workers[name].alive, self.workers[name].held = False, True
        self.tree.set_absent(name, True)

    @precondition(lambda self: any(worker.held for worker in self.workers.values()))
    @rule(data=st.data())
    def operator_starts(self, data) -> None:
        name = self.pick(data, (n for n, worker in self.workers.items() if worker.held))
        if self.tree.top(name) in self.quarantined:
            return
        self.workers[name].alive, self.workers[name].held, self.workers[name].removed = True, False, False
        self.tree.set_absent(name, False)

    @invariant()
    def nothing_below_a_quarantine_lives(self) -> None:
        for top in getattr(self, "quarantined", ()):
            assert not any(self.workers[name].alive for name in self.below(top))


Supervision.TestCase.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
TestSupervision = Supervision.TestCase
