"""Which way the packets of connections go: the kernel's routing, asked in each connection's own namespace."""

from __future__ import annotations

import threading
from collections.abc import Collection
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from netlab import checks
from netlab.closing import Closes
from netlab.errors import BadInput, CaptureError
from netlab.frames import Missing, known_gaps
from netlab.kernel import netns as namespaces, spaces
from netlab.kernel.lookups import Question
from netlab.kernel.routing import Routing, Way
from netlab.tracer import redirects, waygaps, wayquestions

_FILLED = {
    "via_gateway": "gateway",
    "via_mac": "mac",
    "via_interface": "interface",
    "via_address": "address",
    "via_subnet": "subnet",
    "via_type": "type",
}
_MAX_AGE_S = 60.0
_ENDS = ["local_address", "remote_address"]
_BOUND = ["bound_ifindex"]  # recordings of versions that had no such column have none
_LOOKED_AT = {"mark": ["mark"], "uid": ["uid"], "flow": ["protocol", "local_port", "remote_port"]}
_NEEDED = {"netns", "closed_at", "nat_remote_address", *_ENDS, *_FILLED, "uid", *_LOOKED_AT["flow"]}


class RouteCache(Closes):
    """What is known of each namespace's routing; made by `netlab.route_cache()`."""

    def __init__(self, max_age_s: float) -> None:
        self._max_age_s = max_age_s
        self._known: dict[int, Routing] = {}
        self._lock = threading.Lock()
        self._closed = False

    def fill(self, connections: pd.DataFrame) -> pd.DataFrame:
        """Return *connections* with their `via_*` columns, as `netlab.with_gateway` does."""
        fix = "Pass what Capture.connections() or netlab.connections() returned"
        checks.tabular("with_gateway()", connections, fix=fix)
        lacking = sorted(_NEEDED - set(connections.columns))
        if lacking:
            raise BadInput(f"this frame has no column {lacking[0]!r}", fix=fix)
        with self._lock:
            if self._closed:
                raise CaptureError("this route cache is closed", fix="Use it inside its `with` block")
            return self._filled(connections)

    def _filled(self, connections: pd.DataFrame) -> pd.DataFrame:
        has_peer = connections["remote_address"].notna() & ~connections["remote_address"].isin(
            wayquestions.UNSPECIFIED
        )
        rows = np.flatnonzero(has_peer & connections["netns"].notna())
        wanted = connections.iloc[rows]
        silent = self._open({int(inode) for inode in wanted["netns"].unique()})
        here = wanted["netns"].isin(list(self._known)).to_numpy(bool)
        sent = redirects.destinations(wanted[here])
        keys = self._keys(wanted[here].assign(remote_address=sent.to.array))
        codes = keys.groupby(list(keys), dropna=False, sort=False, observed=True).ngroup().to_numpy()
        _, first = np.unique(codes, return_index=True)
        ways = self._ways(keys.iloc[first])
        filled = _with(connections, rows[here], codes, ways)
        missing = [
            *waygaps.unasked(int((~here).sum()), silent),
            *waygaps.unanswered(codes, ways),
            *waygaps.balanced(codes, ways, self._repeatable(wanted[here])),
            *waygaps.redirected(sent.unknown, sent.elsewhere & self._looks_again(wanted[here])),
            *waygaps.doubtful(wanted, {what: self._looking_at(what, wanted) for what in waygaps.GUESSED}),
        ]
        filled.attrs["coverage"] = [
            *(gap for gap in known_gaps(connections) if gap["what"] != waygaps.WHAT),
            *map(asdict, missing),
        ]
        return filled

    def _keys(self, connections: pd.DataFrame) -> pd.DataFrame:
        """Return what ways depend on; what a namespace's rules do not look at is blank in its rows."""
        keys = connections[["netns", *_ENDS, *(name for name in _BOUND if name in connections)]]
        for what, names in _LOOKED_AT.items():
            looking = self._looking_at(what, connections)
            for name in (name for name in names if name in connections):
                # IPv6 hashes the protocol by whatever policy: rt6_multipath_hash(), net/ipv6/route.c.
                counts = looking | _is_ipv6(connections) if name == "protocol" else looking
                if counts.any():
                    keys = keys.assign(**{name: connections[name].where(counts)})
        if "direction" in connections and _is_ipv6(connections).any():
            keys = keys.assign(direction=connections["direction"].where(_is_ipv6(connections)))
        return keys

    def _repeatable(self, connections: pd.DataFrame) -> npt.NDArray[np.bool_]:
        """Tell for which a look-up now chooses among next hops as the kernel did when the socket got its way.

        That was before it had a port, or in IPv6 an address, unless it was bound to them; and the hash of
        chosen fields (policy 3) is another for look-ups than for packets.
        """
        return (~_is_ipv6(connections) & ~self._looking_at("flow", connections)).to_numpy(bool)

    def _looks_again(self, connections: pd.DataFrame) -> npt.NDArray[np.bool_]:
        """Tell for which the look-up after a translation has not all that rules, or a hash, look at."""
        looking = self._looking_at("uid", connections) | self._looking_at("flow", connections)
        return looking.to_numpy(bool)

    def _looking_at(self, what: str, connections: pd.DataFrame) -> pd.Series[bool]:
        inodes = [inode for inode, known in self._known.items() if what in known.looks_at]
        return connections["netns"].isin(inodes)

    def _ways(self, distinct: pd.DataFrame) -> list[Way | None]:
        """Return the way of each row, each namespace asked once; None where it cannot be asked for.

        An IPv6 socket that connects keeps the next hop that was chosen before it had a source, unless it was
        bound (tcp_v6_connect(), net/ipv6/tcp_ipv6.c); where ports are hashed, that choice cannot be repeated.
        """
        outgoing = distinct.get("direction", pd.Series(pd.NA, distinct.index)).eq("outgoing").to_numpy()
        places: dict[int, list[int]] = {}
        questions = []
        for place, row in enumerate(distinct.to_dict("records")):
            questions.append(wayquestions.question(self._known[row["netns"]], row))
            if questions[-1]:
                places.setdefault(row["netns"], []).append(place)
        found: list[Way | None] = [None] * len(questions)
        for inode, some in places.items():
            asked = {place: question for place in some if (question := questions[place])}
            ways = _each(self._known[inode], asked)
            opened = {
                place: question._replace(source=b"")
                for place, question in asked.items()
                if "flow" not in self._known[inode].looks_at
                if outgoing[place] and question.family == 6 and (ways[place].nexthops or 0) > 1
            }
            for place, way in _each(self._known[inode], opened).items():
                if way.address == ways[place].address:  # else the socket was bound before
                    ways[place] = way
            for place, way in ways.items():
                found[place] = way
        return found

    def _open(self, inodes: Collection[int]) -> list[Missing]:
        """Know just these namespaces, as they are now: a socket in another would keep it alive."""
        for inode, known in list(self._known.items()):
            if inode not in inodes or known.age_s > self._max_age_s:
                self._known.pop(inode).close()
            else:
                known.refresh()
        new = set(inodes) - set(self._known)
        silent: list[Missing] = []
        if namespaces.inode() in new:
            own = spaces.ask(None, Routing)
            self._known |= own.by_inode
            new -= set(own.by_inode)
        if new:
            found = spaces.ask(spaces.ALL, Routing, only=new)
            self._known |= found.by_inode
            silent = found.missing
        return silent

    def close(self) -> None:
        """Give the sockets back; safe to call again."""
        with self._lock:
            self._closed = True
            while self._known:
                self._known.popitem()[1].close()


