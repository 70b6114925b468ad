"""Outlives the owner of a practice network by a moment and removes what it left: `python warden.py NETWORK`.

A process that is killed removes nothing itself, and namespaces with a name live on. Standard input is a pipe
held by the owner: a byte in it says that the network was closed, its end without one that the owner died.
"""

from __future__ import annotations

import sys
import time

_PATIENCE_S = 10.0  # the kernel closes a dead process's pipe and drops its lock one after the other


def main(network: str) -> None:
    """Wait for the owner's end, and remove *network* if it did not."""
    if sys.stdin.buffer.read(1):
        return
    # Not before it is needed: the wait, usually all there is, costs no more than an idle interpreter.
    from netlab.kernel import netns
    from netlab.lab.ownership import clean

    deadline = time.monotonic() + _PATIENCE_S
    while any(name.startswith(f"{network}-") for name in netns.names()) and time.monotonic() < deadline:
        clean()
        time.sleep(0.05)


if __name__ == "__main__":
    main(sys.argv[1])
