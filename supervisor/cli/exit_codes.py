"""Error codes to exit codes: one table, which scripts may rely on."""

from __future__ import annotations

OK, FAILURE, USAGE, CONFIGURATION, UNREACHABLE, AUTHENTICATION, AUTHORIZATION, VALIDATION, BUILD, SIGNATURE = range(10)

MEANINGS: dict[int, str] = {
    OK: "done",
    FAILURE: "it failed",
    USAGE: "the command line makes no sense",
    CONFIGURATION: "the host's configuration, or a file of the host, is wrong",
    UNREACHABLE: "the host does not answer",
    AUTHENTICATION: "the caller is not known",
    AUTHORIZATION: "the caller, or the component, may not",
    VALIDATION: "what was given is not acceptable",
    BUILD: "the component does not compile",
    SIGNATURE: "signature, key or trust refuse it",
}

EXIT_CODES: dict[str, int] = {
    "E_USAGE": USAGE,
    "E_CONFIG": CONFIGURATION,
    "E_POLICY_PERM": CONFIGURATION,
    "E_UNREACHABLE": UNREACHABLE,
    "E_AUTHENTICATION": AUTHENTICATION,
    "E_AUTHORIZATION": AUTHORIZATION,
    "E_CONSENT": AUTHORIZATION,
    "E_FORBIDDEN_PATH": AUTHORIZATION,
    "E_LIMIT": AUTHORIZATION,
    "E_VALIDATION": VALIDATION,
    "E_MANIFEST": VALIDATION,
    "E_BINDING": VALIDATION,
    "E_CONFLICT": VALIDATION,
    "E_TOO_LARGE": VALIDATION,
    "E_PACKAGE": VALIDATION,
    "E_LAYER": VALIDATION,
    "E_PATTERN": VALIDATION,
    "E_COMPILE": BUILD,
    "E_COMPILE_LIMIT": BUILD,
    "E_EXPORTS": BUILD,
    "E_INVALID_COMPONENT": BUILD,
    "E_RESERVED_NAME": BUILD,
    "E_WORLD": BUILD,
    "E_IMPORTS": BUILD,
    "E_ALG": SIGNATURE,
    "E_BAD_SIG": SIGNATURE,
    "E_DENIED": SIGNATURE,
    "E_DIGEST": SIGNATURE,
    "E_DUP_KEY": SIGNATURE,
    "E_JSON": SIGNATURE,
    "E_KEY": SIGNATURE,
    "E_NO_ENVELOPE": SIGNATURE,
    "E_REVOKED": SIGNATURE,
    "E_ROLLBACK": SIGNATURE,
    "E_SCHEMA": SIGNATURE,
    "E_SCOPE": SIGNATURE,
    "E_SIZE": SIGNATURE,
    "E_SUBJECT": SIGNATURE,
    "E_THRESHOLD": SIGNATURE,
    "E_TRUST": SIGNATURE,
    "E_TYPE": SIGNATURE,
    "E_UNTRUSTED": SIGNATURE,
    "E_WEAK_KEY": SIGNATURE,
}
"""What is not here is 1."""


def exit_code(code: str) -> int:
    """The exit code an error gives."""
    return EXIT_CODES.get(code, FAILURE)
