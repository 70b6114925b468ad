"""What an ordinary user may do, as on Binder: no capability at all, and no way to get one.

The user namespace has one user, nobody, and none can be made within it, which takes away what namespaces
give. Outside of it nobody is root without capabilities, and so can read an interpreter in root's home.
"""

from __future__ import annotations

import os
import shlex
import stat
import subprocess
import sys
from pathlib import Path

_ALONE = [
    "unshare", "--user", "--keep-caps", "--map-user=65534", "--map-group=65534",
    "sh", "-c", 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$0" "$@"',
    "setpriv", "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all", "--no-new-privs",
]  # fmt: skip


def run(command: list[str], place: Path, *, timeout_s: float) -> subprocess.CompletedProcess[str]:
    """Run *command* as nobody, at home in *place*; what it prints, errors too, is in `stdout`."""
    environment = {
        "PATH": os.environ["PATH"], "HOME": str(place), "TMPDIR": str(place), "LC_ALL": "C.UTF-8",
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip
    return subprocess.run(
        [*_ALONE, *command],
        cwd=place,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=timeout_s,
    )


MEMBER = [
    "setpriv", "--reuid=65534", "--regid=1", "--groups=60",
    "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs",
]  # fmt: skip
# Root of nothing but a user namespace: may make network namespaces, and load no eBPF program.
OWN_NETWORKS = [
    "unshare", "--user", "--map-root-user", "--mount", "--net", "sh", "-c",
    'mount -t tmpfs none /run/netns; mount -t tmpfs none /run/netlab; ip link set lo up; exec "$@"', "sh",
]  # fmt: skip


def in_sight(*places: Path) -> list[str]:
    """Return the command that runs another where every user can reach *places*, of whoever's home they are.

    In a mount namespace of its own: what hides them is covered by a directory that has nothing but them.
    """
    hidden = {place: top for place in places if (top := _closed_above(place))}
    named = [(shlex.quote(str(place)), f"/mnt/{number}") for number, place in enumerate(hidden)]
    steps = [
        "set -e; mount -t tmpfs none /mnt",
        *(f"mkdir {stage}; mount --bind {place} {stage}" for place, stage in named),
        *(f"mount -t tmpfs -o mode=755 none {shlex.quote(str(top))}" for top in {*hidden.values()}),
        *(f"mkdir -p {place}; mount --bind {stage} {place}" for place, stage in named),
        'exec "$@"',
    ]
    return ["unshare", "--mount", "sh", "-c", "\n".join(steps), "sh"]


def _closed_above(place: Path) -> Path | None:
    """Return the topmost directory above *place* that not everybody may pass."""
    return next((one for one in reversed(place.parents) if not one.stat().st_mode & stat.S_IXOTH), None)
