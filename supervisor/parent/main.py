"""The supervisor's loop: frames in, frames out, deaths, deadlines.

One thread, one selector. Everything that could wait is an event: children that die (pidfds), children that speak
(channels), workers that report, signals, times. Requests come from control alone; router and bridge may ask for one
thing, a worker's end. An undecodable frame from a child ends that child, never the supervisor.
"""

from __future__ import annotations

import logging
import os
import select
import selectors
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from sandbox.errors import AirssysError, ProtocolViolation
from sandbox.kernel.cgroups import Tree
from sandbox.types import ComponentId, Outcome
from sandbox.wire import UNDECODABLE
from sandbox.wire import supervisor_frames as frames
from supervisor.config import HostConfig
from supervisor.parent import confinement
from supervisor.parent.audit_channels import AuditChannels
from supervisor.parent.children import Child
from supervisor.parent.compilers import Compilation, Compilers
from supervisor.parent.errors import FAILURES, GrantRefused, SpawnFailed, refusal
from supervisor.parent.grants import open_grant
from supervisor.parent.identities import Identities
from supervisor.parent.layout import Layout
from supervisor.parent.pool import PRIVATE
from supervisor.parent.services import Services
from supervisor.parent.starts import REASONS, Starts
from supervisor.parent.workers import Workers

log = logging.getLogger("airssys.supervisor")

_from_control = msgspec.msgpack.Decoder(frames.FromControl)
_from_child = msgspec.msgpack.Decoder(frames.FromChild)
_forked = msgspec.msgpack.Decoder(frames.Forked | frames.Up)
RELAUNCH_SECONDS = 1.0
"""Pause before trying again when not even a process could be made."""
REFUSED = 78
"""Exit status of a process that would refuse every time (sysexits.h, EX_CONFIG)."""
STOP_SECONDS = 2.0
"""How long a host process may take to end after its channel hung up."""


def _check_component(component: ComponentId) -> None:
    try:
        valid = ComponentId.parse(str(component)) == component
    except ValueError:
        valid = False
    if not valid:
        raise ProtocolViolation("not a component id", subject=str(component)[:200])


