"""In a pid namespace of its own: an older process with a higher number than the one it hands a socket to."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from netlab.kernel import processes

OLDER, YOUNGER = 1000, 500
NEXT = Path("/proc/sys/kernel/ns_last_pid")  # of the pid namespace of who writes


def hold() -> None:
    """Say who is said to hold a socket of this process, and the number of the child that has it, too."""
    with socket.socket() as sock:
        time.sleep(0.05)  # some of the ticks that starts are told in
        NEXT.write_text(str(YOUNGER - 1))
        with subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=[sock.fileno()]) as heir:
            holders = processes.owners().of(np.array([os.fstat(sock.fileno()).st_ino])).tolist()
    sys.stdout.write(f"{holders[0]} {heir.pid}\n")


if __name__ == "__main__":
    if os.getpid() == 1:
        NEXT.write_text(str(OLDER - 1))
        subprocess.run([sys.executable, "-m", "tests.support.heirs"], check=True)
    else:
        hold()
