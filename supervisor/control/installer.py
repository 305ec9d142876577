"""From uploaded bytes to an installed instance: judge, plan, check what the operator bound and agreed to, record.

A plan is nothing that must be kept: it is the package's id, its files are in the store, and installing judges the
stored bytes again. Files of plans that nobody installed are swept when control starts, the oldest of too many sooner.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import os
import time
from collections.abc import Callable, Mapping

from sandbox.types import CallPath, ComponentId
from sandbox.wire.compile_result import CompileResult
from supervisor.control import environment
from supervisor.control.audit_link import AuditLink
from supervisor.control.bodies import CapabilityAnswer, InstallRequest, PlanAnswer
from supervisor.control.compile import Compiler
from supervisor.control.errors import BindingError, ConsentError, NotFoundError, ValidationError
from supervisor.control.package_store import PackageStore
from supervisor.control.registry import Consent, InstanceRow, PackageRow, Registry
from supervisor.control.spec import ComponentSpec
from supervisor.control.verifier import Checked, Verifier
from supervisor.packages.package import PackageFiles
from supervisor.policy import refuse_binding

MAX_PLANS = 16
"""Uploaded packages kept at a time that nobody installed yet."""


class Installer:
    """Plans and installs.

    Args:
        default_level: "review" makes every new grant need consent, whatever the publisher's level.
        limit_maxima: the most a manifest may ask for, by key of its [limits].
        bind_roots: directories below which host paths may be bound.
        forbidden_paths: more never bound beside the built-in list: the host's own directories, the operator's.
        path_for: which path the operator wants for a component.
    """

    def __init__(
        self,
        *,
        audit: AuditLink,
        registry: Registry,
        store: PackageStore,
        verifier: Verifier,
        compiler: Compiler,
        default_level: str,
        limit_maxima: Mapping[str, int],
        bind_roots: tuple[str, ...],
        forbidden_paths: tuple[str, ...],
        path_for: Callable[[ComponentId], CallPath],
    ) -> None:
        self._audit, self._registry, self._store = audit, registry, store
        self._verifier, self._compiler = verifier, compiler
        self._default_level = default_level
        self._limit_maxima = limit_maxima
        self._bind_roots, self._forbidden = bind_roots, forbidden_paths
        self._path_for = path_for
        self._plans: collections.OrderedDict[str, None] = collections.OrderedDict()

    def sweep(self) -> None:
        """Remove the files of packages that are not installed."""
        self._store.sweep({package.id for package in self._registry.packages()}, unfinished=True)

    async def plan(self, files: PackageFiles) -> PlanAnswer:
        """Judge and compile uploaded bytes, keep them, and say what installing them would mean.

        Raises:
            PackageError, TrustStoreError: not believed.
            RollbackError: an older release, or this one with other content.
            LimitError: it asks for more than the operator allows.
            CompileError: it does not compile.
        """
        checked = await asyncio.to_thread(self._verifier.check, files)
        self._registry.check_release(checked.spec.name, checked.spec.release, checked.spec.package)
        checked.spec.check_limits(self._limit_maxima)
        # Whichever instance it will be: most have one, and an override for one of several is compiled when it starts.
        info = await self._compiled(files.wasm, checked.spec, _component(checked.spec.name, "0"), patient=False)
        self._remember(checked.spec.package)  # first, or an install beside us would sweep it
        await asyncio.to_thread(self._store.put, checked.spec.package, files)
        return self._answer(checked, len(files.wasm), info.imports, info.exports)

    async def _compiled(
        self, wasm: bytes, spec: ComponentSpec, component: ComponentId, *, patient: bool = True
    ) -> CompileResult:
        compiled = await self._compiler.get(wasm, spec.name, self._path_for(component), patient=patient)
        os.close(compiled.fd)
        spec.check_imports(compiled.info.imports)
        spec.check_exports(compiled.info.exports)
        return compiled.info

    def _remember(self, package: str) -> None:
        self._plans[package] = None
        self._plans.move_to_end(package)
        if len(self._plans) > MAX_PLANS:
            oldest, _ = self._plans.popitem(last=False)
            if oldest not in {row.id for row in self._registry.packages()}:
                self._store.drop(oldest)

    def _answer(self, checked: Checked, size: int, imports: dict[str, list[str]], exports: list[str]) -> PlanAnswer:
        spec = checked.spec
        mine = [row for row in self._registry.instances() if row.component.package == spec.name]
        widened = sorted({line for row in mine for line in self._widened(spec, row)})
        return PlanAnswer(
            plan=spec.package,
            name=spec.name,
            version=spec.version,
            release=spec.release,
            description=spec.description,
            digest=spec.digest,
            size=size,
            keyid=checked.keyid,
            publisher=checked.publisher,
            level=checked.level,
            consent_needed=self._needs_consent(checked, not mine, widened),
            world=spec.world,
            capabilities=[CapabilityAnswer(line.text, line.risk, line.why) for line in spec.capabilities()],
            widened=widened,
            roots=spec.guest_roots(),
            imports=imports,
            exports=exports,
            instances=[str(row.component) for row in mine],
        )

    @staticmethod
    def _widened(spec: ComponentSpec, row: InstanceRow) -> list[str]:
        """What is asked for beyond what was agreed to for this instance."""
        return sorted({line.text for line in spec.capabilities()} - set(row.consent.capabilities))

    def _needs_consent(self, checked: Checked, new: bool, widened: list[str]) -> bool:
        if not new:
            return bool(widened)
        return checked.level != "trusted" or self._default_level == "review"

    async def install(self, request: InstallRequest, user: str) -> ComponentId:
        """Record the instance; the caller starts it.

        Raises:
            NotFoundError: no such plan.
            ConsentError, BindingError, LimitError, RollbackError, ValidationError, PackageError.
        """
        if not _is_package_id(request.plan):
            raise ValidationError("a plan is 64 hexadecimal digits", subject=request.plan[:80])
        try:
            files = await asyncio.to_thread(self._store.get, request.plan)
        except NotFoundError:
            raise NotFoundError("no such plan", subject=request.plan, hint="upload the package again") from None
        checked = await asyncio.to_thread(self._verifier.check, files)
        spec = checked.spec
        spec.check_limits(self._limit_maxima)
        component = _component(spec.name, request.instance)
        existing = {row.component: row for row in self._registry.instances()}.get(component)
        widened = self._widened(spec, existing) if existing is not None else []
        if not request.consent and self._needs_consent(checked, existing is None, widened):
            raise ConsentError(
                "what this component asks for needs the operator's consent",
                subject=", ".join(widened) or spec.name,
                hint="review the capabilities, then agree with --yes",
            )
        bindings = self._check_bindings(spec, request.bindings, existing)
        env, args = _environment(request, existing)
        self._registry.check_release(spec.name, spec.release, spec.package)
        info = await self._compiled(files.wasm, spec, component)
        await self._audit.record_soon(
            "package.install",
            "allowed",
            component=str(component),
            object=spec.package,
            detail={
                "user": user,
                "version": spec.version,
                "release": spec.release,
                "digest": spec.digest,
                "keyid": checked.keyid,
                "publisher": checked.publisher,
                "bindings": " ".join(f"{guest}={host}" for guest, host in sorted(bindings.items())),
                # Names alone: who changed what can be seen, and the log repeats no value.
                "env": " ".join(sorted(env))[:1024],
                "args": len(args),
            },
        )
        now = time.time()
        self._registry.install(
            PackageRow(
                id=spec.package,
                name=spec.name,
                version=spec.version,
                release=spec.release,
                digest=spec.digest,
                keyid=checked.keyid,
                publisher=checked.publisher,
                manifest=spec.predicate,
                imports=info.imports,
                installed_at=now,
                installed_by=user,
            ),
            InstanceRow(
                component=component,
                package=spec.package,
                running=request.start,
                bindings=bindings,
                consent=Consent(user, now, [line.text for line in spec.capabilities()], request.consent),
                created_at=now if existing is None else existing.created_at,
                env=env,
                args=args,
                crossing=info.crossing,
            ),
        )
        self._plans.pop(spec.package, None)
        self.drop_unused()
        return component

    def drop_unused(self) -> None:
        """Remove the files of packages that are neither installed nor planned."""
        self._store.sweep({package.id for package in self._registry.packages()} | set(self._plans))

    def _check_bindings(
        self, spec: ComponentSpec, asked: dict[str, str], existing: InstanceRow | None
    ) -> dict[str, str]:
        roots = spec.guest_roots()
        kept = existing.bindings if existing is not None else {}
        bindings = {root: kept[root] for root in roots if root in kept} | asked
        for guest in bindings:
            if guest not in roots:
                raise BindingError(
                    "the component has no such guest directory",
                    subject=guest[:200],
                    hint=f"it asks for {', '.join(roots)}" if roots else "it asks for no files",
                )
        for root in roots:
            if root not in bindings:
                raise BindingError(
                    "a guest directory is not bound", subject=root, hint=f"add --bind {root}=/a/real/directory"
                )
        return {guest: self._check_host_path(guest, host) for guest, host in bindings.items()}

    def _check_host_path(self, guest: str, host: str) -> str:
        """The real path, if it may be bound. The supervisor refuses again when it mounts it."""
        if not host.startswith("/") or "\0" in host or len(host) > 4096:
            raise BindingError("a host directory must be an absolute path", subject=f"{guest}={host[:200]}")
        if os.path.normpath(host) != host or host.startswith("//"):
            raise BindingError("a host directory must be in its plain spelling", subject=f"{guest}={host[:200]}")
        real = host
        # Control may live in a narrow view of the file system; what it cannot see only the supervisor can judge.
        with contextlib.suppress(OSError):
            real = os.path.realpath(host, strict=True)
            if not os.path.isdir(real):
                raise BindingError("a bound path must be a directory", subject=f"{guest}={host}")
        reason = refuse_binding(real, self._bind_roots, self._forbidden)
        if reason is not None:
            raise BindingError(f"this path may not be bound: {reason}", subject=real, code="E_FORBIDDEN_PATH")
        return real


def _environment(request: InstallRequest, existing: InstanceRow | None) -> tuple[dict[str, str], list[str]]:
    """What the instance is told from now on: what is given, or what it was told before."""
    env = request.env if request.env is not None else existing.env if existing is not None else {}
    args = request.args if request.args is not None else existing.args if existing is not None else []
    environment.check(env, args)
    return env, args


def _is_package_id(text: str) -> bool:
    return len(text) == 64 and all(character in "0123456789abcdef" for character in text)


def _component(name: str, instance: str) -> ComponentId:
    try:
        return ComponentId.parse(f"{name}/{instance}")
    except ValueError as error:
        raise ValidationError(str(error), hint="an instance is letters, digits and dashes") from error
