"""What connections say: the programs of bpf/payload.c, drained, and what was understood of it."""

from __future__ import annotations

import mmap
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from netlab.errors import CapabilityError, KernelError
from netlab.frames import Gap, Missing
from netlab.kernel import capabilities, clock
from netlab.kernel.bpf import CgroupHook, Program
from netlab.protocols.masking import STANDARD, Masking
from netlab.tracer import spokengaps
from netlab.tracer.budgets import JUDGED, PacketBudgets
from netlab.tracer.cleartext import ClearText
from netlab.tracer.closings import Closings
from netlab.tracer.conversations import Conversations
from netlab.tracer.exchanges import Fate, Kept, Request
from netlab.tracer.filters import port_condition
from netlab.tracer.layout import CONVERSATION, PASSAGE, PIECE, Counter, Direction, Large
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
_REFUSALS = ("netlab_message_refused", "inet_sk_error_report")
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
    direction: Direction = Direction.UNKNOWN  # of requests, if in one alone

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
    let_go: Mapping[str, int] = field(default_factory=dict)  # requests that made room for others, by protocol
    most: int = 0  # requests that are kept

    def lacks(self, protocol: str | None) -> list[Missing]:
        """Return what the requests lack, all or those in one protocol."""
        count = sum(self.let_go.values()) if protocol is None else self.let_go.get(protocol, 0)
        return [*spokengaps.let_go(count, self.most), *self.missing]


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
        self._kept = Kept(spoken.protocols, spoken.direction, limits.max_requests)
        self._talks = Conversations(
            self._readers,
            self._kept,
            PacketBudgets(program),
            max_open=limits.max_open,
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
        if "udp" in spoken.parts(files):
            try:
                program.attach_typed_tracepoint(*_REFUSALS)
            except KernelError as error:
                self._unheard.append(Missing("rcode", Gap.APPROXIMATE, None, f"{error}: {_UNREFUSED}"))
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
            requests, let_go = self._talks.requests(), self._kept.let_go.copy()
            account = self._talks.account()
            stacks = self._readers.stacks.by_cookie()
            asked = self._lookups.asked(self._ended_ns or clock.now_ns()) if self._lookups else Asked()
            clear = self._clear.heard(self._readers.stacks) if self._clear else None
        if clear:
            requests, stacks = requests + clear.requests, _finer(stacks, clear.stacks)
            account, let_go = clear.joined(account), let_go + clear.let_go
        unclear = [gap for gap in clear.missing if gap.count] if clear else []
        gaps = spokengaps.gaps(account, counts, self._limits) + unclear
        return Heard(
            requests,
            asked,
            [*self._unheard, *gaps, *asked.missing],
            stacks,
            clear.cookies if clear else frozenset(),
            let_go,
            self._limits.max_requests,
        )

    def totals(self, counts: dict[int, int]) -> Totals:
        """Return how much was heard by now; *counts* are the programs' counters."""
        with self._lock:
            requests, account = self._kept.totals.copy(), self._talks.account()
            now_ns = self._ended_ns or clock.now_ns()
            queries = self._lookups.totals(now_ns) if self._lookups else {}
            if self._clear:
                requests += self._clear.totals
        missed = {
            "packets": counts[Counter.PAYLOAD_LOST] + counts[Counter.CONVERSATION_LOST],
            "bytes": account.missed_bytes + account.cut_bytes,
            "unread bytes": account.unread_bytes,
            "requests": self._kept.let_go.total(),
            "connections": account.evicted,
        }
        return Totals(requests, queries, missed)


_UNREFUSED = "lookups that nobody listens to are timeouts, too"


def _lookups(spoken: Spoken, limits: Limits) -> Lookups:
    from netlab.tracer.lookups import Lookups  # it needs dnspython

    return Lookups(spoken.dns_ports, timeout_s=spoken.dns_timeout_s, max_kept=limits.max_requests)


def _finer(stacks: dict[int, str], clear: dict[int, str]) -> dict[int, str]:
    """Return what connections speak; a name may tell what clear text does not: that HTTP/2 asks for DNS."""
    return stacks | {
        cookie: stack for cookie, stack in clear.items() if not stacks.get(cookie, "").startswith(f"{stack}+")
    }
