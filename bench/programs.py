"""Processes to measure beside: scripts in an interpreter of their own."""

from __future__ import annotations

import subprocess
import sys
import textwrap

# Prints the port it listens on, and closes what it accepts until it is told to end.
SERVER = """
    import socket, threading
    listener = socket.create_server(("", 0), backlog=4096)
    print(listener.getsockname()[1], flush=True)
    def serve():
        while True:
            listener.accept()[0].close()
    for _ in range(2):
        threading.Thread(target=serve, daemon=True).start()
    input()
"""


def python(script: str, *arguments: object) -> subprocess.Popen[str]:
    """Run *script*; its input and output are pipes."""
    command = [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
