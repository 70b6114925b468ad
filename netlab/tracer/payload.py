"""What connections say: the programs of bpf/payload.c, drained, and what was understood of it."""

from __future__ import annotations

import mmap
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from netlab.errors import CapabilityError
from netlab.frames import Cause, Gap, Missing
from netlab.kernel import capabilities, clock
from netlab.kernel.bpf import CgroupHook, Program
from netlab.protocols.masking import STANDARD, Masking
from netlab.tracer.account import Account
from netlab.tracer.budgets import JUDGED, PacketBudgets
from netlab.tracer.cleartext import ClearText
from netlab.tracer.closings import Closings
from netlab.tracer.conversations import Conversations, Fate, Request
from netlab.tracer.filters import port_condition
from netlab.tracer.layout import CONVERSATION, PASSAGE, PIECE, Counter, Large
from netlab.tracer.limits import Limits
from netlab.tracer.readers import DNS_OVER_TLS, Readers
from netlab.tracer.records import Attempts

if TYPE_CHECKING:
    from netlab.protocols.dns.names import Sighting
    from netlab.protocols.dns.queries import Query
    from netlab.tracer.lookups import Lookups

payload_layouts = {"netlab_conversation": CONVERSATION, "netlab_passage": PASSAGE, "netlab_piece": PIECE}

_HOOKS = {
    "tcp": {
        "netlab_segment_received": CgroupHook.INET_INGRESS,
        "netlab_segment_sent": CgroupHook.INET_EGRESS,
    },
    "udp": {
        "netlab_message_received": CgroupHook.INET_INGRESS,
        "netlab_message_sent": CgroupHook.INET_EGRESS,
    },
}
_BLIND = (Counter.PAYLOAD_LOST, Counter.PAYLOAD_WHILE_PAUSED)  # of datagrams that were not seen
_PIECES_FEW = 32  # 16 KiB of one packet
_PIECES_MAX = 128  # 64 KiB, the largest but for senders on loopback; the kernel's verifier walks through each
_LARGE_SHARE = 2  # of a ring half is for what is large; where that is full, the rest is for what is small
_UNJUDGED_BYTES = 1 << 19  # a fast connection's first 50 ms: only then user space has read what it speaks


@dataclass(frozen=True, slots=True)
class Spoken:
    """What of the payload is wanted."""

    protocols: frozenset[str] = frozenset()
    dns_ports: tuple[int, ...] = ()
    dns_timeout_s: float = 0.0
    masks: Masking = STANDARD
    clear_text: bool = False  # what is inside TLS, too

    def __bool__(self) -> bool:
        return bool(self.protocols)

    def only_ports(self) -> tuple[int, ...]:
        """Return the only ports of TCP on which something is wanted; none: there may be on any."""
        if self.protocols != {"dns"}:
            return ()
        return (*self.dns_ports, *[DNS_OVER_TLS] * self.clear_text)

    def parts(self, files: list[str]) -> list[str]:
        """Return which of *files* payload is read of."""
        return [file for file in files if file == "tcp" or "dns" in self.protocols]


