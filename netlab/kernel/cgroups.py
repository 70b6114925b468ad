"""Control groups: where a process is in each hierarchy, and the container that this names.

Both versions are read: version 2 has one hierarchy, version 1 one per controller, and a hybrid host has both.
Source: cgroups(7).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

ROOT = "/"
CUT = "…"  # in front of a path whose beginning is not known; a whole one begins with a slash

_LINE = re.compile(r"(\d+):([^:]*):(.*)")
_DELETED = " (deleted)"  # what the kernel puts behind a path whose directory has been removed
_MONITOR = "conmon"  # podman's and CRI-O's supervisor runs beside the container, not in it
_SUPERVISOR = "supervisor"  # systemd-nspawn's own process; the container is in `payload` beside it
_MACHINES = ("machine-", "systemd-nspawn@")

# A cgroup and the one above it, as container runtimes name them. Most end the name in an id: 64 hex digits
# (docker, containerd, CRI-O, podman), 32 and a number (ECS on Fargate), a Garden handle of five groups, or 25
# letters and digits (BuildKit); LXC and systemd-machined have names.
_FORMS = [
    re.compile(form)
    for form in (
        r"(?<![0-9a-f])([0-9a-f]{64}|[0-9a-f]{32}-[0-9]+|[0-9a-f]{8}(?:-[0-9a-f]{4}){4})(?:\.scope)?$",
        r"/buildkit/([0-9a-z]{25})$",
        r"/docker-([0-9a-z]{25})\.scope$",
        r"/lxc(?:\.payload)?/([^/]+)$",
        r"/lxc\.payload\.([^/]+)$",
        r"/machine-(?!qemu\\x2d)([^/]+)\.scope$",  # libvirt's virtual machines are no containers
        r"/systemd-nspawn@([^/]+)\.service$",
    )
]


@dataclass(frozen=True, slots=True)
class Membership:
    """Where a process is: the path that says most, and the container; None is what is not known."""

    path: str | None
    container: str | None


def membership(text: str) -> Membership:
    r"""Return where the text of /proc/PID/cgroup says a process is.

    Examples
    --------
    >>> membership("4:memory:/docker/" + 64 * "a" + "\n0::/system.slice/docker.service\n").container[:12]
    'aaaaaaaaaaaa'
    """
    found = [line.groups() for line in map(_LINE.fullmatch, text.split("\n")) if line]
    unified = [path for number, controllers, path in found if (number, controllers) == ("0", "")]
    others = [path for number, controllers, path in reversed(found) if (number, controllers) != ("0", "")]
    deepest = sorted(others, key=_depth, reverse=True)
    return best(path.removesuffix(_DELETED) for path in [*unified, *deepest])


def _depth(path: str) -> int:
    return path.rstrip("/").count("/")


def best(paths: Iterable[str]) -> Membership:
    """Return the first of *paths* that names a container; without one, the first that is not the root."""
    candidates = list(paths)
    for path in candidates:
        found = container(path)
        if found is not None:
            return Membership(path, found)
    below = [path for path in candidates if path != ROOT]
    return Membership(next(iter(below or candidates), None), None)


def container(path: str) -> str | None:
    r"""Return the id or name of the innermost container in one path, or None.

    Examples
    --------
    >>> container(r"/machine.slice/machine-web\x2d1.scope/payload/init.scope")
    'web-1'
    """
    parts = ["", *path.split("/"), ""]
    for place in range(len(parts) - 2, 0, -1):
        above, name, below = parts[place - 1 : place + 2]
        if _MONITOR in name or (below == _SUPERVISOR and name.startswith(_MACHINES)):
            continue
        for form in _FORMS:
            found = form.search(f"/{above}/{name}")
            if found:
                return found[1].replace(r"\x2d", "-")  # systemd's escape in unit names
    return None
