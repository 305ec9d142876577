"""The zygote: one warm process with the engine imported, from which every worker is cloned.

It is exec'd by the supervisor inside a user namespace the supervisor owns, imports and warms up, shuts itself into an
empty root, and then does one thing: take two descriptors, clone a worker that is a child of the supervisor (so that
the supervisor itself waits for it), and forget the descriptors. It has one thread, no secret, no component's bytes.
"""

from __future__ import annotations

import errno
import gc
import os
import socket
import sys
from typing import Any, NoReturn

import msgspec
from wasmtime import component as wasmtime_component

from sandbox import cage, host, walls, worker
from sandbox.engine import make_engine, reservation
from sandbox.errors import ProtocolViolation
from sandbox.kernel import caps, heap, landlock, libc, mounts, process, seccomp
from sandbox.warm_up import gather
from sandbox.warm_up.rehearsal import rehearse
from sandbox.wire import supervisor_frames
from sandbox.wire.supervisor_frames import Fork, Forked, Up, recv_packet, send_frame

KEPT = (caps.SETUID, caps.SETGID, caps.SYS_ADMIN)
"""What the zygote keeps in its own user namespace: to give workers their uid and their pid namespace. Without
CAP_SYS_PTRACE it cannot look into a worker it has cloned."""

REHEARSALS = 4
"""After the code was put together: copies must be warm too."""


def main(profile: str = "paranoid", lost: frozenset[str] = frozenset(), private: bool = False) -> NoReturn:
    """Entry point: supervisor's channel on fd 3, nothing else open but stderr.

    Args:
        profile: whose engine workers get.
        lost: walls the host runs without.
        private: whether it is for one worker alone, which shares no page of its memory with a sibling.
    """
    process.set_name("airssys-zygote")
    process.die_with_parent()
    # Before the engine installs its fault handlers, which workers keep; nothing else is left to reset in them.
    process.reset_signals()
    supervisor = socket.socket(fileno=3)
    libc.keep_heap_in_brk()
    worker.preload()
    engine = make_engine(profile, counted=True)
    linker = wasmtime_component.Linker(engine)
    host.define(linker)
    rehearse(engine, linker)
    if not private:
        gather.look_up_names()
        gather.together(gather.code_in_use(lambda: rehearse(engine, linker)))
        for _ in range(REHEARSALS):
            rehearse(engine, linker)
    own_uids = _maps_a_range()
    user_sysctl = None if own_uids else os.open("/proc/sys/user", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    if own_uids:
        _one_user_namespace_each()
    blueprint = cage.Blueprint(
        first_filter=seccomp.compile_policy("worker-load"),
        last_filter=seccomp.compile_policy("worker"),
        landlock_abi=landlock.abi(),
        mapped=process.address_space(),
        reservation=reservation(profile),
        own_uids=own_uids,
        user_sysctl=user_sysctl,
        lost=lost,
    )
    own_filter = seccomp.compile_policy("zygote")
    process.no_writable_code()
    if "mseal" not in lost:
        process.seal_executable()
    if process.thread_count() != 1:
        raise RuntimeError("the zygote must have one thread")
    mounts.enter_empty_root()
    caps.drop_bounding(keep=KEPT)
    caps.keep_only(*KEPT)
    process.no_dump()
    process.die_with_parent()
    process.no_new_privileges()
    # No file, no TCP, no signal to the supervisor, whose uid this process has. Workers inherit that.
    own = [] if user_sysctl is None else [landlock.Allowed(user_sysctl, landlock.WRITE_FILE)]
    landlock.restrict(blueprint.landlock_abi, "landlock" in lost, allowed=own)
    seccomp.load(own_filter)
    gc.collect()
    gc.freeze()

    heap.fill_holes()
    send_frame(supervisor, Up())
    _serve(supervisor, engine, linker, blueprint)


def _maps_a_range() -> bool:
    with open("/proc/self/uid_map", encoding="ascii") as file:
        return len(file.readlines()) > 1


def _one_user_namespace_each() -> None:
    with open("/proc/sys/user/max_user_namespaces", "w", encoding="ascii") as file:
        file.write("1")


def _serve(supervisor: socket.socket, engine: Any, linker: Any, blueprint: cage.Blueprint) -> NoReturn:
    while True:
        try:
            body, fds = recv_packet(supervisor)
        except EOFError:
            os._exit(0)
        except supervisor_frames.DescriptorsLost as error:
            refused = msgspec.msgpack.decode(error.body, type=Fork)
            send_frame(supervisor, Forked(refused.n, -errno.EMFILE))
            continue
        request = msgspec.msgpack.decode(body, type=Fork)
        if len(fds) < 2:
            raise ProtocolViolation("a fork brings two channels", subject=str(len(fds)))
        try:
            pid = libc_clone()
        except OSError as error:
            pid = -(error.errno or 1)
        if pid == 0:
            moved, groups = _placed(blueprint, fds)
            worker.main(engine, linker, moved, request.uid, groups)
        supervisor_frames.close_all(fds)
        send_frame(supervisor, Forked(request.n, pid))


def _placed(blueprint: cage.Blueprint, fds: list[int]) -> tuple[cage.Blueprint, list[int]]:
    """In the worker: the channels at 3 and 4, the control groups' descriptors after them, nothing else open."""
    kept = [] if blueprint.user_sysctl is None else [blueprint.user_sysctl]
    process.place_fds(*fds, *kept)
    end = 3 + len(fds)
    if kept:
        blueprint = msgspec.structs.replace(blueprint, user_sysctl=end)
    return blueprint, list(range(5, end))


def libc_clone() -> int:
    """Clone a worker into a pid namespace of its own, as a child of the supervisor."""
    return process.raw_clone(process.CLONE_PARENT | process.CLONE_NEWPID)


if __name__ == "__main__":
    main(sys.argv[1], walls.parse(sys.argv[2]), "private" in sys.argv[3:])
