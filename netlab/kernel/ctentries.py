"""One conntrack entry's attributes as columns: the paths of ctnetlink, and the decoder of one group.

Source: include/uapi/linux/netfilter/nfnetlink_conntrack.h, and what ctnetlink_fill_info() in
net/netfilter/nf_conntrack_netlink.c puts where. What an attribute carries is big-endian.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from netlab.errors import KernelError
from netlab.kernel import ctnames, nlmessages

Array: TypeAlias = npt.NDArray[Any]
Flags: TypeAlias = npt.NDArray[np.bool_]

# Attribute paths: enum ctattr_type, then the enums of what is nested in it.
ORIGINAL, REPLY = 1, 2
STATUS, MARK, ZONE, MARK_MASK, FILTER, STATUS_MASK = 3, 8, 18, 21, 25, 26
_NEW, DELETE = 0x100, 0x102  # (NFNL_SUBSYS_CTNETLINK << 8) | IPCTNL_MSG_CT_*: what has entries
_TIMEOUT, _USE, _ID = (7,), (11,), (12,)
_STARTED, _STOPPED, _EVENT = (20, 1), (20, 2), (27,)
_ICMP_TYPES, _ICMP_CODES = ((ORIGINAL, 2, 5), (ORIGINAL, 2, 8)), ((ORIGINAL, 2, 6), (ORIGINAL, 2, 9))
_COUNTERS = {"packets": (9, 1), "bytes": (9, 2), "reply_packets": (10, 1), "reply_bytes": (10, 2)}
_OCTETS = {"helper": (5, 1), "secctx": (19, 1), "labels": (22,)}

_STATE_PLACES = {
    path: np.array([ctnames.STATES.index(name) for name in names] + [-1] * (256 - len(names)))
    for path, names in (((4, 1, 1), ctnames.TCP), ((4, 2, 1), ctnames.DCCP), ((4, 3, 1), ctnames.SCTP))
}
_OFFLOADED, _BY_HARDWARE = (1 << ctnames.FLAGS.index(name) for name in ("offload", "hw-offload"))


@dataclass(frozen=True, slots=True)
class Entries:
    """Entries of one layout; None is an absent attribute."""

    places: dict[str, Array]  # (n, 4) or (n, 16) address bytes
    numbers: dict[str, Array | None]
    octets: dict[str, Array | None]  # (n, length) bytes of texts and bitmaps

    def __len__(self) -> int:
        return len(self.places["src"])

    def where(self, keep: Flags) -> Entries:
        """Return only the entries that *keep* selects."""
        return Entries(
            {name: values[keep] for name, values in self.places.items()},
            {name: None if values is None else values[keep] for name, values in self.numbers.items()},
            {name: None if values is None else values[keep] for name, values in self.octets.items()},
        )


def decoded(group: nlmessages.Group) -> Entries:
    """Return the entries of one group; names of columns are those of `netlab.schemas.CONNTRACK`.

    `state` has places in `ctnames.STATES`; `nat`, `offload` and `zone_direction` keys of their tables in
    `ctnames`, or 0; times are nanoseconds since 1970; the others what the kernel says.

    Raises
    ------
    KernelError
        If a message is not an entry of ctnetlink, or not one that a kernel can have made.
    """
    types = group.types()
    if ((types != _NEW) & (types != DELETE)).any():
        raise KernelError("a netlink message is not a conntrack entry")
    family = family_of(group.length((ORIGINAL, 1, 1)))
    places, numbers = _tuple(group, ORIGINAL, family, "")
    reply_places, reply_numbers = _tuple(group, REPLY, family, "reply_")
    places |= reply_places
    numbers |= reply_numbers
    status = group.get((STATUS,), ">u4")
    numbers |= {
        "protocol": group.get((ORIGINAL, 2, 1), "u1"),
        "family": np.full(len(group.rows), family),
        "state": _state(group),
        "status": status,
        "offload": None if status is None else _offload(status),
        "timeout_s": group.get(_TIMEOUT, ">u4"),
        **{name: _large(group, path) for name, path in _COUNTERS.items()},
        "mark": group.get((MARK,), ">u4"),
        **_zone(group),
        "id": group.get(_ID, ">u4"),
        "use": group.get(_USE, ">u4"),
        "icmp_type": _first(group, "u1", *_ICMP_TYPES),
        "icmp_code": _first(group, "u1", *_ICMP_CODES),
        "started_at": _large(group, _STARTED),
        "stopped_at": _large(group, _STOPPED),
        "at": _large(group, _EVENT),
    }
    numbers["nat"] = _translation(places, numbers)
    octets = {name: group.octets(path) if group.length(path) > 0 else None for name, path in _OCTETS.items()}
    return Entries(places, numbers, octets)


def _tuple(
    group: nlmessages.Group, side: int, family: int, prefix: str
) -> tuple[dict[str, Array], dict[str, Array | None]]:
    source = 1 if family == 4 else 3  # CTA_IP_V4_SRC or CTA_IP_V6_SRC; the destination follows
    places = {
        f"{prefix}src": group.octets((side, 1, source)),
        f"{prefix}dst": group.octets((side, 1, source + 1)),
    }
    if any(octets.shape[1] != (4 if family == 4 else 16) for octets in places.values()):
        raise KernelError("a conntrack entry has an address of another length than its family's")
    numbers = {
        f"{prefix}sport": _first(group, ">u2", (side, 2, 2), (side, 2, 4), (side, 2, 7)),  # port, ICMP ids
        f"{prefix}dport": group.get((side, 2, 3), ">u2"),
    }
    return places, numbers


def _first(group: nlmessages.Group, dtype: str, *paths: nlmessages.Path) -> Array | None:
    found = (group.get(path, dtype) for path in paths)
    return next((values for values in found if values is not None), None)


def _large(group: nlmessages.Group, path: nlmessages.Path) -> Array | None:
    """Return a counter, or a time in nanoseconds; the frame's numbers have 63 bits."""
    values: Array | None = group.get(path, ">u8")
    if values is not None and (values > np.iinfo(np.int64).max).any():
        raise KernelError("a conntrack entry has a counter or a time that nothing can have reached")
    return values


def _zone(group: nlmessages.Group) -> dict[str, Array | None]:
    """Return the zone, and where it is that of one direction only; the default zone is not sent."""
    rows = len(group.rows)
    for direction, path in enumerate(((ZONE,), (ORIGINAL, 3), (REPLY, 3))):
        zone = group.get(path, ">u2")
        if zone is not None:
            return {"zone": zone, "zone_direction": np.full(rows, direction) if direction else None}
    return {"zone": np.zeros(rows, np.int64), "zone_direction": None}


def _state(group: nlmessages.Group) -> Array | None:
    """Return places in STATES, -1 for a state that has no name here."""
    for path, places in _STATE_PLACES.items():
        values = group.get(path, "u1")
        if values is not None:
            found: Array = places[values]
            return found
    return None


def _offload(status: Array) -> Array | None:
    hardware = status & _BY_HARDWARE != 0
    offloaded = (status & _OFFLOADED != 0) | hardware
    return offloaded.astype(np.int64) + hardware if offloaded.any() else None


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
