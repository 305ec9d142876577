"""Entry of the router's process: called by whoever put it into its place, with every descriptor it will ever need.

The process has its final uid and root by then. It needs to reach no path: both endpoints come bound and listening.
Its hard limit of descriptors must leave one for each worker and some to spare.
libzmq's one I/O thread is started here, so the caller must have finished whatever wants a single thread.
"""

from __future__ import annotations

import gc
import resource
import socket

import zmq

from supervisor.router.loop import Loop
from supervisor.router.ports import BUS_RCVHWM, WORKER_RCVHWM, WORKER_SNDHWM, Port, SupervisorLink


def run(sup: socket.socket, worker_listen_fd: int, worker_path: str, bus_listen_fd: int, bus_path: str) -> int:
    """Serve until the supervisor hangs up; the process's exit status.

    Args:
        sup: SEQPACKET socketpair to the supervisor; owned.
        worker_listen_fd: bound, listening stream socket for workers; owned (by libzmq).
        worker_path: where it is bound, as the supervisor connects to it.
        bus_listen_fd: the same for control.
        bus_path: the same for control.

    Raises:
        ProtocolViolation: the supervisor sent what is no frame.
    """
    # libzmq aborts the process when accept() finds no descriptor left: there is one for each worker.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with sup, zmq.Context() as context:
        workers = Port(context, worker_listen_fd, worker_path, WORKER_SNDHWM, WORKER_RCVHWM)
        bus = Port(context, bus_listen_fd, bus_path, 0, BUS_RCVHWM)
        try:
            loop = Loop(workers, bus, SupervisorLink(sup))
            gc.freeze()
            loop.run()
        finally:
            workers.close()
            bus.close()
    return 0
