"""Requests and lookups that both their ends tell, where client and server are on hosts that are watched."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pandas as pd

# Who groups by any of these asks what an end did, and both did it.
_OF_AN_END = frozenset(
    {
        *("direction", "pid", "process", "container", "netns", "cookie", "on_host"),
        *("local_address", "local_port", "remote_address", "remote_port"),
    }
)
_LOCAL, _REMOTE = ["local_address", "local_port"], ["remote_address", "remote_port"]


def told_once(rows: pd.DataFrame, by: Iterable[str]) -> pd.DataFrame:
    """Return *rows* without those of servers whose client's connection has rows, too.

    A client's latency is what was waited for. All rows stay where *by* tells the two ends apart, and those
    of ends that know different addresses of each other, as behind NAT.
    """
    needed = {"direction", *_LOCAL, *_REMOTE}
    if not _OF_AN_END.isdisjoint(by) or not needed <= set(rows.columns):
        return rows
    incoming = (rows["direction"] == "incoming").to_numpy(bool, na_value=False)
    clients = rows[(rows["direction"] == "outgoing").to_numpy(bool, na_value=False)]
    if not incoming.any() or clients.empty:
        return rows
    known = pd.MultiIndex.from_frame(clients[[*_LOCAL, *_REMOTE]].dropna().drop_duplicates())
    told = incoming & pd.MultiIndex.from_frame(rows[[*_REMOTE, *_LOCAL]]).isin(known)
    if "conversations" in rows and rows["conversations"].notna().any():
        told |= incoming & _share_one(rows, incoming)
    once = rows[~told]
    once.attrs = rows.attrs
    return once


def _share_one(rows: pd.DataFrame, incoming: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Tell which lookups have a conversation with one of the other end's; each end may count some of them."""
    near, far = (
        rows[address].astype("string") + "#" + rows[port].astype("string")
        for address, port in (_LOCAL, _REMOTE)
    )
    alone = far.where(incoming, near) + ">" + near.where(incoming, far)
    asked = (
        rows["conversations"].astype("string").fillna(alone).reset_index(drop=True).str.split(" ").explode()
    )
    theirs = incoming[asked.index]
    shared = np.zeros(len(rows), bool)
    shared[asked.index[theirs & asked.isin(asked[~theirs].dropna()).to_numpy()]] = True
    return shared
