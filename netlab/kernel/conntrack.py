"""The connections the kernel tracks, and their translations, over ctnetlink.

Source: include/uapi/linux/netfilter/nfnetlink_conntrack.h and net/netfilter/nf_conntrack_netlink.c. What an
attribute carries is big-endian. Entries of one layout are decoded together, one gather for each column;
the frame has them layout by layout, because the kernel's own order is that of a hash table.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from netlab import addresses, checks
from netlab.errors import BadInput
from netlab.frames import Gap, Missing
from netlab.kernel import netlink, netns as namespaces
from netlab.schemas import CONNTRACK

Array: TypeAlias = npt.NDArray[Any]
Flags: TypeAlias = npt.NDArray[np.bool_]

_NETFILTER = 12
_GET = 0x101  # (NFNL_SUBSYS_CTNETLINK << 8) | IPCTNL_MSG_CT_GET
_BODY = 4  # bytes of struct nfgenmsg: address family, version, resource id
_AF = {None: socket.AF_UNSPEC, 4: socket.AF_INET, 6: socket.AF_INET6}

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
_NUMBERS = {name: number for number, name in _PROTOCOLS.items()}

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
_STATES = list(dict.fromkeys([*_TCP, *_SCTP]))
_STATE_PLACES = {
    path: np.array([_STATES.index(name) for name in names] + [-1] * (256 - len(names)))
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
_NAT = {1: "snat", 2: "dnat", 3: "both"}


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Which entries are wanted; None stands for any."""

    family: int | None
    protocol: int | None
    address: bytes | None
    port: int | None
    translated: bool


@dataclass(frozen=True, slots=True)
class _Entries:
    """Entries of one layout: *places* are (n, 4) or (n, 16) address bytes; None is an absent attribute."""

    places: dict[str, Array]
    numbers: dict[str, Array | None]

    def __len__(self) -> int:
        return len(self.places["src"])

    def where(self, keep: Flags) -> _Entries:
        return _Entries(
            {name: values[keep] for name, values in self.places.items()},
            {name: None if values is None else values[keep] for name, values in self.numbers.items()},
        )


def conntrack(
    *,
    netns: namespaces.NetNs = None,
    family: int | None = None,
    protocol: str | int | None = None,
    address: str | None = None,
    port: int | None = None,
) -> pd.DataFrame:
    """List the connections that the kernel tracks in a network namespace, with both their tuples.

    Parameters
    ----------
    netns
        A name under /run/netns, a path, a process id, or None for the calling thread's namespace.
    family
        4 or 6; None lists both.
    protocol
        A name such as "tcp" or "icmpv6", or a protocol number.
    address
        Only entries that have this address in one of their four places.
    port
        Only entries that have this port (ICMP: identifier) in one of their four places.

    Returns
    -------
    DataFrame
        One row per entry, columns as in `netlab.schemas.CONNTRACK`. Entries made while accounting was
        off have no counters; the coverage says how many, and how to turn it on.

    Raises
    ------
    BadInput
        If an argument cannot be right; the kernel was not asked then.
    CapabilityError
        Without CAP_NET_ADMIN, which ctnetlink asks for.

    Notes
    -----
    Read by a ctnetlink dump (net/netfilter/nf_conntrack_netlink.c), like `conntrack -L -o extended,id`.

    Examples
    --------
    >>> import netlab
    >>> flows = netlab.conntrack(protocol="tcp", port=443)
    >>> print(flows.columns[:4].tolist())
    ['protocol', 'family', 'src', 'sport']
    """
    return _listed(netns, _wanted(family, protocol, address, port, translated=False))


def nat(
    *,
    netns: namespaces.NetNs = None,
    family: int | None = None,
    protocol: str | int | None = None,
    address: str | None = None,
    port: int | None = None,
) -> pd.DataFrame:
    """List only the tracked connections whose addresses or ports are translated.

    Takes and raises what `conntrack` does.

    Returns
    -------
    DataFrame
        Columns as in `netlab.schemas.CONNTRACK`. `nat` is "snat" where replies go elsewhere than to the
        source, "dnat" where they come from elsewhere than the destination, "both" where both hold.

    Examples
    --------
    >>> import netlab
    >>> print(netlab.nat().nat.isna().any())
    False
    """
    return _listed(netns, _wanted(family, protocol, address, port, translated=True))


