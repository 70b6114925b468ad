"""Lists of sockets outside of Linux: what psutil lists, as attempt records with owners.

No system but Linux numbers its sockets. What tells one from others here is its tuple, and nothing else: whose
it is may change while it is open, when a process hands it on or the system does not say for a moment. A tuple
keeps its number until the socket is known to be gone. That number takes the place of the cookie in here, and
no frame shows it.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from netlab.frames import Gap, Missing
from netlab.kernel import elsewhere
from netlab.kernel.elsewhere import Ends, Socket
from netlab.kernel.processes import Process
from netlab.kernel.sockdiag import State
from netlab.tracer.holders import Holders
from netlab.tracer.layout import AF_INET, AF_INET6, ATTEMPT, Direction, PidSource
from netlab.tracer.records import Attempts, Cookies
from netlab.tracer.snapshot import Snapshot
from netlab.tracer.system import NO_REASON, System
from netlab.tracer.translated import WHAT
from netlab.tracer.translations import Host, NoTranslations

# psutil's words of those that are connections: none that listens, is half open, or is only remembered.
_STATES = {
    "ESTABLISHED": State.ESTABLISHED,
    "SYN_SENT": State.SYN_SENT,
    "FIN_WAIT1": State.FIN_WAIT_1,
    "FIN_WAIT2": State.FIN_WAIT_2,
    "CLOSE_WAIT": State.CLOSE_WAIT,
    "LAST_ACK": State.LAST_ACK,
    "CLOSING": State.CLOSING,
}
_DYNAMIC = range(49152, 65536)  # RFC 6335 section 6, from which macOS and Windows take a client's port
_NO_CLIENTS = range(1, 32768)  # where no system of today takes a client's port from, Linux neither
_ANY4, _ANY6 = bytes(4), bytes(16)
_MAPPED = bytes(10) + b"\xff\xff"  # RFC 4291 section 2.5.5.2

_NOT_HERE = "not available on this system"
_COUNTERS = (
    "bytes_sent, bytes_received, packets_sent, packets_received, receive_drops, retransmits, "
    "syn_retransmits, rtt_ms, rtt_var_ms, min_rtt_ms, cwnd, out_of_order, rtos, rwnd_limited_ms, "
    "receive_queue_bytes, send_queue_bytes, last_packet_at, assured"
)
_OUTCOME = "error, reason, connect_ms"
_LINUX_ONLY = "uid, netns, nspid, mark, bound_ifindex, cgroup, container, cookie, inode"
_NAT = "nat_local_address, nat_local_port, nat_remote_address, nat_remote_port"
_AGAIN = "this system does not number its sockets: a tuple that is used again between two looks is one row"
_UNCONNECTED = "UDP flows of sockets that are not connected; Windows lists every UDP socket as such"
_NEVER_TOLD = tuple(
    Missing(what, kind, None, detail)
    for what, kind, detail in (
        (_OUTCOME, Gap.UNAVAILABLE, NO_REASON),
        (_COUNTERS, Gap.UNAVAILABLE, f"{_NOT_HERE}: psutil lists sockets without their counters"),
        (_LINUX_ONLY, Gap.UNAVAILABLE, f"{_NOT_HERE}: Linux's, or not in psutil's list"),
        ("via_*", Gap.UNAVAILABLE, f"{_NOT_HERE}: netlab reads routes from Linux's kernel"),
        ("direction", Gap.APPROXIMATE, "told from the ports, and unknown where those do not tell"),
        ("process", Gap.APPROXIMATE, "the first 15 bytes of the name, as on Linux"),
        ("connections", Gap.APPROXIMATE, _AGAIN),
        ("connections", Gap.UNSEEN, _UNCONNECTED),
    )
)
_NO_NAT = Missing(
    WHAT, Gap.UNAVAILABLE, None, f"{_NOT_HERE}: netlab reads translations from Linux's conntrack"
)
_OTHER_USERS = Missing(
    "connections",
    Gap.UNSEEN,
    None,
    "those of other users' processes: this system tells only root of them (macOS: run Python by sudo)",
)


class Portable(System):
    """What psutil lists, and which numbers its sockets have here.

    The direction is told where the list shows it, and is "unknown" otherwise:

    - outgoing, if the socket waits for the answer to its SYN;
    - else incoming, if another one listens on its local port;
    - else outgoing, if the remote end is an address of this host where a socket listens on the port;
    - else outgoing, if the local port is one that systems give to clients and the remote port none that they
      do.

    Of UDP a socket without a peer counts as one that listens. What was told once stays.
    """

    untold = frozenset(f"{_COUNTERS}, {_OUTCOME}, {_LINUX_ONLY}, {_NAT}".split(", "))
    missing = _NEVER_TOLD
    ownerless = (
        "this system did not say whose they are: without privileges it tells only of one's own processes"
    )

    def __init__(self) -> None:
        elsewhere.required()
        self._followed: dict[Ends, _Followed] = {}
        self._last = 0  # the highest number given
        self._running: dict[int, Process] = {}
        self._lock = threading.Lock()

    def take(
        self,
        only: Collection[int] | None = None,
        *,
        protocol: int = 0,
        holders: Holders | None = None,
        ownerless: Cookies | None = None,
    ) -> Snapshot:
        """List the sockets that have a peer; with *only*, which names no namespace here, known ones."""
        del holders, ownerless  # psutil lists sockets by their owners
        listed = elsewhere.sockets(protocol)
        there = connected(listed.sockets)
        with self._lock:
            if only is not None:
                there = {ends: one for ends, one in there.items() if ends in self._followed}
            self._running = elsewhere.describe(_pids(there.values()), self._running)
            servers = Servers.of(listed.sockets)
            followed = [self._follow(one, servers) for one in there.values()]
            records = _records(list(there), followed)
        return Snapshot(
            records,
            np.array([_STATES.get(one.state, State.ESTABLISHED) for one in there.values()], np.uint8),
            np.zeros(len(there), np.uint64),
            {one.owner.pid: one.owner for one in followed if one.owner},
            [_OTHER_USERS] if listed.only_own else [],
        )

    def _follow(self, one: Socket, servers: Servers) -> _Followed:
        """Return what is known of a socket by now."""
        known = self._followed.get(one.ends)
        if known is None:
            self._last += 1
            known = self._followed[one.ends] = _Followed(self._last)
        if one.pid is not None and (one.pid in self._running or not known.is_of(one.pid)):
            known.owner = self._running.get(one.pid) or elsewhere.known_by(one.pid)
        if known.direction is Direction.UNKNOWN:
            known.direction = servers.direction(one)
        return known

    def opens(self) -> None:
        """Return that nobody counts."""

    def running(self, pids: Collection[int]) -> dict[int, Process]:
        """Return what psutil says."""
        return elsewhere.describe(pids)

    def translations(self, host: Host | None, wanted: Collection[int], most: int) -> NoTranslations:
        """Say that there is nothing to follow."""
        del host, wanted, most
        return NoTranslations(_NO_NAT)

    def forget(self, cookies: Iterable[int]) -> None:
        """Give the tuples of these sockets another number when they come again."""
        gone = set(cookies)
        with self._lock:
            self._followed = {ends: one for ends, one in self._followed.items() if one.number not in gone}


@dataclass(slots=True)
class _Followed:
    """A socket's number, who held it when the system last said so, and who began."""

    number: int
    owner: Process | None = None
    direction: Direction = Direction.UNKNOWN

    def is_of(self, pid: int) -> bool:
        """Tell whether that process held it by then."""
        return self.owner is not None and self.owner.pid == pid


