"""What can be refused about a package, a key, a trust store or a file a person wrote.

The codes of `PackageError` are one closed list, each with a test of its own;
`docs/reference/errors.md` explains them.
"""

from __future__ import annotations

from sandbox.errors import AirssysError


class PackageError(AirssysError):
    """A package is not what its publisher signed, or not from a publisher this host believes.

    Codes: E_NO_ENVELOPE, E_JSON, E_SCHEMA, E_TYPE, E_SUBJECT, E_DIGEST, E_SIZE, E_LAYER, E_ALG, E_WEAK_KEY, E_DUP_KEY,
    E_BAD_SIG, E_THRESHOLD, E_UNTRUSTED, E_SCOPE, E_DENIED, E_REVOKED, E_ROLLBACK, E_PACKAGE.
    """

    code = "E_PACKAGE"


class KeyFileError(AirssysError):
    """A key file cannot be made, read or believed."""

    code = "E_KEY"


class TrustStoreError(AirssysError):
    """A request to the trust store makes no sense, or one of its files is damaged (then nothing is trusted)."""

    code = "E_TRUST"


class SourceError(AirssysError):
    """Something in a file a person wrote is wrong.

    Attributes:
        file: the file's name.
        key: dotted key, or "" where the file as a whole is wrong.
        line: line in the file, from 1.
    """

    def __init__(self, message: str, *, file: str, key: str, line: int, hint: str = "") -> None:
        super().__init__(message, subject=f"{file}:{line}" + (f" {key}" if key else ""), hint=hint)
        self.file = file
        self.key = key
        self.line = line


class ManifestError(SourceError):
    """`component.toml` is wrong."""

    code = "E_MANIFEST"


class ConfigError(SourceError):
    """`airssys.toml` (or another file of the host's own) is wrong."""

    code = "E_CONFIG"
