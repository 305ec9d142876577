"""Control's process, from its inherited descriptors to its end.

It takes up the registry, learns from supervisor and router what lives, serves the API, and ends when the supervisor
hangs up. Killed at any point it comes back to the same state; the workers do not notice.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable

from sandbox import engine
from sandbox.types import PATHS
from sandbox.wire.router_frames import Event
from supervisor.config import HostConfig
from supervisor.control.api import Api
from supervisor.control.audit_link import AuditLink
from supervisor.control.cache import Cache
from supervisor.control.compile import Compiler
from supervisor.control.context import Control
from supervisor.control.errors import UnavailableError
from supervisor.control.installer import Installer
from supervisor.control.lifecycle import Lifecycle
from supervisor.control.package_store import PackageStore
from supervisor.control.registry import Registry
from supervisor.control.router_link import RouterLink
from supervisor.control.shelf import Shelf
from supervisor.control.starter import Starter
from supervisor.control.supervisor_link import SupervisorLink, Unasked
from supervisor.control.verifier import Verifier
from supervisor.packages.trust import TrustStore

_log = logging.getLogger("airssys.control")


def run(
    sup: socket.socket,
    api_listen: socket.socket,
    bus_path: str,
    audit: socket.socket | None,
    state_dir: str,
    config: HostConfig,
    *,
    owner: int | None = None,
) -> None:
    """Be control until the supervisor hangs up.

    Args:
        sup: SEQPACKET socketpair to the supervisor.
        api_listen: listening Unix stream socket of the API.
        bus_path: the router's bus.
        audit: SEQPACKET channel to the auditor; None when the supervisor sends one after `Up`.
        state_dir: a directory of control's own (0700).
        config: the host's configuration.
        owner: the uid that started the host and may use its API, beside root and the admins.

    Raises:
        RegistryError, CacheError: control's own files cannot be used.
    """
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(name)s: %(levelname)s: %(message)s")
    # asyncio reports each connection it has no descriptor for with a traceback: anybody could fill the log.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL + 1)
    os.umask(0o077)
    # A Ctrl-C in the terminal reaches every process of the host; the supervisor alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asyncio.run(
        serve(
            sup=sup,
            api_listen=api_listen,
            bus_path=bus_path,
            audit=audit,
            state_dir=state_dir,
            config=config,
            owner=owner,
        )
    )


async def serve(
    *,
    sup: socket.socket,
    api_listen: socket.socket,
    bus_path: str,
    audit: socket.socket | None,
    state_dir: str,
    config: HostConfig,
    owner: int | None = None,
    fingerprint: Callable[[str, str], str] = engine.fingerprint,
) -> None:
    """The body of `run`, in the running loop."""
    gone = asyncio.Event()

    def on_gone(why: str) -> None:
        _log.info("%s: control ends", why)
        gone.set()

    # Until the first await below no event can arrive, so these may refer to what is made a line later.
    def on_supervisor(frame: Unasked) -> None:
        lifecycle.on_supervisor(frame)

    def on_router(event: Event) -> None:
        lifecycle.on_router(event)

    def on_audit(channel: socket.socket) -> None:
        auditor.replace(channel)

    registry = Registry(os.path.join(state_dir, "registry.db"))
    supervisor = SupervisorLink(sup, on_supervisor, on_audit, on_gone)
    auditor = AuditLink(audit)
    operators = (0, os.geteuid() if owner is None else owner, *config.admins)
    router = RouterLink(bus_path, on_router, config.messaging.settings(operators))
    store = PackageStore(os.path.join(state_dir, "packages"))
    trust = TrustStore(os.path.join(state_dir, "trust"))
    verifier = Verifier(trust)
    directory, key = os.path.join(state_dir, "cache"), os.path.join(state_dir, "cache.key")
    shelf = Shelf()
    caches = {path: Cache(directory, key, fingerprint(config.profile, path), shelf) for path in PATHS}
    compiler = Compiler(supervisor, auditor, caches, config.compile_memory, -(-config.compile_timeout_ms // 1000))
    starter = Starter(
        supervisor=supervisor,
        router=router,
        audit=auditor,
        registry=registry,
        store=store,
        verifier=verifier,
        compiler=compiler,
        start_timeout=config.start_timeout_ms / 1000,
        limit_maxima=config.limit_maxima,
        path_for=config.path_for,
    )
    lifecycle = Lifecycle(
        supervisor=supervisor,
        router=router,
        audit=auditor,
        registry=registry,
        starter=starter,
        on_drained=supervisor.drained,
        supervisors=config.supervisors,
    )
    installer = Installer(
        audit=auditor,
        registry=registry,
        store=store,
        verifier=verifier,
        compiler=compiler,
        default_level=config.install_policy,
        limit_maxima=config.limit_maxima,
        bind_roots=config.bind_roots,
        forbidden_paths=config.never_bound,
        path_for=config.path_for,
    )
    api = Api(
        Control(
            config=config,
            supervisor=supervisor,
            router=router,
            audit=auditor,
            registry=registry,
            trust=trust,
            installer=installer,
            lifecycle=lifecycle,
        ),
        (*config.admins, *(() if owner is None else (owner,))),
    )
    try:
        installer.sweep()
        await lifecycle.adopt()
        await api.start(api_listen)
        supervisor.up()
        await gone.wait()
    except UnavailableError:
        if not gone.is_set():
            raise
    finally:
        await api.close()
        api_listen.close()
        await lifecycle.close()
        auditor.close()
        supervisor.close()
        await router.close()
        registry.close()
