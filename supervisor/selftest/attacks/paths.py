"""T43 and T45: names of files that mean another place to whoever is careless with them.

The directory that is granted is `/data`; beside it, in the real one's parent, are `data2` and `outside`, each with a
file `secret`. `/data/link` leads to `outside`.
"""

from __future__ import annotations

from dataclasses import dataclass

from sandbox.wire.bridge_ops import Op


@dataclass(frozen=True)
class PathAttack:
    """A name that must not lead out.

    Attributes:
        path: as it goes over the wire, in MessagePack's text.
        op: `FS_READ` or `FS_LIST`.
        text: whether it is one; what is no UTF-8 is no request at all.
    """

    id: str
    name: str
    path: bytes
    op: Op = Op.FS_READ
    text: bool = True


_UP = b"../outside/secret"
PATHS = (
    PathAttack("T43", "..", b"/data/" + _UP),
    PathAttack("T43", ".. after a directory that is there", b"/data/inner/../" + _UP),
    PathAttack("T43", ". and ..", b"/data/./" + _UP),
    PathAttack("T43", "a name without a beginning", _UP),
    PathAttack("T43", "an absolute name of the host", b"/etc/passwd"),
    PathAttack("T43", "an absolute name inside", b"/data//etc/passwd"),
    PathAttack("T43", "the host's own processes", b"/proc/self/environ"),
    PathAttack("T43", "a descriptor of the bridge", b"/proc/self/fd/0"),
    PathAttack("T43", "a neighbour whose name begins alike", b"/data2/secret"),
    PathAttack("T43", "a zero byte", b"/data/" + _UP + b"\0.txt"),
    PathAttack("T43", "a backslash", b"/data/..\\outside\\secret"),
    PathAttack("T43", "dots of Unicode's", "/data/\u2024\u2024/outside/secret".encode()),
    PathAttack("T43", "wide letters of Unicode's", "/data/\uff0e\uff0e\uff0foutside\uff0fsecret".encode()),
    PathAttack("T43", "percent signs", b"/data/%2e%2e/outside/secret"),
    PathAttack("T43", "4,096 bytes and more", b"/data/" + b"./" * 2100 + _UP),
    PathAttack("T43", "overlong UTF-8", b"/data/\xc0\xae\xc0\xae/outside/secret", text=False),
    PathAttack("T43", "bytes that are no UTF-8", b"/data/\xff", text=False),
    PathAttack("T45", "a link with a slash behind it", b"/data/link/", Op.FS_LIST),
    PathAttack("T45", "a link with a dot behind it", b"/data/link/.", Op.FS_LIST),
    PathAttack("T45", "a link with two slashes behind it", b"/data/link//", Op.FS_LIST),
)
