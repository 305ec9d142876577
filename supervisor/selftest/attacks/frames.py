"""What a frame attack is: bytes for one channel, why they must be refused, and the good frames they are bent from."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from supervisor.selftest.program import Program

_WAITS_FOR_EVER = 1 << 16


@dataclass(frozen=True)
class FrameAttack:
    """One attack of an id's row.

    Attributes:
        packets: sent one after the other (fd 3: packets of their own; fd 4: one stream).
        why: part of the sentence by which the worker is ended, in its outcome and in the audit log.
        outcome: how it is ended.
        times: how often the last packet is sent.
    """

    id: str
    name: str
    packets: tuple[bytes, ...]
    why: str
    outcome: str = "policy"
    times: int = 1

    def program(self, fd: int) -> Program:
        """Send everything and wait for the end; a worker that is not ended runs into its deadline."""
        program = Program()
        for number, packet in enumerate(self.packets):
            times = self.times if number == len(self.packets) - 1 else 1
            program.syscall("sendto", fd, program.data(packet), len(packet), 0, 0, 0, times=times)
        program.syscall("recvfrom", 4, program.room(4096), 4096, 0, 0, 0, times=_WAITS_FOR_EVER)
        return program


def send_only(fd: int, packets: Sequence[bytes]) -> Program:
    """Send everything and end like an honest worker."""
    program = Program()
    for packet in packets:
        program.syscall("sendto", fd, program.data(packet), len(packet), 0, 0, 0)
    return program


def mutations(seeds: Sequence[bytes], count: int, seed: int) -> Iterator[bytes]:
    """Good frames with some bytes changed, removed, doubled or put in; the same ones for the same seed."""
    rng = random.Random(seed)  # noqa: S311 - reproducible, not secret
    for _ in range(count):
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(data) + 1)
            kind = rng.randrange(4)
            if kind == 0 and at < len(data):
                data[at] = rng.choice((0, 1, 0x7F, 0x80, 0xC1, 0xFF, rng.randrange(256)))
            elif kind == 1:
                del data[at : at + rng.randint(1, 9)]
            elif kind == 2:
                data[at:at] = rng.randbytes(rng.randint(1, 9))
            else:
                data[at:at] = data[: rng.randint(0, 40)]
        yield bytes(data)
