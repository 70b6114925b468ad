"""The sockets of this host that wait for anybody, whose they are, and what found no room in them."""

from __future__ import annotations

import numpy as np
import pandas as pd

from netlab import checks
from netlab.kernel import listening, netlink, netns as namespaces, spaces
from netlab.kernel.ctnames import NUMBERS
from netlab.kernel.sockdiag import State
from netlab.schemas import LISTENERS
from netlab.tracer import socketgaps, sockets


@checks.options
def listeners(
    *,
    protocol: str | None = None,
    port: int | None = None,
    pid: int | None = None,
    process: str | None = None,
    netns: namespaces.NetNs = None,
) -> pd.DataFrame:
    """List the listening TCP sockets and the UDP sockets without a peer, with their queues and drops.

    A server that does not call accept(2) often enough has a long `accept_queue`. When that is longer than
    `accept_limit`, the kernel drops what else comes for it without a word, and clients time out.

    Parameters
    ----------
    protocol
        "tcp" or "udp"; both by default.
    port
        Only this local port.
    pid, process
        Only sockets of the process with this id, or of processes with exactly this command name.
    netns
        A name under /run/netns, a path, a process id, "all", or None, which is the calling thread's namespace
        alone, without those of containers. "all" are those that have a process, a name or a mount.

    Returns
    -------
    DataFrame
        One row per socket, by port, columns as in `netlab.schemas.LISTENERS`. `drops` counts from the
        socket's beginning: two calls tell what happened between them.

    Raises
    ------
    BadInput
        If an argument cannot be right; the kernel was not asked then.
    CapabilityError
        For another namespace without CAP_SYS_ADMIN.

    Notes
    -----
    Read by sock_diag(7), like `ss -lntupm` (sk_drops in net/ipv4/tcp_input.c and net/ipv4/udp.c).

    Examples
    --------
    >>> import netlab
    >>> waiting = netlab.listeners(protocol="tcp")
    >>> bool((waiting["accept_queue"] >= 0).all())
    True
    """
    sockets.check(protocol, port, pid, process)
    protocols = [NUMBERS[name] for name in ("tcp", "udp") if protocol in {None, name}]
    answers = spaces.ask(netns, lambda: listening.listeners(protocols))
    tables = list(answers.by_inode.values())
    there = listening.joined(tables)
    inodes = np.repeat(list(answers.by_inode), [len(table.sockets) for table in tables])
    listing, unreadable = sockets.owned(sockets.Listing.of(there.sockets, inodes, answers.missing))
    keep = sockets.wanted(listing, port, pid, process)
    order = np.flatnonzero(keep)[np.argsort(there.sockets.records["local_port"][keep], kind="stable")]
    found, memory = listing.where(order), there.memory[order]
    is_tcp = found.sockets.state == State.LISTEN
    records = found.sockets.records
    data = sockets.columns(found)
    data = {name: data[name] for name in LISTENERS.names if name in data} | {
        "accept_queue": np.ma.array(records["rqueue"], mask=~is_tcp),
        "accept_limit": np.ma.array(records["wqueue"], mask=~is_tcp),
        "receive_queue_bytes": found.sockets.receive_queue_bytes,
        "receive_limit_bytes": np.ma.array(memory["rcvbuf"], mask=is_tcp),
        "drops": memory["drops"],
    }
    missing = [*listing.missing, *socketgaps.unowned(found.sockets, found.pid, unreadable)]
    missing += spaces.unfindable(netns)
    return LISTENERS.frame(data, [*missing, netlink.INTERRUPTED] if found.sockets.interrupted else missing)