def _wanted(
    family: int | None, protocol: str | int | None, address: str | None, port: int | None, *, translated: bool
) -> _Wanted:
    if family not in {None, 4, 6}:
        raise BadInput(f"family {family!r} is not an address family", fix="Give 4 or 6")
    packed = None if address is None else _packed(address)
    its_family = packed and _family(len(packed))
    if packed and family not in {None, its_family}:
        raise BadInput(f"address {address!r} is not of family {family}", fix="Leave one of the two out")
    return _Wanted(
        family=its_family or family,
        protocol=None if protocol is None else _protocol_number(protocol),
        address=packed,
        port=None if port is None else checks.port(port),
        translated=translated,
    )


def _packed(address: str) -> bytes:
    try:
        return ipaddress.ip_address(addresses.canonical(str(address))).packed
    except ValueError as error:
        raise BadInput(
            f"address {address!r} is not an IP address", fix="Give one like '192.0.2.1'"
        ) from error


def _family(octets: int) -> int:
    return 4 if octets == 4 else 6


def _protocol_number(protocol: str | int) -> int:
    if isinstance(protocol, str):
        return _NUMBERS[checks.choice("protocol", protocol, _NUMBERS)]
    return checks.whole("protocol", protocol, 0, 255)


def _listed(netns: namespaces.NetNs, wanted: _Wanted) -> pd.DataFrame:
    request = bytes([_AF[wanted.family], 0, 0, 0])
    with namespaces.entered(netns):
        inode = namespaces.inode()
        dump = netlink.dump(
            _NETFILTER, _GET, request, doing="list conntrack entries", module="nf_conntrack_netlink"
        )
    parts = [_selected(_decoded(group), wanted) for group in dump.groups(_BODY)]
    return _framed([part for part in parts if len(part)], inode, interrupted=dump.interrupted)


def frame_of(dump: netlink.Dump, inode: int) -> pd.DataFrame:
    """Return conntrack messages of the namespace *inode* as a frame."""
    parts = [_decoded(group) for group in dump.groups(_BODY)]
    return _framed([part for part in parts if len(part)], inode, interrupted=dump.interrupted)


def _decoded(group: netlink.Group) -> _Entries:
    family = _family(group.length((_ORIGINAL, 1, 1)))
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
    return _Entries(places, numbers)


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
    """Return places in _STATES, -1 for a state that has no name here."""
    for path, places in _STATE_PLACES.items():
        values = group.get(path, "u1")
        if values is not None:
            found: Array = places[values]
            return found
    return None


def _translation(places: dict[str, Array], numbers: dict[str, Array | None]) -> Array:
    """Return 1 where the source is translated, 2 where the destination is, 3 for both, 0 for neither."""
    to_port = "reply_dport" if numbers["dport"] is not None else "reply_sport"  # ICMP has one identifier
    source = _differ(places["src"], places["reply_dst"]) | _port_differs(numbers["sport"], numbers[to_port])
    target = _differ(places["dst"], places["reply_src"]) | _port_differs(
        numbers["dport"], numbers["reply_sport"]
    )
    return source + 2 * target


def _differ(one: Array, other: Array) -> Flags:
    differs: Flags = (one.view(np.uint32) != other.view(np.uint32)).any(axis=1)
    return differs


def _port_differs(one: Array | None, other: Array | None) -> Flags | bool:
    if one is None or other is None:
        return False
    differs: Flags = one != other
    return differs


