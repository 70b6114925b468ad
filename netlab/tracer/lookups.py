"""DNS in a capture: datagrams and TCP connections on its ports, read as queries and answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import numpy as np
import pandas as pd

from netlab.errors import DecodeError
from netlab.frames import Gap, Missing
from netlab.protocols.dialog import Exchange, Side
from netlab.protocols.dns import message, names, rows, text
from netlab.protocols.dns.names import Sighting, Sightings
from netlab.protocols.dns.queries import Ends, Queries, Query
from netlab.protocols.dns.stream import Stream
from netlab.tracer.filters import Filter
from netlab.tracer.layout import AF_INET, Direction, PidSource
from netlab.tracer.packets import Packet
from netlab.tracer.payload import Asked, Spoken
from netlab.tracer.readers import DNS_OVER_TLS
from netlab.tracer.records import Attempts

_TCP = 6
_MAPPED = bytes(10) + b"\xff\xff"  # IPv4 as a socket of IPv6 sees it (RFC 4291 section 2.5.5.2)


class Lookups:
    """Every query on *ports*, and what became of it."""

    def __init__(self, ports: tuple[int, ...], *, timeout_s: float, max_kept: int) -> None:
        self.ports = frozenset(ports)
        self._seen = Sightings(max_kept)
        self._queries = Queries(timeout_s=timeout_s, max_kept=max_kept, on_answer=self._seen.add)
        self._unread = 0

    def datagram(self, packet: Packet) -> None:
        """Read one datagram."""
        said = packet.segment
        ends = ends_of(packet.cookie, packet.conversation())
        if self.ports.isdisjoint({ends.local_port, ends.remote_port}):
            return
        if packet.reset:
            self._queries.refused(ends)
            return
        try:
            read = message.read(said.data, size_bytes=said.size)
        except DecodeError:
            self._unread += 1
            return
        self._queries.said(ends, read, said.at_ns, sent=packet.local)

    def conversation(
        self, cookie: int, ends: np.void, *, client_is_local: bool, whole: bool, in_tls: bool
    ) -> OverTcp:
        """Return what reads a TCP connection."""
        asked = ends_of(cookie, ends)._replace(is_tls=in_tls)
        return OverTcp(self._queries, asked, client_is_local=client_is_local, whole=whole)

    def missed(self) -> None:
        """Take note that datagrams were lost, nobody knows whose."""
        self._queries.missed()

    def totals(self, now_ns: int) -> dict[str, int]:
        """Return how many queries are over by now, by rcode; without an answer by what became of them."""
        self._queries.expire(now_ns)
        found: Counter[str] = Counter()
        for (outcome, code), count in self._queries.totals.items():
            word = str(outcome) if code is None else text.of_rcode(code)
            found["other" if word.startswith("RCODE") else word] += count  # one that has no name
        return found

    def asked(self, now_ns: int) -> Asked:
        """Return what became of the queries by now."""
        self._queries.expire(now_ns)
        missing = rows.lacks(self._queries.account, self._unread)
        if self._seen.dropped:
            missing.append(Missing("names, remote_name", Gap.LOST, self._seen.dropped, _NAMES_DROPPED))
        return Asked(self._queries.all(), self._seen.all(), missing)


_NAMES_DROPPED = "addresses in answers made room for later ones"


@dataclass(frozen=True, slots=True)
class LookedUp:
    """Queries and who asked them, ready to be shown."""

    queries: list[Query]
    sightings: list[Sighting]
    owners: dict[int, rows.Owner]
    spoken: Spoken
    missing: list[Missing]

    @classmethod
    def of(
        cls,
        asked: Asked,
        connections: pd.DataFrame,
        spoken: Spoken,
        missing: list[Missing],
        wanted: Filter,
    ) -> LookedUp:
        """Join what was *asked* to the frame of its sockets; what is not *wanted* is left out."""
        owned = connections.dropna(subset=["cookie", "pid"]).drop_duplicates("cookie", keep="last")
        columns = (owned[name].astype(object).where(owned[name].notna(), None) for name in _OWNER)
        owners = {one: rows.Owner(*owner) for one, *owner in zip(owned["cookie"], *columns, strict=True)}
        queries, seen = asked.queries, asked.sightings
        if wanted.direction:  # which the programs do not know of a datagram
            queries = [
                query for query in queries if query.outgoing is (wanted.direction is Direction.OUTGOING)
            ]
        if wanted.by_owner:
            queries = [query for query in queries if query.ends.cookie in owners]
            seen = [one for one in seen if one.cookie in owners]
        return cls(queries, seen, owners, spoken, missing)

    def frame(self, *, to_utc_ns: int) -> pd.DataFrame:
        """Return the `dns` frame."""
        return rows.frame(
            self.queries,
            owners=self.owners,
            timeout_s=self.spoken.dns_timeout_s,
            to_utc_ns=to_utc_ns,
            mask=self.spoken.masks.domain,
            missing=self.missing,
        )

    def names(self, *, to_utc_ns: int) -> pd.DataFrame:
        """Return the `names` frame."""
        seen, mask = names.table(self.sightings, self.owners), self.spoken.masks.domain
        return names.frame(seen, to_utc_ns=to_utc_ns, mask=mask, missing=self.missing)


_OWNER = ("pid", "process", "container")


def with_names(
    connections: pd.DataFrame, asked: Asked, sockets: list[Attempts], spoken: Spoken, *, to_utc_ns: int
) -> pd.DataFrame:
    """Return *connections* with the names that their processes looked up; *sockets* tell which these are."""
    wanted = np.unique(np.array([one.cookie for one in asked.sightings], np.uint64))
    owners: dict[int, rows.Owner] = {}
    for attempts in sockets:
        theirs = attempts[np.isin(attempts["cookie"], wanted) & (attempts["pid_source"] != PidSource.NONE)]
        pids = zip(theirs["cookie"].tolist(), theirs["pid"].tolist(), strict=True)
        owners |= {cookie: rows.Owner(pid, None, None) for cookie, pid in pids}
    found = names.remote_names(connections, names.table(asked.sightings, owners), to_utc_ns=to_utc_ns)
    shown = found.map(spoken.masks.domain, na_action="ignore")
    named = connections.assign(remote_name=shown.astype("string"))
    named.attrs = connections.attrs
    return named


def encrypted(attempts: Attempts, stacks: dict[int, str], clear: AbstractSet[int]) -> list[Missing]:
    """Say how many connections ask what nobody on the way can read (RFC 7858, RFC 8484, RFC 9250).

    Of those of which *clear* text was read, inside TLS, only DNS over HTTPS is not read as DNS.
    """
    hidden = [cookie for cookie, stack in stacks.items() if stack in _SEALED]
    opened = [cookie for cookie in clear if stacks.get(cookie) != _OVER_HTTPS]
    theirs = (attempts["remote_port"] == DNS_OVER_TLS) | (attempts["local_port"] == DNS_OVER_TLS)
    theirs |= np.isin(attempts["cookie"], np.array(hidden, np.uint64))
    theirs &= ~np.isin(attempts["cookie"], np.array(opened, np.uint64))
    count = np.count_nonzero(theirs)
    return [Missing("dns", Gap.UNAVAILABLE, int(count), _ENCRYPTED)] if count else []


_OVER_HTTPS = "tls+http2+dns"
_SEALED = {"tls+dns", _OVER_HTTPS}
_ENCRYPTED = "connections of DNS over TLS, QUIC (port 853) or HTTPS (known resolvers) are encrypted"


class OverTcp:
    """The dialog of a TCP connection in DNS; what it asks goes to *queries*, and is no exchange."""

    def __init__(self, queries: Queries, ends: Ends, *, client_is_local: bool, whole: bool) -> None:
        self._queries, self._ends, self._client_is_local = queries, ends, client_is_local
        self._streams = {side: Stream(whole=whole) for side in Side}
        self.unread_bytes = 0

    def said(self, side: Side, data: bytes, at_ns: int) -> list[Exchange]:
        """Read the next bytes of *side*."""
        sent = (side is Side.CLIENT) == self._client_is_local
        for read in self._streams[side].said(data):
            self._queries.said(self._ends, read, at_ns, sent=sent)
        unread_bytes = sum(stream.unread_bytes for stream in self._streams.values())
        if unread_bytes > self.unread_bytes:
            self._queries.missed(self._ends)
        self.unread_bytes = unread_bytes
        return []

    def missed(self, side: Side, size: int | None, at_ns: int) -> list[Exchange]:  # noqa: ARG002 - a Dialog
        """Go on behind *size* bytes of *side* that were not seen."""
        self._streams[side].missed(size)
        self._queries.missed(self._ends)
        return []

    def ended(self, at_ns: int) -> list[Exchange]:
        """Take note that the connection is closed."""
        self._queries.ended(self._ends, at_ns)
        return []

    def pending(self) -> list[Exchange]:
        """Return that queries are not told as exchanges."""
        return []


def ends_of(cookie: int, conversation: np.void) -> Ends:
    """Return the ends of a CONVERSATION as DNS has them."""
    is_ipv4 = conversation["family"] == AF_INET
    return Ends(
        int(conversation["netns"]),
        cookie,
        bool(conversation["protocol"] == _TCP),
        _address(conversation["local_address"].tobytes(), is_ipv4=is_ipv4),
        int(conversation["local_port"]),
        _address(conversation["remote_address"].tobytes(), is_ipv4=is_ipv4),
        int(conversation["remote_port"]),
    )


def _address(field: bytes, *, is_ipv4: bool) -> bytes:
    return field[:4] if is_ipv4 else field.removeprefix(_MAPPED)
