"""Which way the packets of connections go: the kernel's routing, asked in each connection's own namespace."""

from __future__ import annotations

import ipaddress
import threading
from collections import Counter
from collections.abc import Collection
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from netlab import checks
from netlab.closing import Closes
from netlab.errors import BadInput, CaptureError
from netlab.frames import Gap, Missing
from netlab.kernel import lookups, netns as namespaces, spaces
from netlab.kernel.ctentries import NUMBERS
from netlab.kernel.lookups import Question
from netlab.kernel.routing import MAX_AGE_S, Routing

_FILLED = {
    "via_gateway": "gateway",
    "via_mac": "mac",
    "via_interface": "interface",
    "via_address": "address",
    "via_subnet": "subnet",
    "via_type": "type",
}
_ENDS = ["local_address", "remote_address"]
_FLOW = ["protocol", "local_port", "remote_port"]
_NEEDED = ["netns", "uid", "closed_at", "nat_remote_address", *_ENDS, *_FLOW, *_FILLED]
_UNSPECIFIED = ["0.0.0.0", "::"]
_SCOPELESS = "the peer's address is link-local, and which link is not known"
_MARKS = "policy rules look at the packets' mark, which connections do not tell: taken for 0"
_ENDED = "of connections that ended: the way is that of now"
_TRANSLATED = "translated ones: the way is that to the address that the socket uses"


class RouteCache(Closes):
    """What is known of each namespace's routing; made by `netlab.route_cache()`."""

    def __init__(self, max_age_s: float) -> None:
        self._max_age_s = max_age_s
        self._known: dict[int, Routing] = {}
        self._lock = threading.Lock()
        self._closed = False

    def fill(self, connections: pd.DataFrame) -> pd.DataFrame:
        """Return *connections* with their `via_*` columns, as `netlab.with_gateway` does."""
        lacking = sorted(set(_NEEDED) - set(connections.columns))
        if lacking:
            raise BadInput(
                f"this frame has no column {lacking[0]!r}",
                fix="Pass what Capture.connections() or netlab.connections() returned",
            )
        with self._lock:
            if self._closed:
                raise CaptureError("this route cache is closed", fix="Use it inside its `with` block")
            return self._filled(connections)

    def _filled(self, connections: pd.DataFrame) -> pd.DataFrame:
        has_peer = connections["remote_address"].notna() & ~connections["remote_address"].isin(_UNSPECIFIED)
        wanted = (has_peer & connections["netns"].notna()).to_numpy(bool)
        numbers = connections["netns"].to_numpy(np.int64, na_value=0)
        silent = self._open({int(number) for number in np.unique(numbers[wanted])})
        answers, gaps = [], []
        for inode, known in self._known.items():
            rows = np.flatnonzero(wanted & (numbers == inode))
            if len(rows):
                found, lacks = _answers(known, connections.iloc[rows])
                answers.append(found.set_axis(rows))
                gaps.append(lacks)
        unasked = int((wanted & ~np.isin(numbers, list(self._known))).sum())
        filled = _with(connections, answers)
        missing = [*_unasked(unasked, silent), *_missing(sum(gaps, Counter()), connections[wanted])]
        filled.attrs["coverage"] = [
            *(gap for gap in connections.attrs.get("coverage", []) if gap["what"] != "via_*"),
            *map(asdict, missing),
        ]
        return filled

    def _open(self, inodes: Collection[int]) -> list[Missing]:
        """Know just these namespaces, as they are now; a socket in one that is not needed would keep it alive."""
        for inode in set(self._known) - set(inodes):
            self._known.pop(inode).close()
        for known in self._known.values():
            known.refresh()
        new = set(inodes) - set(self._known)
        silent: list[Missing] = []
        if namespaces.inode() in new:
            own = spaces.ask(None, lambda: Routing(self._max_age_s))
            self._known |= own.by_inode
            new -= set(own.by_inode)
        if new:
            found = spaces.ask(spaces.ALL, lambda: Routing(self._max_age_s), only=new)
            self._known |= found.by_inode
            silent = found.missing
        return silent

    def close(self) -> None:
        """Give the sockets back; safe to call again."""
        with self._lock:
            self._closed = True
            while self._known:
                self._known.popitem()[1].close()


def _answers(known: Routing, connections: pd.DataFrame) -> tuple[pd.DataFrame, Counter[str]]:
    """Ask once for each distinct pair of ends, and give every row its answer; count those without one."""
    keys = [*_ENDS]
    keys += ["mark"] if "mark" in connections else []
    keys += ["uid"] if "uid" in known.looks_at else []
    keys += _FLOW if "flow" in known.looks_at else []
    codes = connections.groupby(keys, dropna=False, sort=False, observed=True).ngroup().to_numpy()
    _, first = np.unique(codes, return_index=True)
    distinct = connections.iloc[first][keys].to_dict("records")
    questions = [_question(known, row) for row in distinct]
    askable = [place for place, question in enumerate(questions) if question]
    told = known.answers([question for question in questions if question])
    told = told.set_axis(askable).reindex(range(len(questions)))
    rows = told.iloc[codes]
    gaps = Counter(
        {
            _SCOPELESS: int(np.isin(codes, list(set(range(len(questions))) - set(askable))).sum()),
            lookups.FOREIGN: int(rows["reason"].eq(lookups.FOREIGN).sum()),
            _MARKS: len(rows) if "mark" in known.looks_at - set(keys) else 0,
        }
    )
    return rows, gaps


