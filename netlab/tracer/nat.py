"""Which address a connection really has: its conntrack entry, joined on."""

from __future__ import annotations

from dataclasses import asdict

import pandas as pd

from netlab.checks import tabular
from netlab.errors import BadInput
from netlab.frames import Gap, Missing, known_gaps

# One entry serves both ends. The one that opened the connection sees the original tuple, and the world beyond
# the translation sees the reply's; the one that accepted it sees the reply tuple.
_OPENED = {
    "local_address": "src",
    "local_port": "sport",
    "remote_address": "dst",
    "remote_port": "dport",
    "nat_local_address": "reply_dst",
    "nat_local_port": "reply_dport",
    "nat_remote_address": "reply_src",
    "nat_remote_port": "reply_sport",
}
_ACCEPTED = {
    "local_address": "reply_src",
    "local_port": "reply_sport",
    "remote_address": "reply_dst",
    "remote_port": "reply_dport",
    "nat_local_address": "dst",
    "nat_local_port": "dport",
    "nat_remote_address": "src",
    "nat_remote_port": "sport",
}
_KEY = ["protocol", "local_address", "local_port", "remote_address", "remote_port"]
_FILLED = ["nat_local_address", "nat_local_port", "nat_remote_address", "nat_remote_port"]
_WHERE = ["netns", "zone"]
_CONTESTED = (
    "their tuple is tracked in several zones or network namespaces, and translated in different ways: the "
    "entry with the longest time left was taken"
)


def with_nat(connections: pd.DataFrame, entries: pd.DataFrame) -> pd.DataFrame:
    """Fill the `nat_*` columns of connections from conntrack entries.

    Parameters
    ----------
    connections
        What `Capture.connections()` or `netlab.connections()` returned.
    entries
        What `netlab.conntrack()` or `netlab.nat()` returned, of the namespace that translates: this host's,
        or a gateway's.

    Returns
    -------
    DataFrame
        The same rows in the same order. A connection without an entry, or whose entry does not translate it,
        keeps what it had. `netlab.capture()` does this by itself for its own host, in time: this is for the
        entries of another one.

    Raises
    ------
    BadInput
        If one of the frames is of another kind.

    Notes
    -----
    A tuple that is used again while its old entry lives finds the newest entry, the one with the longest
    time left.

    Examples
    --------
    >>> import netlab
    >>> now = netlab.connections()
    >>> translated = netlab.with_nat(now, netlab.schemas.CONNTRACK.empty())
    >>> len(translated) == len(now)
    True
    """
    for frame, needed, maker in (
        (connections, [*_KEY, *_FILLED], "Capture.connections() or netlab.connections()"),
        (entries, ["protocol", *_OPENED.values()], "netlab.conntrack() or netlab.nat()"),
    ):
        tabular("with_nat()", frame, fix=f"Pass what {maker} returned")
        lacking = sorted(set(needed) - set(frame.columns))
        if lacking:
            raise BadInput(f"this frame has no column {lacking[0]!r}", fix=f"Pass what {maker} returned")
    found = pd.concat([_sides(entries, _OPENED), _sides(entries, _ACCEPTED)])
    found = found[::-1].sort_values("timeout_s", ascending=False, kind="stable")
    keys = connections[_KEY].astype({"protocol": "string"})
    joined = keys.merge(found.drop_duplicates(_KEY), on=_KEY, how="left", validate="many_to_one")
    filled = connections.copy()
    translated = (
        (joined[_FILLED].set_axis(_KEY[1:], axis=1) != joined[_KEY[1:]]).any(axis=1).fillna(value=False)
    )
    for name in _FILLED:
        values = joined[name].where(translated).set_axis(connections.index)
        filled[name] = values.fillna(connections[name]).astype(connections[name].dtype)
    untranslated = [
        gap | {"what": f"nat_*: {gap['what']}"}
        for gap in known_gaps(entries)
        if not gap["what"].startswith("packets")  # which no nat_* column shows
    ]
    contested = len(keys.merge(_contested(found), on=_KEY))
    if contested:
        untranslated.append(asdict(Missing("nat_*", Gap.APPROXIMATE, contested, _CONTESTED)))
    filled.attrs["coverage"] = [*known_gaps(connections), *untranslated]
    return filled


def _sides(entries: pd.DataFrame, names: dict[str, str]) -> pd.DataFrame:
    columns = {ours: entries[theirs] for ours, theirs in names.items()}
    places = entries.reindex(columns=_WHERE)
    columns |= {name: places[name] for name in _WHERE}
    protocol = entries["protocol"].astype("string")
    return pd.DataFrame({"protocol": protocol, "timeout_s": entries["timeout_s"], **columns})


def _contested(found: pd.DataFrame) -> pd.DataFrame:
    """Return the tuples that entries of several places, newest first, translate in different ways."""
    different = found.drop_duplicates([*_KEY, *_WHERE]).drop_duplicates([*_KEY, *_FILLED])
    return different.loc[different.duplicated(_KEY), _KEY].drop_duplicates()