@dataclass
class Supervisor:
    """The state of the parent process. `run` returns when the host has ended; the value is its exit status."""

    config: HostConfig
    layout: Layout
    identities: Identities
    cgroups: Tree
    walls: dict[str, str]
    mountable: bool
    on_ready: Callable[[], None]
    lost: frozenset[str] = frozenset()
    """Walls the host runs without."""
    children: dict[str, Child] = field(default_factory=dict)
    exit_status: int = 0
    failure: AirssysError | None = None
    """Why the host could not go on."""
    served: bool = False
    """Whether it was ever ready."""

    def __post_init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        self.services = Services(self.config, self.layout, self.identities, self.lost)
        self.workers = Workers(self.identities, self.cgroups, self.config.start_timeout_ms / 1000)
        self.compilers = Compilers(self.services, self.cgroups)
        self.channels = AuditChannels(self.layout.boot)
        self.audit = self.channels.client
        self._audit_fd = -1
        self._phase = "starting"
        self._stop_at = 0.0
        self._stop_requests: list[int] = []
        self._relaunches: dict[str, float] = {}
        uids = self.identities
        for name, uid, start in (
            ("auditor", uids.auditor, self.services.auditor),
            ("zygote", uids.supervisor, self.services.zygote),
            ("bridge", uids.bridge, self.services.bridge),
            ("router", uids.router, self.services.router),
            ("control", uids.control, self.services.control),
        ):
            self.children[name] = Child(name, uid, start)
        self.starts = Starts(self.config, self.selector, self.workers, self.services, self.children, self.audit)
        self.compilers.leftover_groups = self.starts.leftover_groups
        self.pool = self.starts.pool

    # -- the loop --------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Start everything, serve until told to stop or until nothing can be served, stop everything."""
        wake_r, wake_w = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(wake_w, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: None)
        self.selector.register(wake_r, selectors.EVENT_READ, ("signal", None))
        try:
            for name in ("auditor", "zygote", "bridge", "router"):
                self._launch(name)
            self._deadline = time.monotonic() + self.config.start_timeout_ms / 1000
            while self._phase != "ended":
                self._turn(wake_r)
        except (AirssysError, OSError) as error:
            log.error("the host cannot go on: %s", error)
            self.failure = error if isinstance(error, AirssysError) else SpawnFailed(str(error))
            self.exit_status = 1
        except Exception:
            # A defect of ours: the log is the only place where it can be told, whoever started the host.
            log.exception("the supervisor failed")
            raise
        finally:
            self._end()
        return self.exit_status

    def _turn(self, wake_r: int) -> None:
        for key, mask in self._by_urgency(self.selector.select(self._timeout())):
            what, who = key.data
            if what == "signal":
                self._signals(os.read(wake_r, 64))
            elif what == "child-dead":
                self._child_dead(who)
            elif what == "child":
                self._child_event(who, mask)
            elif what == "worker-dead":
                self.starts.dead(who)
            elif what == "worker":
                self.starts.reported(who)
            elif what == "compiler":
                self._compiler_reported(who)
            elif what == "compiler-dead":
                self._compiler_dead(who)
            elif what == "stray-dead":
                self.starts.stray_dead(who)
            elif what == "private-dead":
                self.pool.private_ended(who)
                self.starts.zygote_ended(who)
            elif what == "audit":
                self._audit_event(mask)
        self._times()
        self._watch_writes()

    @staticmethod
    def _by_urgency(events: list[Any]) -> list[Any]:
        # A host process that died explains the workers that died of it, so its death is handled first.
        order = {
            "signal": 0,
            "child-dead": 1,
            "audit": 2,
            "child": 3,
            "worker": 4,
            "compiler": 4,
            "worker-dead": 5,
            "compiler-dead": 6,
            "stray-dead": 6,
            "private-dead": 7,
        }
        return sorted(events, key=lambda event: order[event[0].data[0]])

    def _timeout(self) -> float | None:
        now = time.monotonic()
        waiting = ("live", "blank")  # for as long as they like
        times = [worker.deadline for worker in self.workers.by_number.values() if worker.stage not in waiting]
        times += self.compilers.deadlines()
        times += self._relaunches.values()
        if self._phase == "starting":
            times.append(self._deadline)
        if self._phase == "running" and (due := self.pool.due()) is not None:
            times.append(due)
        if self._phase == "draining":
            times.append(self._stop_at)
        if self.starts.leftover_groups:
            times.append(now + 1.0)
        return max(0.0, min(times) - now) if times else None

    def _times(self) -> None:
        now = time.monotonic()
        for worker in list(self.workers.by_number.values()):
            if worker.stage not in ("live", "blank") and now >= worker.deadline:
                worker.deadline = now + 60
                self.starts.fail(worker, SpawnFailed("the worker was not sealed in time", subject=worker.stage))
        self.compilers.expire(now)
        if self._phase == "running":
            self.pool.refill(now)
        for name in [name for name, when in self._relaunches.items() if now >= when]:
            del self._relaunches[name]
            self._launch(name)
        if self._phase == "starting" and now >= self._deadline:
            waiting = [name for name, child in self.children.items() if not child.ready]
            raise SpawnFailed(f"not ready in time: {', '.join(waiting)}", hint="see the host's log")
        if self._phase == "draining" and now >= self._stop_at:
            self._phase = "ended"
        for group in list(self.starts.leftover_groups):
            if self.cgroups.remove(group):
                self.starts.leftover_groups.discard(group)

    def _watch_writes(self) -> None:
        for child in self.children.values():
            if child.sock is not None:
                wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if child.queue else 0)
                if self.selector.get_key(child.sock).events != wanted:
                    self.selector.modify(child.sock, wanted, ("child", child))
        if self._audit_fd >= 0:
            wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if self.audit.wants_write else 0)
            if self.selector.get_key(self._audit_fd).events != wanted:
                self.selector.modify(self._audit_fd, wanted, ("audit", None))

    def _signals(self, numbers: bytes) -> None:
        if any(number in (signal.SIGTERM, signal.SIGINT) for number in numbers):
            log.info("told to stop")
            self._drain()

    # -- host processes --------------------------------------------------------------------------------------

    def _launch(self, name: str) -> None:
        child = self.children[name]
        if self._phase == "starting":
            child.check_storm()
        try:
            child.launch()
        except FAILURES as error:
            if self._phase == "starting":
                raise
            log.error("%s cannot be started: %s", name, error)
            self._relaunches[name] = time.monotonic() + RELAUNCH_SECONDS
            return
        log.info("%s started, pid %d", name, child.pid)
        self.selector.register(child.pidfd, selectors.EVENT_READ, ("child-dead", child))
        self.selector.register(child.sock, selectors.EVENT_READ, ("child", child))  # type: ignore[arg-type]
        if name == "control":
            self._audit_channel(child)

    def _child_dead(self, child: Child) -> None:
        self.selector.unregister(child.pidfd)
        if child.sock is not None:
            self.selector.unregister(child.sock)
        how = child.reap()
        if self._phase == "draining" and child.name == "control":
            self._phase = "ended"
            return
        if self._phase == "starting" and how == f"exit status {REFUSED}":
            raise SpawnFailed(f"the {child.name} refuses to start", subject=self.layout.state, hint="host.log says why")
        log.error("%s died: %s", child.name, how)
        self.audit.record("process.ended", "", "info", child.name, how)
        if child.name == "auditor":
            self._watch_audit(False)
        if child.name in ("router", "bridge"):
            for worker in self.workers.by_incarnation.values():
                self.workers.kill(worker, Outcome.KILLED, f"the {child.name} ended")
        if child.name == "control":
            self.compilers.abandon()
        if child.name == "zygote":
            self.starts.zygote_ended(child)
        delay = child.delay()
        if self._phase == "starting" or delay == 0:
            self._launch(child.name)
        else:
            log.error("%s is started again in %.1f s", child.name, delay)
            self._relaunches[child.name] = time.monotonic() + delay

    def _child_event(self, child: Child, mask: int) -> None:
        if mask & selectors.EVENT_WRITE:
            child.flush()
        if not mask & selectors.EVENT_READ:
            return
        while child.sock is not None:
            try:
                body, fds = frames.recv_packet(child.sock)
            except BlockingIOError:
                return
            except (EOFError, ConnectionError):
                # Its death follows; a child that hangs up and lives on is of no use either.
                self.selector.unregister(child.sock)
                child.hung_up()
                return
            except frames.DescriptorsLost as error:
                if not self._unanswerable(child, error):
                    return
                continue
            except ProtocolViolation as error:
                self._misbehaved(child, error)
                return
            try:
                self._frame(child, body, fds)
            except (*UNDECODABLE, ProtocolViolation) as error:
                frames.close_all(fds)
                self._misbehaved(child, error)
                return
            except MemoryError:
                # Whatever was half done is done again: its next incarnation is told everything.
                log.error("no memory for what %s says", child.name)
                child.kill()
                return

    def _unanswerable(self, child: Child, error: frames.DescriptorsLost) -> bool:
        """A request whose descriptors we had no room for is refused; False when it was none."""
        try:
            frame = _from_control.decode(error.body) if child.name == "control" else None
        except UNDECODABLE as broken:
            self._misbehaved(child, broken)
            return False
        if not isinstance(frame, frames.StartWorker | frames.Compile):
            self._misbehaved(child, error)
            return False
        log.error("%s refused: %s", type(frame).__name__, error)
        self._answer(refusal(frame.n, error, Outcome.SETUP_ERROR))
        return True

    def _misbehaved(self, child: Child, error: Exception) -> None:
        log.error("%s broke the protocol: %s", child.name, error)
        self.audit.record("protocol.violation", "", "denied", child.name, str(error))
        child.kill()

    def _frame(self, child: Child, body: bytes, fds: list[int]) -> None:
        if child.name == "control":
            frame = _from_control.decode(body)
            if isinstance(frame, frames.StartWorker | frames.SetPolicy | frames.DropPolicy):
                _check_component(frame.component)
            self._control_frame(frame, fds)
            return
        if fds:
            raise ProtocolViolation("descriptors from a process that has none to give", subject=child.name)
        if child.name in ("zygote", PRIVATE):
            answer = _forked.decode(body)
            if isinstance(answer, frames.Forked):
                self.starts.cloned(child, answer)
            else:
                self._up(child)
            return
        message = _from_child.decode(body)
        if isinstance(message, frames.Up):
            self._up(child)
        elif isinstance(message, frames.EndWorker):
            self.starts.end(child, message)
        elif child.name == "auditor":
            text = message.text[: frames.MAX_TEXT]
            self.walls["audit"] = "on" if message.ok else f"failing: {text}"
            log.error("auditor: %s", text or "writes again")
        else:
            raise ProtocolViolation("frame from the wrong process", subject=type(message).__name__)

    def _up(self, child: Child) -> None:
        child.ready = True
        if child.name == PRIVATE:
            self._zygote_up(child, self.pool.private_up)
            return
        if child.name == "auditor":
            self._audit_up()
        elif child.name == "zygote":
            self._zygote_up(child, self._own_zygote_up)
        elif child.name in ("bridge", "router"):
            self._audit_channel(child)
            if child.restarts:
                self.audit.record("process.restarted", "", "info", child.name)
                self.children["control"].send(frames.ProcessRestarted(child.name))
        if self._phase != "starting":
            return
        if child.name == "control":
            self._phase = "running"
            self.served = True
            log.info("ready")
            self.audit.record("host.started", "", "info", self.layout.boot)
            self.on_ready()
        elif all(c.ready for c in self.children.values() if c.name != "control") and not self.children["control"].pid:
            self._launch("control")

    def _own_zygote_up(self, child: Child) -> None:
        self.pool.zygote_up()
        self.compilers.foreign = self.workers.foreign(child.pid)

    def _zygote_up(self, child: Child, up: Callable[[Child], None]) -> None:
        try:
            up(child)
        except OSError as error:
            child.ready = False  # it is gone again, and its death on its way
            log.error("cannot read the zygote's namespaces: %s", error)

    # -- the auditor's channels ------------------------------------------------------------------------------

    def _audit_up(self) -> None:
        self._watch_audit(False)
        try:
            self.channels.connect(self.children["auditor"])
        except OSError as error:
            log.error("no channel to the auditor: %s", error)
            self.children["auditor"].kill()  # its next incarnation gets one
            return
        self._watch_audit(True)
        for name in ("bridge", "router", "control"):
            if self.children[name].sock is not None:
                self._audit_channel(self.children[name])

    def _audit_channel(self, child: Child) -> None:
        if self.children["auditor"].ready:  # else it gets one when the auditor is up
            try:
                self.channels.give(self.children["auditor"], child)
            except OSError as error:
                log.error("no channel to the auditor for %s: %s", child.name, error)
                child.kill()

    def _watch_audit(self, wanted: bool) -> None:
        if self._audit_fd >= 0:
            self.selector.unregister(self._audit_fd)
            self._audit_fd = -1
        if wanted:
            self._audit_fd = self.audit.fileno()
            self.selector.register(self._audit_fd, selectors.EVENT_READ, ("audit", None))

    def _audit_event(self, mask: int) -> None:
        good = True
        if mask & selectors.EVENT_WRITE:
            good = self.audit.on_writable()
        if good and mask & selectors.EVENT_READ:
            good = self.audit.on_readable()
        if not good:
            self._watch_audit(False)

    # -- what control asks -----------------------------------------------------------------------------------

    def _answer(self, frame: msgspec.Struct) -> None:
        self.children["control"].send(frame)

    def _control_frame(self, frame: Any, fds: list[int]) -> None:
        wanted = 1 if isinstance(frame, frames.StartWorker) else 2 if isinstance(frame, frames.Compile) else 0
        if len(fds) != wanted:
            raise ProtocolViolation("wrong number of descriptors", subject=f"{type(frame).__name__}: {len(fds)}")
        if isinstance(frame, frames.Up):
            self._up(self.children["control"])
        elif isinstance(frame, frames.StartWorker):
            self.starts.begin(frame, fds[0], self._phase == "draining")
        elif isinstance(frame, frames.KillWorker):
            if frame.outcome not in REASONS:
                raise ProtocolViolation("a reason this process may not give", subject=frame.outcome)
            worker = self.workers.by_incarnation.get(frame.incarnation)
            if worker is not None:
                self.workers.kill(worker, Outcome(frame.outcome), "stopped by control")
            self._answer(frames.Done(frame.n))
        elif isinstance(frame, frames.Compile):
            self._compile(frame, fds)
        elif isinstance(frame, frames.SetPolicy):
            self._set_policy(frame)
        elif isinstance(frame, frames.DropPolicy):
            self.children["bridge"].send(frames.BridgeDrop(frame.component, frame.purge))
            self._answer(frames.Done(frame.n))
        elif isinstance(frame, frames.Snapshot):
            self._answer(self._living(frame.n, frame.after))
        elif isinstance(frame, frames.Measure):
            self._answer(self._measured(frame.n))
        elif isinstance(frame, frames.StopHost):
            self._answer(frames.Done(frame.n))
            self._drain()
        elif isinstance(frame, frames.Drained) and self._phase == "draining":
            self._phase = "ended"

    def _living(self, n: int, after: int) -> frames.Living:
        live = [
            frames.LivingWorker(w.request.component, w.request.incarnation, w.pid, w.uid)
            for incarnation, w in sorted(self.workers.by_incarnation.items())
            if w.stage == "live" and w.verdict is None and incarnation > after
        ]
        workers = live[: frames.MAX_LIVING]
        processes = [frames.HostProcess("supervisor", os.getpid(), os.getuid(), 0, True)]
        processes += [
            frames.HostProcess(c.name, c.pid, c.uid, max(c.restarts, 0), c.ready) for c in self.children.values()
        ]
        more = len(live) > len(workers)
        stopping = self._phase == "draining"
        return frames.Living(n, workers, processes, self.walls, stopping, more, self.cgroups.controllers)

    def _measured(self, n: int) -> frames.Measured:
        known = [("supervisor", os.getpid())] + [(c.name, c.pid) for c in self.children.values() if c.pidfd >= 0]
        known += [("compiler", compilation.pid) for compilation in self.compilers.at_work]
        live = [w for _, w in sorted(self.workers.by_incarnation.items()) if w.stage == "live" and w.claim is not None]
        known += [(str(w.claim.component), w.pid) for w in live[: frames.MAX_MEASURED] if w.claim is not None]
        measured = confinement.measure(known, self.services.seen_of, self.lost)
        return frames.Measured(n, measured, len(live) > frames.MAX_MEASURED)

    def _set_policy(self, frame: frames.SetPolicy) -> None:
        opened: list[int] = []
        lost: set[str] = set()
        try:
            if len(frame.mounts) > frames.MAX_FDS:
                raise GrantRefused(
                    f"more than {frames.MAX_FDS} bound directories", subject=str(frame.component), hint="bind fewer"
                )
            for spec in frame.mounts:
                fd, missing = open_grant(
                    spec,
                    self.identities.bridge,
                    list(self.config.bind_roots),
                    list(self.config.never_bound),
                    self.mountable,
                )
                opened.append(fd)
                if missing:
                    lost.add(missing)
            policy = frames.BridgePolicy(frame.component, frame.policy, [spec.guest for spec in frame.mounts])
            self.children["bridge"].send(policy, opened)
            self._answer(frames.Done(frame.n, ", ".join(sorted(lost))))
        except FAILURES as error:
            self._answer(refusal(frame.n, error))
        finally:
            frames.close_all(opened)

    # -- compilers -------------------------------------------------------------------------------------------

    def _compile(self, frame: frames.Compile, fds: list[int]) -> None:
        try:
            compilation = self.compilers.begin(frame, fds[0], fds[1], self.children["control"].restarts)
        except FAILURES as error:
            self._answer(refusal(frame.n, error, Outcome.SETUP_ERROR))
            return
        finally:
            frames.close_all(fds)
        self.selector.register(compilation.pidfd, selectors.EVENT_READ, ("compiler-dead", compilation))
        self.selector.register(compilation.channel, selectors.EVENT_READ, ("compiler", compilation))

    def _compiler_reported(self, compilation: Compilation) -> None:
        # Once: what it says later is looked at when it is dead.
        self.selector.unregister(compilation.channel)
        compilation.watched = False
        self.compilers.reported(compilation)

    def _compiler_dead(self, compilation: Compilation) -> None:
        self.selector.unregister(compilation.pidfd)
        if compilation.watched:
            self._compiler_reported(compilation)
        answer = self.compilers.ended(compilation)
        if not self.cgroups.remove(compilation.group):
            self.starts.leftover_groups.add(compilation.group)
        if isinstance(answer, frames.Failed):
            decision = "denied" if answer.outcome in (Outcome.SETUP_ERROR, Outcome.POLICY) else "info"
            self.audit.record(
                "compiler.ended",
                "",
                decision,
                str(compilation.number),
                answer.code,
                detail={"why": answer.message, "outcome": answer.outcome},
            )
        if compilation.generation == self.children["control"].restarts:
            self._answer(answer)

    # -- the end ---------------------------------------------------------------------------------------------

    def _drain(self) -> None:
        if self._phase in ("draining", "ended"):
            return
        if self._phase == "starting":
            self._phase = "ended"
            return
        self._phase = "draining"
        seconds = self.config.shutdown_timeout_ms / 1000
        self._stop_at = time.monotonic() + seconds
        self.children["control"].send(frames.Drain(max(1, int(seconds))))

    def _end(self) -> None:
        """End everything in order: workers, control, router, bridge, zygote, the auditor last."""
        for worker in list(self.workers.by_number.values()):
            self.workers.kill(worker, Outcome.KILLED, "the host stopped")
        self.pool.close()
        for worker in list(self.workers.by_number.values()):
            if worker.pidfd >= 0:
                self.workers.ended(worker)
            self.starts.leftover_groups.add(worker.group)
        self.compilers.end_all()
        for name in ("control", "router", "bridge", "zygote"):
            self._end_child(self.children[name])
        if self._audit_fd >= 0:
            self.channels.say_goodbye(STOP_SECONDS)
        self._end_child(self.children["auditor"])
        for group in self.starts.leftover_groups:
            self.cgroups.remove(group)
        self.cgroups.dissolve()
        log.info("ended")

    def _end_child(self, child: Child) -> None:
        if child.pidfd < 0:
            return
        if child.sock is not None:
            child.sock.close()
            child.sock = None
        poll = select.poll()  # needs no descriptor, of which there may be none
        poll.register(child.pidfd, select.POLLIN)
        if not poll.poll(STOP_SECONDS * 1000):
            log.error("%s does not end by itself", child.name)
            child.kill()
            poll.poll(STOP_SECONDS * 1000)
        child.reap()