@dataclass(frozen=True, slots=True)
class Servers:
    """Where sockets listen, as protocol, address and port; and the addresses of this host that are in use."""

    listening: frozenset[tuple[int, bytes, int]]
    addresses: frozenset[bytes]

    @classmethod
    def of(cls, sockets: Iterable[Socket]) -> Servers:
        """Return those of a whole list."""
        listening, addresses = set(), set()
        for one in sockets:
            address = _plain(one.ends.local)
            addresses.add(address)
            if one.state == "LISTEN" or (one.ends.protocol == socket.IPPROTO_UDP and not one.ends.remote):
                listening.add((one.ends.protocol, address, one.ends.local_port))
        return cls(frozenset(listening), frozenset(addresses - {_ANY4, _ANY6}))

    def direction(self, one: Socket) -> Direction:
        """Tell who began, by the rules of `Portable`."""
        if one.state == "SYN_SENT":
            return Direction.OUTGOING
        ends = one.ends
        local, remote = _plain(ends.local), _plain(ends.remote)
        if self._listens(ends.protocol, local, ends.local_port):
            return Direction.INCOMING
        to_here = remote in self.addresses and self._listens(ends.protocol, remote, ends.remote_port)
        of_client = ends.local_port in _DYNAMIC and ends.remote_port in _NO_CLIENTS
        return Direction.OUTGOING if to_here or of_client else Direction.UNKNOWN

    def _listens(self, protocol: int, address: bytes, port: int) -> bool:
        anywhere = (_ANY6, _ANY4) if len(address) == len(_ANY4) else (_ANY6,)
        return any((protocol, place, port) in self.listening for place in (address, *anywhere))


def connected(sockets: Iterable[Socket]) -> dict[Ends, Socket]:
    """Return the sockets that are connections; of one that several processes hold that of the oldest."""
    found: dict[Ends, Socket] = {}
    for one in sockets:
        if not one.ends.remote or not (one.ends.protocol == socket.IPPROTO_UDP or one.state in _STATES):
            continue
        known = found.setdefault(one.ends, one)
        if one.pid is not None and (known.pid is None or one.pid == elsewhere.oldest([one.pid, known.pid])):
            found[one.ends] = one
    return found


def _pids(sockets: Iterable[Socket]) -> set[int]:
    return {one.pid for one in sockets if one.pid is not None}


def _plain(address: bytes) -> bytes:
    """Return an address as it is compared: a mapped one as the IPv4 address in it."""
    return address.removeprefix(_MAPPED)


def _records(every: list[Ends], followed: list[_Followed]) -> Attempts:
    records = np.zeros(len(every), ATTEMPT)
    records["protocol"] = [ends.protocol for ends in every]
    records["family"] = [AF_INET if len(ends.local) == len(_ANY4) else AF_INET6 for ends in every]
    records["local_address"] = _places([ends.local for ends in every])
    records["remote_address"] = _places([ends.remote for ends in every])
    records["local_port"] = [ends.local_port for ends in every]
    records["remote_port"] = [ends.remote_port for ends in every]
    records["cookie"] = [one.number for one in followed]
    records["direction"] = [one.direction for one in followed]
    owned = np.array([one.owner is not None for one in followed], bool)
    owners = [one.owner for one in followed if one.owner]
    records["pid"][owned] = [owner.pid for owner in owners]
    records["process"][owned] = [owner.name.encode()[:15] for owner in owners]
    records["process_started_ns"][owned] = [owner.started_ns for owner in owners]
    records["pid_source"][owned] = PidSource.SOCKET
    return records


def _places(addresses: list[bytes]) -> npt.NDArray[np.uint8]:
    """Return addresses as 16 bytes each, of which IPv4 fills the first four."""
    return np.frombuffer(b"".join(one.ljust(16, b"\0") for one in addresses), np.uint8).reshape(-1, 16)
