"""Entry of the router's process: called by whoever put it into its place, with every descriptor it will ever need.

The process has its final uid and root by then. It needs to reach no path: the bus and the clients' socket come bound
and listening, a worker's channel comes as a descriptor. Its hard limit of descriptors must leave one for each worker
and some to spare.
libzmq's one I/O thread is started here, so the caller must have finished whatever wants a single thread.
"""

from __future__ import annotations

import gc
import resource
import socket

import zmq

from supervisor.router.loop import Loop
from supervisor.router.ports import Port, SupervisorLink


def run(
    sup: socket.socket, bus_listen_fd: int, bus_path: str, bus_uid: int, clients: socket.socket | None = None
) -> int:
    """Serve until the supervisor hangs up; the process's exit status.

    Args:
        sup: SEQPACKET socketpair to the supervisor; owned.
        bus_listen_fd: bound, listening stream socket for control; owned (by libzmq).
        bus_path: where it is bound.
        bus_uid: control's, who alone may connect.
        clients: bound, listening stream socket for programs outside; owned.

    Raises:
        ProtocolViolation: the supervisor sent what is no frame.
    """
    # One for each worker; libzmq aborts the process when accept() on the bus finds none left.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with sup, zmq.Context() as context:
        bus = Port(context, bus_listen_fd, bus_path, bus_uid)
        try:
            loop = Loop(bus, SupervisorLink(sup), clients)
            gc.freeze()
            loop.run()
        finally:
            bus.close()
    return 0
