"""What one flow is translated to: a single question to conntrack instead of a dump."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from enum import StrEnum

from netlab import checks
from netlab.errors import BadInput
from netlab.kernel import conntrack, ctentries, ctframe, ctwanted, netlink, netns as namespaces, spaces
from netlab.kernel.ctentries import ORIGINAL, ZONE
from netlab.kernel.nlattr import attribute, nested
from netlab.kernel.rtnetlink import text

_ICMP = {1: (4, 5, 6, 8), 58: (7, 8, 9, 128)}  # attributes of id, type and code; the type of an echo request
_REPLIES = {1: 0, 58: 129}


class Direction(StrEnum):
    """Which way a packet with the tuple that was asked for goes."""

    ORIGINAL = "original"
    REPLY = "reply"


class Side(StrEnum):
    """On which side of the translation the tuple that was asked for is seen."""

    BEFORE = "before"
    AFTER = "after"


@dataclass(frozen=True, slots=True)
class Translation:
    """The tuple at the other side of the translation; equal to the one asked for if nothing is translated."""

    protocol: str | int
    src: str
    sport: int | None  # ICMP: the identifier
    dst: str
    dport: int | None
    direction: Direction
    asked: Side
    netns: int  # inode


@dataclass(frozen=True, slots=True)
class _Tuple:
    src: str
    sport: int | None
    dst: str
    dport: int | None

    def turned(self) -> _Tuple:
        """Return the tuple of an answer; an ICMP identifier stays where it is."""
        if self.dport is None:
            return _Tuple(self.dst, self.sport, self.src, None)
        return _Tuple(self.dst, self.dport, self.src, self.sport)


@checks.options
def translate(
    protocol: str | int,
    src: str,
    sport: int,
    dst: str,
    dport: int | None = None,
    *,
    netns: namespaces.NetNs = None,
    zone: int = 0,
) -> Translation | None:
    """Say what a packet's addresses and ports become, or were, where a network namespace translates them.

    Parameters
    ----------
    protocol
        "tcp", "udp", "udplite", "sctp", "dccp", "icmp" or "icmpv6", or the number of one.
    src, sport, dst, dport
        The packet as it is seen at either side of the namespace, in either direction. ICMP: *sport* is the
        identifier of an echo, and *dport* is left out.
    netns
        A name under /run/netns, a path, a process id, or None for the calling thread's namespace.
    zone
        The conntrack zone to look in.

    Returns
    -------
    Translation or None
        The packet at the other side; None if no such flow is tracked there. `asked` tells whether the given
        packet is one before or after translation, `direction` whether it goes with the flow or answers it.

    Raises
    ------
    BadInput
        If an argument cannot be right; the kernel was not asked then.
    CapabilityError
        Without CAP_NET_ADMIN, which ctnetlink asks for.

    Notes
    -----
    One IPCTNL_MSG_CT_GET, which finds an entry by either of its tuples, those of packets before translation
    (nf_conntrack_find_get()). If there is none, a second one asks for the answer to the given packet: that
    is how a packet after translation is found.

    Examples
    --------
    >>> import netlab
    >>> print(netlab.translate("tcp", "192.0.2.1", 1024, "192.0.2.2", 80))
    None
    """
    number = _with_identifiers(protocol)
    places = ctwanted.packed(src, "src"), ctwanted.packed(dst, "dst")
    if len(places[0]) != len(places[1]):
        raise BadInput(f"src {src!r} and dst {dst!r} are of two families", fix="Give two of one family")
    zone = checks.whole("zone", zone, 0, 65535)
    if number in _ICMP:
        sport = checks.whole("sport", sport, 0, 65535)
        if dport is not None:
            raise BadInput(f"dport {dport!r} has no meaning for {protocol}", fix="Leave it out")
    else:
        sport, dport = checks.port(sport, "sport"), checks.port(dport, "dport")
    asked = _Tuple(text(places[0]), sport, text(places[1]), dport)
    answers = spaces.ask(netns, lambda: _found(number, asked, zone))
    ((inode, found),) = answers.by_inode.items()
    if found is None:
        return None
    side, original, reply = found
    direction, end = _other_side(asked, side, original, reply)
    return Translation(protocol, end.src, end.sport, end.dst, end.dport, direction, side, inode)


def in_zones(protocol: str, src: str, sport: int, dst: str, dport: int) -> list[Translation]:
    """Return what a packet becomes in the calling thread's namespace, by each conntrack zone that has it.

    Where the default zone has it the others are not looked through, which takes a dump.
    """
    found = translate(protocol, src, sport, dst, dport)
    if found is not None:
        return [found]
    listed = conntrack.conntrack(protocol=protocol, address=src, port=sport)
    zones = sorted(set(listed["zone"].tolist()) - {0})
    told = [translate(protocol, src, sport, dst, dport, zone=zone) for zone in zones]
    return [one for one in told if one is not None]


def _with_identifiers(protocol: str | int) -> int:
    number = ctwanted.protocol_number(protocol)
    if number not in ctwanted.WITH_PORTS and number not in _ICMP:
        raise BadInput(
            f"protocol {protocol!r} has no ports to look up", fix="netlab.nat(protocol=…) lists its flows"
        )
    return number


def _found(number: int, asked: _Tuple, zone: int) -> tuple[Side, _Tuple, _Tuple] | None:
    """Return the side that *asked* is seen at, and the original and the reply tuple of its flow."""
    for side, wanted in ((Side.BEFORE, asked), (Side.AFTER, asked.turned())):
        for kind in (False, True) if number in _ICMP else (False,):
            answer = netlink.get(
                conntrack.NETFILTER,
                conntrack.GET,
                _request(number, wanted, zone, answering=kind),
                doing="look up a conntrack entry",
                module=conntrack.MODULE,
            )
            for part in ctframe.parts_of(answer, 0):
                return side, *_tuples(part.entries)
    return None


def _request(number: int, wanted: _Tuple, zone: int, *, answering: bool) -> bytes:
    source, target = ctwanted.packed(wanted.src), ctwanted.packed(wanted.dst)
    first = 1 if len(source) == 4 else 3  # CTA_IP_V4_SRC or CTA_IP_V6_SRC; the destination follows
    sport = (wanted.sport or 0).to_bytes(2, "big")
    if wanted.dport is None:
        identifier, kind, code, request = _ICMP[number]
        echo = _REPLIES[number] if answering else request
        fields = [attribute(identifier, sport), attribute(kind, bytes([echo])), attribute(code, b"\0")]
    else:
        fields = [attribute(2, sport), attribute(3, wanted.dport.to_bytes(2, "big"))]
    addressed = nested(1, attribute(first, source), attribute(first + 1, target))
    tuple_ = nested(ORIGINAL, addressed, nested(2, attribute(1, bytes([number])), *fields))
    family = socket.AF_INET if len(source) == 4 else socket.AF_INET6
    in_zone = attribute(ZONE, zone.to_bytes(2, "big")) if zone else b""
    return bytes([family, 0, 0, 0]) + tuple_ + in_zone


def _tuples(entries: ctentries.Entries) -> tuple[_Tuple, _Tuple]:
    def side(prefix: str) -> _Tuple:
        sport, dport = (entries.numbers[f"{prefix}{name}"] for name in ("sport", "dport"))
        return _Tuple(
            text(entries.places[f"{prefix}src"][0].tobytes()),
            None if sport is None else int(sport[0]),
            text(entries.places[f"{prefix}dst"][0].tobytes()),
            None if dport is None else int(dport[0]),
        )

    return side(""), side("reply_")


def _other_side(asked: _Tuple, side: Side, original: _Tuple, reply: _Tuple) -> tuple[Direction, _Tuple]:
    before = {Direction.ORIGINAL: original, Direction.REPLY: reply}
    after = {Direction.ORIGINAL: reply.turned(), Direction.REPLY: original.turned()}
    here, there = (before, after) if side is Side.BEFORE else (after, before)
    direction = next(way for way, packet in here.items() if packet == asked)
    return direction, there[direction]