def _question(known: Routing, row: dict[str, Any]) -> Question | None:
    """Return what to ask; None for a link-local peer whose link is not known."""
    destination = ipaddress.ip_address(row["remote_address"])
    source = "" if pd.isna(row["local_address"]) else row["local_address"]
    if source in _UNSPECIFIED:
        source = ""
    interface = known.interface_of(source) if source else 0
    if destination.version == 6 and destination.is_link_local and not interface:
        return None
    protocol = row.get("protocol")
    return Question(
        family=destination.version,
        destination=destination.packed,
        source=ipaddress.ip_address(source).packed if source else b"",
        interface=interface,
        mark=_number(row.get("mark")) or 0,
        uid=_number(row.get("uid")),
        protocol=NUMBERS[protocol] if protocol else 0,
        source_port=_number(row.get("local_port")) or 0,
        port=_number(row.get("remote_port")) or 0,
    )


def _number(value: Any) -> int | None:
    return None if value is None or pd.isna(value) else int(value)


def _with(connections: pd.DataFrame, answers: list[pd.DataFrame]) -> pd.DataFrame:
    """Return the rows with what was answered; a row without an answer keeps what it had."""
    filled = connections.copy()
    if not answers:
        return filled
    found = pd.concat(answers)
    rows = found.index[found["type"].notna()]
    for ours, theirs in _FILLED.items():
        values = connections[ours].astype("string").to_numpy(object, copy=True)
        values[rows] = found.loc[rows, theirs].to_numpy(object)
        dtype = connections[ours].dtype
        filled[ours] = pd.array(values, "string").astype("category" if dtype == "category" else dtype)
    return filled


def _unasked(count: int, silent: list[Missing]) -> list[Missing]:
    if not count:
        return []
    detail = silent[0].detail if silent else "their network namespaces have no process and no name here"
    return [Missing("via_*", Gap.UNAVAILABLE, count, detail)]


def _missing(gaps: Counter[str], connections: pd.DataFrame) -> list[Missing]:
    """Say which connections have no way, and whose may be another."""
    translated = connections["nat_remote_address"].fillna(connections["remote_address"])
    doubts = {
        _MARKS: gaps.pop(_MARKS, 0),
        _ENDED: int(connections["closed_at"].notna().sum()),
        _TRANSLATED: int((translated != connections["remote_address"]).sum()),
    }
    kinds = ((Gap.UNAVAILABLE, gaps), (Gap.APPROXIMATE, doubts))
    return [
        Missing("via_*", kind, count, detail)
        for kind, some in kinds
        for detail, count in some.items()
        if count
    ]


def with_gateway(connections: pd.DataFrame, *, known: RouteCache | None = None) -> pd.DataFrame:
    """Fill the `via_*` columns of connections: which way their packets go, as this host's kernel says now.

    Parameters
    ----------
    connections
        What `Capture.connections()` or `netlab.connections()` returned on this host.
    known
        A `netlab.route_cache()` that keeps answers for the next call; without it all are asked anew.

    Returns
    -------
    DataFrame
        The same rows in the same order. Each was looked up in its own network namespace, from its own
        source address; a column `mark` is taken into account where the frame has one, the user and the
        ports where policy rules or the choice among several next hops depend on them. A row that has no
        answer keeps what it had; the coverage says how many, and why.

    Raises
    ------
    BadInput
        If the frame is of another kind.
    CaptureError
        If the cache is closed.

    Notes
    -----
    The look-ups are those of `netlab.gateway`, one for each distinct pair of addresses in a namespace. A
    source address of a VRF, or of one link only (link-local), stands for what the socket is bound to.

    Examples
    --------
    >>> import netlab
    >>> now = netlab.with_gateway(netlab.connections())
    >>> bool(now.via_interface[now.via_type == "local"].eq("lo").all())
    True
    """
    if known is not None:
        return known.fill(connections)
    with route_cache() as once:
        return once.fill(connections)


def route_cache(*, max_age_s: float = MAX_AGE_S) -> RouteCache:
    """Keep what is known of routing, for `netlab.with_gateway()` to be called again and again.

    Parameters
    ----------
    max_age_s
        How long an answer counts, in seconds. It is forgotten earlier, when the kernel tells of a changed
        route, rule, link, address or neighbour in its namespace; of redirects, of path MTUs and of sysctls it
        does not tell.

    Returns
    -------
    RouteCache
        Use it as a context manager: until it is closed it holds sockets in the namespaces that the last
        frame named, which keeps those alive.

    Raises
    ------
    BadInput
        If the age is no number above 0.

    Examples
    --------
    >>> import netlab
    >>> with netlab.route_cache() as known:
    ...     first = netlab.with_gateway(netlab.connections(), known=known)
    ...     later = netlab.with_gateway(netlab.connections(), known=known)
    >>> later.columns.equals(first.columns)
    True
    """
    return RouteCache(checks.positive("max_age_s", max_age_s, unit="seconds"))
