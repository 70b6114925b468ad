"""Which network namespace a client means: what it says of itself is not to be read as said of the agent."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from netlab.agent.peers import Peer
from netlab.errors import BadInput
from netlab.kernel import netns as namespaces

_MOST_PID = 1 << 22  # what is above is an inode (proc(5): pid_max)
_ASKING = {"/proc/self/ns/net", "/proc/thread-self/ns/net"}
_OF_READER = ("/proc/self/", "/proc/thread-self/", "/dev/fd/")  # each process finds its own there
_BY_PID = re.compile(r"/proc/[0-9]+/")


def meant(peer: Peer | None, netns: Any) -> Any:
    """Return *netns* as the agent has to look it up for who asks: no namespace is that of the process itself.

    Parameters
    ----------
    peer
        Who asks on this host, or None for somebody elsewhere.
    netns
        A name, a path, a process id, an inode, a list of those, or None.

    Raises
    ------
    BadInput
        If it stands for one thing where it is asked and for another where the agent runs.
    """
    if isinstance(netns, list | tuple):
        return [named(peer, one) for one in netns]
    if netns is None or _path(netns) in _ASKING:
        # To enter the agent's own namespace it would need a capability, which None does not.
        return None if peer is None or _is_neighbour(peer) else peer.pid
    return named(peer, netns)


def named(peer: Peer | None, netns: Any) -> Any:
    """Return *netns* as `meant` does, where None cannot stand for the agent's own namespace."""
    path = _path(netns)
    if path in _ASKING:
        return netns if peer is None or _is_neighbour(peer) else peer.pid
    if path.startswith(_OF_READER):
        raise BadInput(
            f"netns {netns!r} is another file for the agent than for you",
            fix="Leave netns out for your own namespace, or give /proc/PID/ns/net",
        )
    if "/" in path and not path.startswith("/"):
        raise BadInput(
            f"netns {netns!r} is relative, and the agent has a directory of its own",
            fix="Give a path from the root on",
        )
    is_pid = isinstance(netns, int) and netns <= _MOST_PID
    if peer is not None and (is_pid or _BY_PID.match(path)) and _numbers_otherwise(peer):
        raise BadInput(
            f"netns {netns!r} names a process by its number in your PID namespace, and the agent has another",
            fix="Leave netns out for your own namespace, or give a name or a path that the host has, too",
        )
    return netns


def _path(netns: Any) -> str:
    """Return a path in its shortest form, and "" for what is none."""
    if not isinstance(netns, str) or "/" not in netns:
        return ""
    return re.sub("^//", "/", os.path.normpath(netns))


def _is_neighbour(peer: Peer) -> bool:
    return namespaces.inode(peer.pid) == namespaces.inode()


def _numbers_otherwise(peer: Peer) -> bool:
    """Tell whether who asks counts processes in another PID namespace, as far as can be seen."""
    with suppress(OSError):
        return Path(f"/proc/{peer.pid}/ns/pid").stat().st_ino != Path("/proc/self/ns/pid").stat().st_ino
    return False
