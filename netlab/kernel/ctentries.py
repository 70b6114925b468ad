"""One conntrack entry's attributes as columns: the tables of ctnetlink, and the decoder of one group.

Source: include/uapi/linux/netfilter/nfnetlink_conntrack.h, nf_conntrack_common.h, nf_conntrack_tcp.h and
nf_conntrack_sctp.h. What an attribute carries is big-endian.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from netlab.kernel import netlink

Array: TypeAlias = npt.NDArray[Any]
Flags: TypeAlias = npt.NDArray[np.bool_]

# Attribute paths: enum ctattr_type, then the enums of what is nested in it.
_ORIGINAL, _REPLY = 1, 2
_TCP_STATE, _SCTP_STATE = (4, 1, 1), (4, 3, 1)
_STATUS, _TIMEOUT, _MARK, _ID = (3,), (7,), (8,), (12,)
_ZONES = (18,), (_ORIGINAL, 3), (_REPLY, 3)  # of the entry, or of one direction only
_ICMP_TYPES, _ICMP_CODES = ((_ORIGINAL, 2, 5), (_ORIGINAL, 2, 8)), ((_ORIGINAL, 2, 6), (_ORIGINAL, 2, 9))
_COUNTERS = {"packets": (9, 1), "bytes": (9, 2), "reply_packets": (10, 1), "reply_bytes": (10, 2)}

_PROTOCOLS = {  # not from /etc/protocols, which differs between hosts
    1: "icmp",
    2: "igmp",
    6: "tcp",
    17: "udp",
    33: "dccp",
    47: "gre",
    50: "esp",
    51: "ah",
    58: "icmpv6",
    132: "sctp",
    136: "udplite",
}
NUMBERS = {name: number for number, name in _PROTOCOLS.items()}

# enum tcp_conntrack and enum sctp_conntrack, spelt as conntrack(8) prints them.
_TCP = [
    "NONE",
    "SYN_SENT",
    "SYN_RECV",
    "ESTABLISHED",
    "FIN_WAIT",
    "CLOSE_WAIT",
    "LAST_ACK",
    "TIME_WAIT",
    "CLOSE",
    "SYN_SENT2",
]
_SCTP = [
    "NONE",
    "CLOSED",
    "COOKIE_WAIT",
    "COOKIE_ECHOED",
    "ESTABLISHED",
    "SHUTDOWN_SENT",
    "SHUTDOWN_RECD",
    "SHUTDOWN_ACK_SENT",
    "HEARTBEAT_SENT",
    "HEARTBEAT_ACKED",
]
STATES = list(dict.fromkeys([*_TCP, *_SCTP]))
_STATE_PLACES = {
    path: np.array([STATES.index(name) for name in names] + [-1] * (256 - len(names)))
    for path, names in ((_TCP_STATE, _TCP), (_SCTP_STATE, _SCTP))
}

_FLAGS = [
    "expected",
    "seen-reply",
    "assured",
    "confirmed",
    "src-nat",
    "dst-nat",
    "seq-adjust",
    "src-nat-done",
    "dst-nat-done",
    "dying",
    "fixed-timeout",
    "template",
    "untracked",
    "helper",
    "offload",
    "hw-offload",
]
NAT = {1: "snat", 2: "dnat", 3: "both"}


@dataclass(frozen=True, slots=True)
class Entries:
    """Entries of one layout: *places* are (n, 4) or (n, 16) address bytes; None is an absent attribute."""

    places: dict[str, Array]
    numbers: dict[str, Array | None]

    def __len__(self) -> int:
        return len(self.places["src"])

    def where(self, keep: Flags) -> Entries:
        """Return only the entries that *keep* selects."""
        return Entries(
            {name: values[keep] for name, values in self.places.items()},
            {name: None if values is None else values[keep] for name, values in self.numbers.items()},
        )


def decoded(group: netlink.Group) -> Entries:
    """Return the entries of one group; names of columns are those of `netlab.schemas.CONNTRACK`.

    `state` has places in STATES, `nat` keys of NAT or 0, the others what the kernel says.
    """
    family = family_of(group.length((_ORIGINAL, 1, 1)))
    places, numbers = _tuple(group, _ORIGINAL, family, "")
    reply_places, reply_numbers = _tuple(group, _REPLY, family, "reply_")
    places |= reply_places
    numbers |= reply_numbers
    zone = _first(group, ">u2", *_ZONES)
    numbers |= {
        "protocol": group.get((_ORIGINAL, 2, 1), "u1"),
        "family": np.full(len(group.rows), family),
        "state": _state(group),
        "status": group.get(_STATUS, ">u4"),
        "timeout_s": group.get(_TIMEOUT, ">u4"),
        **{name: group.get(path, ">u8") for name, path in _COUNTERS.items()},
        "mark": group.get(_MARK, ">u4"),
        "zone": np.zeros(len(group.rows), np.int64) if zone is None else zone,  # the default zone is not sent
        "id": group.get(_ID, ">u4"),
        "icmp_type": _first(group, "u1", *_ICMP_TYPES),
        "icmp_code": _first(group, "u1", *_ICMP_CODES),
    }
    numbers["nat"] = _translation(places, numbers)
    return Entries(places, numbers)


def _tuple(
    group: netlink.Group, side: int, family: int, prefix: str
) -> tuple[dict[str, Array], dict[str, Array | None]]:
    source = 1 if family == 4 else 3  # CTA_IP_V4_SRC or CTA_IP_V6_SRC; the destination follows
    places = {
        f"{prefix}src": group.octets((side, 1, source)),
        f"{prefix}dst": group.octets((side, 1, source + 1)),
    }
    numbers = {
        f"{prefix}sport": _first(group, ">u2", (side, 2, 2), (side, 2, 4), (side, 2, 7)),  # port, ICMP ids
        f"{prefix}dport": group.get((side, 2, 3), ">u2"),
    }
    return places, numbers


def _first(group: netlink.Group, dtype: str, *paths: netlink.Path) -> Array | None:
    found = (group.get(path, dtype) for path in paths)
    return next((values for values in found if values is not None), None)


def _state(group: netlink.Group) -> Array | None:
    """Return places in STATES, -1 for a state that has no name here."""
    for path, places in _STATE_PLACES.items():
        values = group.get(path, "u1")
        if values is not None:
            found: Array = places[values]
            return found
    return None


def _translation(places: dict[str, Array], numbers: dict[str, Array | None]) -> Array:
    """Return 1 where the source is translated, 2 where the destination is, 3 for both, 0 for neither."""
    to_port = "reply_dport" if numbers["dport"] is not None else "reply_sport"  # ICMP has one identifier
    source = differ(places["src"], places["reply_dst"]) | _port_differs(numbers["sport"], numbers[to_port])
    target = differ(places["dst"], places["reply_src"]) | _port_differs(
        numbers["dport"], numbers["reply_sport"]
    )
    return source + 2 * target


def differ(one: Array, other: Array) -> Flags:
    """Tell in which rows two tables of address bytes differ."""
    differs: Flags = (one.view(np.uint32) != other.view(np.uint32)).any(axis=1)
    return differs


def _port_differs(one: Array | None, other: Array | None) -> Flags | bool:
    if one is None or other is None:
        return False
    differs: Flags = one != other
    return differs


def family_of(octets: int) -> int:
    """Return the family of addresses that are so long."""
    return 4 if octets == 4 else 6


def protocol_name(number: int) -> str:
    """Return a protocol's name, or its number as text."""
    return _PROTOCOLS.get(number, str(number))


def flag_names(status: int) -> str:
    """Return the names of the status bits that are set, joined by |."""
    return "|".join(name for bit, name in enumerate(_FLAGS) if status >> bit & 1)
