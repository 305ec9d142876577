"""Whether this host believes a package: signature, digest, manifest, publisher, revocation, in that order."""

from __future__ import annotations

import msgspec

from supervisor.control.spec import ComponentSpec, from_manifest
from supervisor.packages.envelope import verify
from supervisor.packages.package import PackageFiles
from supervisor.packages.trust import TrustStore


class Checked(msgspec.Struct, frozen=True):
    """A package this host believes. `level` is "trusted" or "review"; a denied publisher never gets here."""

    spec: ComponentSpec
    keyid: str
    publisher: str
    level: str


class Verifier:
    """Judges packages against the trust store as it is at that moment.

    Args:
        trust: the trust store.
    """

    def __init__(self, trust: TrustStore) -> None:
        self.trust = trust

    def check(self, files: PackageFiles) -> Checked:
        """Verify the bytes.

        Raises:
            PackageError: with the code of the first check that failed.
            TrustStoreError: the trust store cannot be read; then nothing is believed.
        """
        package = verify(files.wasm, files.envelope, self.trust.keys(), manifest_toml=files.manifest)
        decision = self.trust.authorize(package.manifest.component.name, package.keyids, digest=package.digest)
        return Checked(
            spec=from_manifest(package.manifest, package.digest),
            keyid=decision.keyids[0],
            publisher=decision.publisher,
            level=decision.level,
        )
