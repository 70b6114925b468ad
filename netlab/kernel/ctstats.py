"""What the kernel counts of connection tracking itself: packets dropped for it, and how full its table is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from netlab import checks
from netlab.frames import Gap, Missing
from netlab.kernel import conntrack, netlink, nlmessages, spaces
from netlab.schemas import CONNTRACK_STATS

_GET_CPU = 0x104  # IPCTNL_MSG_CT_GET_STATS_CPU
_BODY = np.dtype([("family", "u1"), ("version", "u1"), ("cpu", ">u2")])  # struct nfgenmsg: res_id is the CPU
_COUNTERS = {  # enum ctattr_stats_cpu, nfnetlink_conntrack.h; the others are not counted any more
    "found": 2,
    "invalid": 4,
    "insert": 8,
    "insert_failed": 9,
    "drop": 10,
    "early_drop": 11,
    "error": 12,
    "search_restart": 13,
    "clash_resolve": 14,
    "chaintoolong": 15,
}
_TABLE = {"entries": conntrack.ENTRIES, "max_entries": 2}  # enum ctattr_stats_global
_BUCKETS = Path("/proc/sys/net/netfilter/nf_conntrack_buckets")  # that of the reading thread's namespace


@checks.options
def conntrack_stats(*, netns: spaces.Spaces = None) -> pd.DataFrame:
    """Count what connection tracking dropped and could not enter into its table, and how full that is.

    Parameters
    ----------
    netns
        A name under /run/netns, a path, a process id, a list of those, "all", or None, which is the
        calling thread's namespace alone, without those of containers.

    Returns
    -------
    DataFrame
        One row per CPU and namespace, columns as in `netlab.schemas.CONNTRACK_STATS`. The counters are of
        the CPU: add them up. `entries`, `max_entries` and `buckets` are of the whole table, the same in
        each of a namespace's rows. Counters begin with the namespace, and at 0 again after 2**32.

    Raises
    ------
    BadInput
        If there is no such namespace.
    CapabilityError
        Without CAP_NET_ADMIN, which ctnetlink asks for.

    Notes
    -----
    IPCTNL_MSG_CT_GET_STATS_CPU and IPCTNL_MSG_CT_GET_STATS of ctnetlink, as `conntrack -S` and
    `conntrack -C` ask (net/netfilter/nf_conntrack_netlink.c); sysctl net.netfilter.nf_conntrack_buckets.

    Examples
    --------
    >>> import netlab
    >>> stats = netlab.conntrack_stats()
    >>> print(stats[["insert_failed", "drop"]].sum().ge(0).all(), (stats.entries <= stats.max_entries).all())
    True True
    """
    answers = spaces.ask(netns, _counted)
    rows = [{"netns": inode, **row} for inode, some in answers.by_inode.items() for row in some]
    data = {name: [row.get(name) for row in rows] for name in CONNTRACK_STATS.names}
    return CONNTRACK_STATS.frame(data, [*answers.missing, *_lacking(data)])


def _counted() -> list[dict[str, int]]:
    """Return for each CPU what it has counted and what is known of the table."""
    doing, body = "read connection tracking counters", bytes(_BODY.itemsize)
    dump = netlink.dump(conntrack.NETFILTER, _GET_CPU, body, doing=doing, module=conntrack.MODULE)
    table = _buckets()
    for group in conntrack.table(doing=doing).groups(_BODY.itemsize):
        table |= _numbers(group, _TABLE)[0]
    cpus = dump.body(_BODY)["cpu"].tolist()
    rows = [
        {"cpu": cpus[row], **numbers, **table}
        for group in dump.groups(_BODY.itemsize)
        for row, numbers in zip(group.rows, _numbers(group, _COUNTERS), strict=True)
    ]
    return sorted(rows, key=lambda row: row["cpu"])


def _numbers(group: nlmessages.Group, names: dict[str, int]) -> list[dict[str, int]]:
    """Return for each message the numbers that it has, by name."""
    found = {name: group.get((kind,), ">u4") for name, kind in names.items()}
    known = {name: values.tolist() for name, values in found.items() if values is not None}
    return [{name: values[place] for name, values in known.items()} for place in range(len(group.rows))]


def _buckets() -> dict[str, int]:
    try:
        return {"buckets": int(_BUCKETS.read_text(encoding="ascii"))}
    except OSError:  # /proc/sys may be out of reach in a container
        return {}


def _lacking(data: dict[str, list[int | None]]) -> list[Missing]:
    absent = {name: values.count(None) for name, values in data.items() if None in values}
    if not absent:
        return []
    detail = "this kernel does not tell them here"
    return [Missing(", ".join(absent), Gap.UNAVAILABLE, max(absent.values()), detail)]
