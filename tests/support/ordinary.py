"""What an ordinary user may do, as on Binder: no capability at all, and no way to get one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_NOBODY = "65534"
_DROP = [
    "setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups", "--bounding-set=-all",
    "--inh-caps=-all", "--no-new-privs",
]  # fmt: skip


def run(
    arguments: list[str], home: Path, *, timeout_s: float, **settings: str
) -> subprocess.CompletedProcess[str]:
    """Run this Python with *arguments* as nobody, whose home is *home*."""
    os.chown(home, int(_NOBODY), int(_NOBODY))
    for folder in (home, *home.parents):  # pytest keeps its directories to their owner
        if folder.stat().st_uid == 0 and not folder.stat().st_mode & 0o001:
            folder.chmod(folder.stat().st_mode | 0o011)
    environment = {
        "PATH": os.environ["PATH"], "HOME": str(home), "TMPDIR": str(home), "LC_ALL": "C.UTF-8",
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **settings,
    }  # fmt: skip
    return subprocess.run(
        [*_DROP, sys.executable, *arguments],
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
    )
