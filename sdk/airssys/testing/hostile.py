"""Hostile workers: programs of the test as native code behind every wall, and in controls behind none or some."""

from __future__ import annotations

import base64
import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from airssys.testing.host import Host, Worker
from airssys.testing.link import ANSWER_SECONDS, HostError
from airssys.testing.program import Program
from airssys.testing.result import Result, cannot_show

RECORD_SECONDS = 10.0
"""Longest wait for the audit record of a worker's end."""


def _gained(result: Result) -> bool:
    return result.gained


class Pending:
    """A program that runs while the test goes on."""

    def __init__(self, future: Future[Any], made: Callable[[dict[str, Any]], Result], seconds: float) -> None:
        self._future = future
        self._made = made
        self._seconds = seconds

    def result(self) -> Result:
        """Wait for its end. Raises HostError, TimeoutError."""
        return self._made(self._future.result(self._seconds + ANSWER_SECONDS))


class HostileWorker(Worker):
    """A component whose compiled code was replaced; nothing in worker, zygote or supervisor knows of it.

    After a program that ended the worker the host starts another by itself, and the next program runs there.
    """

    def __init__(self, host: Host, component: str, code: bytes = b"") -> None:
        super().__init__(host, component)
        self.code = code

    # -- behind every wall ----------------------------------------------------------------------------------------

    def run(self, program: Program, *, seconds: float = 20.0) -> Result:
        """Run a program in the worker.

        Args:
            seconds: how long the test waits for the reply; then the outcome is `deadline`.

        Raises:
            HostError: the host could not deliver it, or it is no program.
        """
        return self.start_program(program, seconds=seconds).result()

    def start_program(self, program: Program, *, seconds: float = 20.0) -> Pending:
        """`run` without waiting. Programs of one worker run one after the other, those of several at once."""
        future = self.host.link.begin("run", component=self.id, program=program.wire(), seconds=seconds)
        return Pending(future, lambda body: self._result(program, body), seconds)

    def _result(self, program: Program, body: dict[str, Any]) -> Result:
        ended = body["outcome"] != "answered"
        return _result(program, body, "a worker", lambda: self._records(body["after"], ended))

    def _records(self, after: int, ended: bool) -> list[dict[str, Any]]:
        end = time.monotonic() + RECORD_SECONDS
        while True:
            records = self.audit(after=after)
            if not ended or any(record["event"] == "worker.ended" for record in records):
                return records
            if time.monotonic() > end:
                raise HostError("E_TIMEOUT", "the end of the worker is not in the audit log", self.id)
            time.sleep(0.01)

    # -- its two channels -----------------------------------------------------------------------------------------

    def frames(self, descriptor: int, *packets: bytes, answers: int = 0, size: int = 4096) -> Result:
        """Write bytes to a channel of the worker as native code, and read what comes back.

        Args:
            descriptor: 3, the bridge, where each write is a packet; 4, the router, a stream.
            packets: written one after the other.
            answers: how many times to read then; `Result.frames` holds what each read gave.
            size: most bytes of one read.

        Returns:
            `answered` when the worker lived on; else how it ended, as `policy` when the other end found a violation.

        Raises:
            HostError: as `run`.
        """
        program = Program()
        for packet in packets:
            program.syscall("sendto", descriptor, program.data(packet), len(packet), 0, 0, 0)
        room = program.room(answers * size)
        for number in range(answers):
            program.syscall("recvfrom", descriptor, room + number * size, size, 0, 0, 0)
        program.answer(room, answers * size)
        result = self.run(program)
        lengths = result.results[len(packets) :]
        if result.answered and 0 in lengths:
            # The other end hung up, and the reply was quicker than the worker's end.
            (end, *_) = [record for record in self._records(result.after, True) if record["event"] == "worker.ended"]
            result = dataclasses.replace(result, outcome=end["result"], detail=end["detail"].get("detail", ""))
        return dataclasses.replace(
            result,
            frames=tuple(result.data[at * size : at * size + max(0, length)] for at, length in enumerate(lengths)),
        )

    def bridge(self, name: str, *arguments: Any) -> list[bytes]:
        """The packets of a request to the bridge, as an honest worker writes them. Raises HostError.

        Args:
            name: of the operation: `storage-get`, `fs-read`, `log`, ...
            arguments: whatever one likes; whether they fit the operation is for the bridge to find out.
        """
        packets = self.host.link.ask("bridge-packets", name=name, arguments=[_bytes_in(value) for value in arguments])
        return [base64.b64decode(packet) for packet in packets]

    def bridge_answer(self, packet: bytes) -> tuple[int, Any]:
        """Kind and value of an answer of the bridge. Raises HostError when it is none."""
        answer = self.host.link.ask("bridge-answer", packet=packet)
        return answer["kind"], answer["value"]

    def router(self, name: str, payload: bytes = b"", **fields: Any) -> bytes:
        """The bytes of a message to the router, as an honest worker writes them. Raises HostError.

        Args:
            name: of the frame: `Send`, `Request`, `Reply`, ...
            payload: what it carries.
            fields: of the frame; a component may be written `"acme/reader/0"`.
        """
        plain = {key: _bytes_in(value) for key, value in fields.items()}
        (message,) = self.host.link.ask("router-message", name=name, fields=plain, payload=payload)
        return base64.b64decode(message)

    # -- without the cage -----------------------------------------------------------------------------------------

    def control(
        self,
        program: Program,
        *,
        without: Sequence[str] | None = None,
        only: Sequence[str] = (),
        scene: str = "",
        seconds: float = 10.0,
    ) -> Result:
        """Run the same machine code in a process that is no worker, as a user without privileges.

        Args:
            without: every wall of the cage stands but these; not given, none stands but those in `only`.
            only: the walls that stand.
            scene: what the process is before (`contained`: all capabilities in namespaces of its own, which many walls
                need in order to stand, `terminal`, `unlimited`); `ordinary`, or `contained` where walls are to stand.
            seconds: longest run; then the outcome is `deadline`.

        Raises:
            HostError: no such wall or scene.
            ValueError: both `without` and `only` are given.
        """
        if without is not None and only:
            raise ValueError("either walls that stand or walls that do not")
        known = self.host.controls.hello["walls"]
        if unknown := [wall for wall in (*(without or ()), *only) if wall not in known]:
            raise HostError("E_SELFTEST", "no such wall", ", ".join(unknown), f"there are {', '.join(known)}")
        walls = list(only) if without is None else [wall for wall in known if wall not in without]
        body = self.host.controls.ask(
            "control",
            program=program.wire(),
            walls=walls,
            scene=scene or ("contained" if walls else "ordinary"),
            code=self.code,
            seconds=seconds,
            within=seconds,
        )
        if without is not None:
            place = f"a process behind every wall but {', '.join(without) or 'none'}"
        else:
            place = f"a process behind {', '.join(only)} alone" if only else "a process without the cage"
        return _result(program, body, place, list)

    def alone(
        self, program: Program, *, worked: Callable[[Result], bool] = _gained, scene: str = "contained"
    ) -> dict[str, str]:
        """What each wall does against a program when it is the only one: wall to `stops`, `passes` or `no wall`.

        `no wall` means that it cannot stand by itself in this scene.
        """
        found = {}
        for wall in self.host.controls.hello["walls"]:
            result = self.control(program, only=[wall], scene=scene)
            found[wall] = "no wall" if result.outcome == "wall" else "passes" if worked(result) else "stops"
        return found

    def assert_works_without(
        self,
        program: Program,
        *walls: str,
        worked: Callable[[Result], bool] = _gained,
        scene: str = "",
        unless: Mapping[str, str] | None = None,
        seconds: float = 10.0,
    ) -> Result:
        """The positive control: the attack works where the cage does not stand, or does not stand but for these walls.

        Args:
            walls: every other wall stands; none given, no wall does.
            worked: whether a result is the attack's success; by default the last step had no error.
            scene: as in `control`.
            unless: outcomes or errors of the last step by which a machine shows that it cannot show the attack, each
                with the reason; the test is skipped with it. As `{"ENOSYS": "this kernel has no such call"}`.
            seconds: longest run.

        Raises:
            AssertionError: it does not work there either, so it shows nothing.
        """
        __tracebackhide__ = True
        result = self.control(program, without=walls or None, scene=scene, seconds=seconds)
        if result.outcome == "wall":
            cannot_show(f"a wall of the control cannot stand here: {result.detail}")
        if not worked(result):
            for name, reason in (unless or {}).items():
                if name in (result.outcome, result.error()):
                    cannot_show(reason)
            raise AssertionError(f"the control does not show the attack, {result.describe()}")
        return result


def _result(program: Program, body: dict[str, Any], place: str, audit: Callable[[], list[dict[str, Any]]]) -> Result:
    return Result(
        outcome=body["outcome"],
        detail=body["detail"],
        results=tuple(body["results"]),
        data=base64.b64decode(body["data"]),
        pid=body["pid"],
        program=program,
        place=place,
        after=body.get("after", -1),
        _audit=audit,
    )


def _bytes_in(value: Any) -> Any:
    """JSON has no bytes: `{"bytes": BASE64}` stands for them."""
    if isinstance(value, bytes | bytearray):
        return {"bytes": base64.b64encode(value).decode()}
    if isinstance(value, list | tuple):
        return [_bytes_in(item) for item in value]
    return value
