"""What an ordinary user may do, as on Binder: no capability at all, and no way to get one.

The user namespace has one user, nobody, and none can be made within it, which takes away what namespaces
give. Outside of it nobody is root without capabilities, and so can read an interpreter in root's home.
"""

from __future__ import annotations

import os
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