def _selected(entries: _Entries, wanted: _Wanted) -> _Entries:
    numbers, places = entries.numbers, entries.places
    keep = np.ones(len(entries), bool)
    if wanted.translated:
        keep &= numbers["nat"] != 0
    if wanted.protocol is not None:
        keep &= numbers["protocol"] == wanted.protocol
    if wanted.port is not None:
        ports = (numbers[name] for name in ("sport", "dport", "reply_sport", "reply_dport"))
        keep &= np.any([values == wanted.port for values in ports if values is not None], axis=0)
    if wanted.address is not None:
        address = np.frombuffer(wanted.address, np.uint8)
        keep &= np.any([(values == address).all(axis=1) for values in places.values()], axis=0)
    return entries if keep.all() else entries.where(keep)


def _framed(parts: list[_Entries], inode: int, *, interrupted: bool) -> pd.DataFrame:
    if not parts:
        return CONNTRACK.empty(_interruption(interrupted=interrupted))
    data: dict[str, Any] = {name: _joined(parts, name) for name in parts[0].numbers}
    texts = [_texts(part.places) for part in parts]
    data |= {name: addresses.column([text[name] for text in texts]) for name in parts[0].places}
    state, nat_kind = data["state"], np.ma.masked_equal(data["nat"], 0)
    data |= {
        "protocol": _category(data["protocol"], _protocol_name),
        "state": pd.Categorical.from_codes(state.filled(-1), pd.Index(_STATES)),
        "status": _category(data["status"], _flag_names),
        "nat": _category(nat_kind, _NAT.__getitem__),
        "netns": np.full(len(state), inode),
    }
    return CONNTRACK.frame(data, [*_interruption(interrupted=interrupted), *_uncounted(data["packets"])])


def _joined(parts: list[_Entries], name: str) -> np.ma.MaskedArray[Any, Any]:
    """Join one column of all layouts; rows of a layout that lacks the attribute are masked."""
    columns = [part.numbers[name] for part in parts]
    values = [
        np.zeros(len(part), np.int64) if column is None else column.astype(np.int64)
        for part, column in zip(parts, columns, strict=True)
    ]
    absent = np.repeat([column is None for column in columns], [len(part) for part in parts])
    return np.ma.array(np.concatenate(values), mask=absent)


def _category(values: np.ma.MaskedArray[Any, Any], name: Callable[[int], str]) -> pd.Categorical[str]:
    """Name every distinct number once; masked ones stay missing."""
    known = ~np.ma.getmaskarray(values)
    codes = np.full(len(values), -1)
    codes[known], distinct = pd.factorize(values.data[known])
    return pd.Categorical.from_codes(codes, pd.Index([name(int(number)) for number in distinct], dtype="str"))


def _texts(places: dict[str, Array]) -> dict[str, pa.Array]:
    source, target = _text(places["src"]), _text(places["dst"])
    return {
        "src": source,
        "dst": target,
        "reply_src": _text_like(target, places["dst"], places["reply_src"]),
        "reply_dst": _text_like(source, places["src"], places["reply_dst"]),
    }


def _text(places: Array) -> pa.Array:
    return addresses.text(_family(places.shape[1]), places)


def _text_like(text: pa.Array, its_places: Array, places: Array) -> pa.Array:
    """Return the text of *places*, made anew only where they are not *its_places*: at translated flows."""
    differs = _differ(its_places, places)
    return pc.replace_with_mask(text, differs, _text(places[differs])) if differs.any() else text


def _protocol_name(number: int) -> str:
    return _PROTOCOLS.get(number, str(number))


def _flag_names(status: int) -> str:
    return "|".join(name for bit, name in enumerate(_FLAGS) if status >> bit & 1)


def _interruption(*, interrupted: bool) -> list[Missing]:
    return [netlink.INTERRUPTED] if interrupted else []


def _uncounted(packets: np.ma.MaskedArray[Any, Any]) -> list[Missing]:
    count = int(np.ma.getmaskarray(packets).sum())
    if not count:
        return []
    detail = (
        "accounting was off when these entries were made; "
        "`sysctl -w net.netfilter.nf_conntrack_acct=1` counts new ones"
    )
    return [Missing("packets, bytes, reply_packets, reply_bytes", Gap.UNAVAILABLE, count, detail)]