def payload_macros(files: list[str], spoken: Spoken, limits: Limits) -> dict[str, str]:
    """Return what bpf/payload.c has to know, when it is compiled with the others of *files*."""
    parts = spoken.parts(files)
    return {
        "NETLAB_PAYLOAD_TCP": str(int("tcp" in parts)),
        "NETLAB_PAYLOAD_UDP": str(int("udp" in parts)),
        "NETLAB_WANTED_DATAGRAM(p)": port_condition(spoken.dns_ports),
        "NETLAB_WANTED_SEGMENT(p)": port_condition(spoken.only_ports()),
        "NETLAB_JUDGED": str(JUDGED),
        "NETLAB_PIECES_FEW": str(_PIECES_FEW),
        "NETLAB_PIECES_MAX": str(_PIECES_MAX),
        "NETLAB_LARGE_BYTES": str(limits.piece_pages * mmap.PAGESIZE // _LARGE_SHARE),
        "NETLAB_LARGE_CLEAR_BYTES": str(limits.clear_pages * mmap.PAGESIZE // _LARGE_SHARE),
        "NETLAB_UNJUDGED_BYTES": str(_UNJUDGED_BYTES),
    }


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked of DNS by some moment, what answers brought, and what is in no row."""

    queries: list[Query] = field(default_factory=list)
    sightings: list[Sighting] = field(default_factory=list)
    missing: list[Missing] = field(default_factory=list)

    def cookies(self) -> list[int]:
        """Return whose sockets it is about."""
        return list({*(query.ends.cookie for query in self.queries), *(one.cookie for one in self.sightings)})


@dataclass(frozen=True, slots=True)
class Heard:
    """What a capture has heard by some moment."""

    requests: list[Request]
    asked: Asked
    missing: list[Missing]
    stacks: dict[int, str] = field(default_factory=dict)  # what connections speak, by cookie
    clear: frozenset[int] = frozenset()  # those that were read inside TLS, by cookie


@dataclass(frozen=True, slots=True)
class Totals:
    """How much was heard since a capture began, also of what is not kept any more: it only grows."""

    requests: Mapping[Fate, int]
    queries: Mapping[str, int]  # of DNS, by rcode, or what became of those without an answer
    missed: Mapping[str, int]


class PayloadSource:
    """Reads what connections say as long as *program* is attached."""

    def __init__(self, program: Program, files: list[str], spoken: Spoken, limits: Limits) -> None:
        self._lock = threading.RLock()
        self._limits = limits
        self._lookups = _lookups(spoken, limits) if "dns" in spoken.protocols else None
        self._readers = Readers(spoken.protocols, self._lookups, spoken.masks)
        self._talks = Conversations(
            self._readers,
            spoken.protocols,
            PacketBudgets(program),
            max_open=limits.max_open,
            max_requests=limits.max_requests,
        )
        self._ring = program.ring("netlab_pieces", PIECE)
        self._counters = program.map("netlab_counters", "u4", "u8")
        self._large = program.map("netlab_large", "u4", "u8")
        self._lost = 0
        self._ended_ns: int | None = None
        self.closings = Closings()
        root = capabilities.cgroup2_mount()
        if root is None:
            raise CapabilityError(
                "no cgroup v2 tree is mounted, and payload is read on its root",
                fix=f"Run: {capabilities.MOUNT_CGROUP2}; or leave protocols out",
            )
        outside = capabilities.outside_cgroup(root)
        self._unheard = [Missing("requests", Gap.UNSEEN, None, f"{outside} none is heard")] if outside else []
        for file in spoken.parts(files):
            for function, hook in _HOOKS[file].items():
                program.attach_cgroup(function, root, hook)
        self._clear = ClearText(program, root, spoken, self._lookups, limits) if spoken.clear_text else None

    def drain(self) -> None:
        """Take over what was said since the last call."""
        with self._lock:
            self._take(final=False)
            if self._clear:
                self._clear.drain(self._readers.stacks)

    def last(self) -> None:
        """Read what waits for nothing any more."""
        with self._lock:
            self._take(final=True)
            if self._clear:
                self._clear.last()
            self._ended_ns = clock.now_ns()

    def _take(self, *, final: bool) -> None:
        closed = self.closings.turn()
        pieces = self._ring.read()
        if len(pieces):
            self._large.set(Large.LARGE_SEGMENTS, 0)
        if len(pieces) or self._talks.is_cut:
            self._talks.take(pieces, final=final)
        for attempt in [*closed, *(self.closings.turn() if final else ())]:
            self._talks.closed(attempt)
        if self._lookups:
            lost = sum(int(self._counters.get(counter) or 0) for counter in _BLIND)
            if lost > self._lost:
                self._lookups.missed()
            self._lost = lost

    def expect(self, listed: Attempts) -> None:
        """Tell of the connections that were open before."""
        with self._lock:
            self._talks.expect(listed["cookie"], listed["direction"])
            if self._clear:
                self._clear.expect(listed)

    def heard(self, counts: dict[int, int]) -> Heard:
        """Return what was understood by now, and what was not; *counts* are the programs' counters."""
        with self._lock:
            requests, account = self._talks.requests(), self._talks.account()
            stacks = self._readers.stacks.by_cookie()
            asked = self._lookups.asked(self._ended_ns or clock.now_ns()) if self._lookups else Asked()
            clear = self._clear.heard(self._readers.stacks) if self._clear else None
        if clear:
            requests, stacks = requests + clear.requests, _finer(stacks, clear.stacks)
            account = clear.joined(account)
        gaps = _gaps(account, counts, self._limits) + (clear.missing if clear else [])
        gaps = [gap for gap in gaps if gap.count]
        return Heard(
            requests,
            asked,
            [*self._unheard, *gaps, *asked.missing],
            stacks,
            clear.cookies if clear else frozenset(),
        )

    def totals(self, counts: dict[int, int]) -> Totals:
        """Return how much was heard by now; *counts* are the programs' counters."""
        with self._lock:
            requests, account = self._talks.totals.copy(), self._talks.account()
            now_ns = self._ended_ns or clock.now_ns()
            queries = self._lookups.totals(now_ns) if self._lookups else {}
            if self._clear:
                requests += self._clear.totals
        missed = {
            "packets": counts[Counter.PAYLOAD_LOST] + counts[Counter.CONVERSATION_LOST],
            "bytes": account.missed_bytes + account.cut_bytes,
            "unread bytes": account.unread_bytes,
            "requests": account.dropped,
            "connections": account.evicted,
        }
        return Totals(requests, queries, missed)


def _lookups(spoken: Spoken, limits: Limits) -> Lookups:
    from netlab.tracer.lookups import Lookups  # it needs dnspython

    return Lookups(spoken.dns_ports, timeout_s=spoken.dns_timeout_s, max_kept=limits.max_requests)


def _finer(stacks: dict[int, str], clear: dict[int, str]) -> dict[int, str]:
    """Return what connections speak; a name may tell what clear text does not: that HTTP/2 asks for DNS."""
    return stacks | {
        cookie: stack for cookie, stack in clear.items() if not stacks.get(cookie, "").startswith(f"{stack}+")
    }


def _gaps(account: Account, counts: dict[int, int], limits: Limits) -> list[Missing]:
    return [
        Missing("requests", Gap.LOST, counts[Counter.PAYLOAD_LOST], _RING, Cause.RING_FULL),
        Missing("requests", Gap.LOST, counts[Counter.CONVERSATION_LOST], _MAP),
        Missing("requests", Gap.LOST, account.dropped, _OLDEST.format(limits.max_requests), Cause.LET_GO),
        Missing(
            "requests", Gap.LOST, account.evicted, f"more than {limits.max_open} connections spoke: {_SILENT}"
        ),
        Missing("requests", Gap.UNSEEN, counts[Counter.PAYLOAD_WHILE_PAUSED], _PAUSED),
        Missing("requests", Gap.UNSEEN, account.midway, _MIDWAY + _since(account.midway_since_ns)),
        Missing("requests", Gap.UNSEEN, account.missed_bytes, _BYTES),
        Missing("requests", Gap.UNSEEN, account.cut_bytes, _CUT),
        Missing("requests", Gap.UNAVAILABLE, account.unread_bytes, _UNREAD),
        Missing("requests", Gap.UNSEEN, account.unknown_fields, _FIELDS),
        Missing("requests", Gap.LOST, account.given_up, _CROWDED),
        Missing("requests", Gap.UNAVAILABLE, account.switched, _SWITCHED),
        Missing("requests", Gap.UNAVAILABLE, account.ignored + account.over_tls, _IGNORED),
        Missing("requests", Gap.UNAVAILABLE, account.undecided, _UNDECIDED),
    ]


def _since(at_ns: int) -> str:
    if not at_ns:
        return ""
    return f", on all of them since {np.datetime64(at_ns + clock.to_utc_ns(), 'ns').astype('M8[s]')} UTC"


_OLDEST = "the oldest of more than {}"
_RING = "packets whose payload, or the end of it, did not fit into the ring buffer"
_MAP = "packets of connections that did not fit into the map"
_SILENT = "those silent for longest were given up"
_CROWDED = "answers to the oldest streams of HTTP/2, where more were open on a connection than are followed"
_PAUSED = "packets of connections that began while the capture was paused"
_MIDWAY = (
    "connections were not followed from their first byte: read from the first message that is surely whole"
)
_BYTES = "bytes of connections that are read were lost on the way to netlab"
_CUT = (
    "bytes of connections that are read were not looked at: of a packet, or call inside TLS, only the first "
    "64 KiB are, 16 or half of one where netlab falls behind, and of a connection 512 until its kind is clear"
)
_UNREAD = "bytes of connections that are read could not be understood"
_FIELDS = "header fields of HTTP/2 name others that were sent before netlab looked"
_SWITCHED = (
    "connections went on in what is not read: an upgrade such as to WebSocket, CONNECT to what is not "
    "asked for, Redis' MONITOR, replication"
)
_IGNORED = "connections spoke something else than the protocols asked for"
_UNDECIDED = "connections said too little to tell what they speak"
