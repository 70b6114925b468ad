"""Agents as `netlab agent` runs them: processes of their own."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.support.programs import wait_until

COMMAND = [sys.executable, "-c", "from netlab.cli import main; raise SystemExit(main())", "agent"]


@contextlib.contextmanager
def running(
    place: Path, *options: str, inside: Sequence[str] = ()
) -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    """Run an agent with its socket and its log in *place*, by the command *inside* if that is given."""
    path = place / "agent.sock"
    with (place / "agent.log").open("wb") as log:
        process = subprocess.Popen([*inside, *COMMAND, "--socket", str(path), *options], stderr=log)
        try:
            wait_until(lambda: answers(path) or process.poll() is not None)
            assert process.poll() is None, (place / "agent.log").read_text(encoding="utf-8")
            yield path, process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.wait(30)


def answers(path: Path) -> bool:
    """Tell whether somebody listens at *path*; the socket of an agent that was killed is there, too."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def opened(place: Path) -> Path:
    """Return *place*, which everybody may look into now, as into /run."""
    for directory in (place, *place.parents):
        if not directory.stat().st_mode & 1 and directory != Path("/"):
            directory.chmod(directory.stat().st_mode | 0o055)
    return place