def _each(known: Routing, asked: dict[int, Question]) -> dict[int, Way]:
    return dict(zip(asked, known.ways(list(asked.values())), strict=True))


def _is_ipv6(connections: pd.DataFrame) -> pd.Series[bool]:
    return connections["remote_address"].str.contains(":", regex=False).fillna(value=False).astype(bool)


def _with(
    connections: pd.DataFrame, rows: npt.NDArray[Any], codes: npt.NDArray[Any], ways: list[Way | None]
) -> pd.DataFrame:
    """Return the connections with the ways of *rows*; a row without an answer keeps what it had."""
    filled = connections.copy()
    answered = np.array([way is not None and way.type is not None for way in ways], bool)[codes]
    for ours, theirs in _FILLED.items():
        told = np.array([getattr(way, theirs, None) for way in ways], object)
        values = connections[ours].astype("string").to_numpy(object, copy=True)
        values[rows[answered]] = told[codes[answered]]
        dtype = connections[ours].dtype
        filled[ours] = pd.array(values, "string").astype("category" if dtype == "category" else dtype)
    return filled


@checks.options
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
        source address, with the socket's mark, user and ports where policy rules or the choice among several
        next hops depend on them. Where the namespace itself translates the destination, as a Kubernetes node
        does for services, the way is that to the new one. A row that has no answer keeps what it had; the
        coverage says how many, and why, and of how many the choice among several next hops cannot be
        repeated.

    Raises
    ------
    BadInput
        If the frame is of another kind.
    CaptureError
        If the cache is closed.

    Notes
    -----
    The look-ups are those of `netlab.gateway`, one for each distinct pair of addresses in a namespace, by the
    interface or VRF that the socket is bound to. Where that is not known (recordings of versions before
    `bound_ifindex`), a source address of a VRF, or of one link only (link-local), stands for it. A mark that
    rules of netfilter or tc give to single packets is not seen; where netfilter may, the coverage counts it.

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


@checks.options
def route_cache(*, max_age_s: float = _MAX_AGE_S) -> RouteCache:
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
