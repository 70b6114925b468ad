"""The connections the kernel tracks, over ctnetlink."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from netlab import checks
from netlab.errors import KernelError
from netlab.frames import Missing
from netlab.kernel import ctframe, ctwanted, netlink, nlmessages, spaces
from netlab.kernel.ctframe import Part
from netlab.kernel.ctwanted import Wanted

NETFILTER = 12
GET = 0x101  # (NFNL_SUBSYS_CTNETLINK << 8) | IPCTNL_MSG_CT_GET
_GET_TABLE = 0x105  # IPCTNL_MSG_CT_GET_STATS
BODY_BYTES = 4  # struct nfgenmsg
ENTRIES = 1  # CTA_STATS_GLOBAL_ENTRIES
MODULE = "nf_conntrack_netlink"
_DOING = "list conntrack entries"


@checks.options
def conntrack(
    *,
    netns: spaces.Spaces = None,
    family: int | None = None,
    protocol: str | int | None = None,
    address: str | None = None,
    port: int | None = None,
    src: str | None = None,
    sport: int | None = None,
    dst: str | None = None,
    dport: int | None = None,
    mark: int | str | None = None,
    zone: int | None = None,
    status: str | Sequence[str] | None = None,
) -> pd.DataFrame:
    """List the connections that the kernel tracks in one or more network namespaces, with both tuples.

    Parameters
    ----------
    netns
        A name under /run/netns, a path, a process id, a list of those, "all", or None, which is the
        calling thread's namespace alone, without those of containers.
    family
        4 or 6; None lists both.
    protocol
        A name such as "tcp" or "icmpv6", or a protocol number.
    address
        Only entries that have this address in one of their four places.
    port
        Only entries that have this port (ICMP: identifier) in one of their four places.
    src, sport, dst, dport
        Only entries whose original direction has these.
    mark
        Only entries with this mark; "0x40/0xf0" compares only the bits of the mask.
    zone
        Only entries of this conntrack zone, also of one direction only.
    status
        Only entries with this status flag, or with all of several, such as "assured".

    Returns
    -------
    DataFrame
        One row per entry, columns as in `netlab.schemas.CONNTRACK`. Entries made while accounting was
        off have no counters; the coverage says how many, and how to turn it on.

    Raises
    ------
    BadInput
        If an argument cannot be right; the kernel was not asked then.
    CapabilityError
        Without CAP_NET_ADMIN, which ctnetlink asks for.

    Notes
    -----
    Read by a ctnetlink dump (net/netfilter/nf_conntrack_netlink.c), like `conntrack -L -o extended,id`. The
    kernel leaves out what it can; the rest is left out here, with the same result.

    Examples
    --------
    >>> import netlab
    >>> flows = netlab.conntrack(protocol="tcp", port=443)
    >>> print(flows.columns[:4].tolist())
    ['protocol', 'family', 'src', 'sport']
    """
    chosen = ctwanted.wanted(
        family=family,
        protocol=protocol,
        address=address,
        port=port,
        src=src,
        sport=sport,
        dst=dst,
        dport=dport,
        mark=mark,
        zone=zone,
        status=status,
    )
    answers = spaces.ask(netns, lambda: dump(chosen))
    return ctframe.framed(*listed(answers, chosen))


def dump(chosen: Wanted) -> nlmessages.Dump:
    """Return the entries of the calling thread's namespace, without those the kernel can leave out."""
    plain, filtered = ctwanted.request(chosen)
    # For a dump the kernel looks through its whole hash table, which all namespaces share: 4 ms where there
    # are 262,144 buckets, as often as there are namespaces. It counts without looking.
    if _is_zero(table(doing=_DOING)):
        return nlmessages.Dump.of(np.empty(0, np.uint32))
    if filtered != plain:
        try:
            return netlink.dump(NETFILTER, GET, filtered, doing=_DOING, module=MODULE)
        except KernelError:  # a kernel that knows no such filter, or one that fails without it as well
            pass
    return netlink.dump(NETFILTER, GET, plain, doing=_DOING, module=MODULE)


def table(*, doing: str) -> nlmessages.Dump:
    """Return what the kernel counts of the whole table of the calling thread's namespace."""
    return netlink.get(NETFILTER, _GET_TABLE, bytes(BODY_BYTES), doing=doing, module=MODULE)


def _is_zero(counted: nlmessages.Dump) -> bool:
    told = [group.get((ENTRIES,), ">u4") for group in counted.groups(BODY_BYTES)]
    return bool(told) and all(entries is not None and not entries.any() for entries in told)


def listed(answers: spaces.Answers[nlmessages.Dump], chosen: Wanted) -> tuple[list[Part], list[Missing]]:
    """Return the wanted entries of each namespace, and what to say of those that are missing."""
    parts = [
        Part(part.inode, ctwanted.selected(part.entries, chosen))
        for inode, found in answers.by_inode.items()
        for part in ctframe.parts_of(found, inode)
    ]
    interrupted = any(found.interrupted for found in answers.by_inode.values())
    return parts, [*answers.missing, *([netlink.INTERRUPTED] if interrupted else [])]
