"""Which conntrack entries are wanted: asked of the kernel as far as it can filter, and applied to its answer.

The kernel's filters (CTA_FILTER since 5.8, CTA_STATUS since 5.17, CTA_ZONE since 6.8) only save work: every
entry is looked at again, so that an older kernel, which passes over what it does not know, gives the same
rows.
"""

from __future__ import annotations

import ipaddress
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from netlab import addresses, checks
from netlab.errors import BadInput
from netlab.kernel import ctentries, ctnames
from netlab.kernel.ctentries import FILTER, MARK, MARK_MASK, ORIGINAL, STATUS, STATUS_MASK, ZONE, Entries
from netlab.kernel.nlattr import attribute, nested

_AF = {None: socket.AF_UNSPEC, 4: socket.AF_INET, 6: socket.AF_INET6}
_ANY_PLACE = ("sport", "dport", "reply_sport", "reply_dport")
WITH_PORTS = {ctnames.NUMBERS[name] for name in ("tcp", "udp", "udplite", "sctp", "dccp")}
# Which fields of a tuple to compare: CTA_FILTER_F_* of net/netfilter/nf_internals.h.
_BY_SRC, _BY_DST, _BY_PROTOCOL, _BY_SPORT, _BY_DPORT = 1 << 0, 1 << 1, 1 << 3, 1 << 4, 1 << 5
_U32 = (1 << 32) - 1
_NATIVE = sys.byteorder


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which entries are wanted; None stands for any."""

    family: int | None = None
    protocol: int | None = None
    address: bytes | None = None  # in any of the four places
    port: int | None = None
    places: tuple[tuple[str, bytes], ...] = ()  # src, dst
    ports: tuple[tuple[str, int], ...] = ()  # sport, dport
    mark: tuple[int, int] | None = None  # value and mask
    zone: int | None = None
    status: int = 0  # bits that must be set
    translated: bool = False


def wanted(
    *,
    family: int | None = None,
    protocol: str | int | None = None,
    address: str | None = None,
    port: int | None = None,
    src: str | None = None,
    sport: int | None = None,
    dst: str | None = None,
    dport: int | None = None,
    mark: int | str | None = None,
    zone: int | None = None,
    status: str | Sequence[str] | None = None,
    translated: bool = False,
) -> Wanted:
    """Return what the arguments of `netlab.conntrack` ask for, or refuse them."""
    family = checks.family(family)
    for name, value in (("address", address), ("src", src), ("dst", dst)):
        if value is not None:
            its_family = ctentries.family_of(len(packed(value, name)))
            if family not in {None, its_family}:
                raise BadInput(f"{name} {value!r} is not of family {family}", fix="Leave one of them out")
            family = its_family
    places, ports = {"src": src, "dst": dst}, {"sport": sport, "dport": dport}
    return Wanted(
        family=family,
        protocol=None if protocol is None else protocol_number(protocol),
        address=None if address is None else packed(address),
        port=None if port is None else checks.port(port),
        places=tuple((name, packed(value, name)) for name, value in places.items() if value is not None),
        ports=tuple((name, checks.port(value, name)) for name, value in ports.items() if value is not None),
        mark=None if mark is None else _mark(mark),
        zone=None if zone is None else checks.whole("zone", zone, 0, 65535),
        status=_status(status),
        translated=translated,
    )


def packed(address: str, name: str = "address") -> bytes:
    """Return the bytes of an address; a mapped one becomes IPv4."""
    text, _, scope = str(address).partition("%")
    if scope:
        raise BadInput(
            f"{name} {address!r} names an interface, which entries do not have", fix=f"Give {text!r}"
        )
    try:
        return ipaddress.ip_address(addresses.canonical(text)).packed
    except ValueError as error:
        raise BadInput(f"{name} {address!r} is not an IP address", fix="Give one like '192.0.2.1'") from error


def protocol_number(protocol: str | int) -> int:
    """Return the number of a protocol given by name or number."""
    if isinstance(protocol, str):
        return ctnames.NUMBERS[checks.choice("protocol", protocol, ctnames.NUMBERS)]
    return checks.whole("protocol", protocol, 0, 255)


def _mark(mark: int | str) -> tuple[int, int]:
    """Return value and mask of a mark like 66, "66" or "0x40/0xf0"."""
    if not isinstance(mark, str):
        return checks.whole("mark", mark, 0, _U32), _U32
    value, _, mask = mark.partition("/")
    try:
        numbers = int(value, 0), int(mask, 0) if mask else _U32
    except ValueError as error:
        raise BadInput(f"mark {mark!r} is no mark", fix="Give a number, or one like '0x40/0xf0'") from error
    wanted, bits = checks.whole("mark", numbers[0], 0, _U32), checks.whole("mark's mask", numbers[1], 0, _U32)
    if wanted & ~bits:
        fix = f"Give '{wanted & bits:#x}/{bits:#x}'"
        raise BadInput(f"mark {mark!r} has bits outside of its mask: no mark is like that", fix=fix)
    return wanted, bits


def _status(status: str | Sequence[str] | None) -> int:
    if status is None:
        return 0
    flags = [status] if isinstance(status, str) else checks.several("status", status)
    names = [checks.choice("status", flag, ctnames.FLAGS) for flag in flags]
    return sum(1 << ctnames.FLAGS.index(name) for name in set(names))


def request(it: Wanted) -> tuple[bytes, bytes]:
    """Return the body of the dump's request, without and with the kernel's filters."""
    plain = bytes([_AF[it.family], 0, 0, 0])  # struct nfgenmsg
    filters = [_tuple_filter(it)] if it.family and (_by_place(it) or it.protocol) else []
    if it.mark is not None:
        filters += [attribute(MARK, _be(it.mark[0], 4)), attribute(MARK_MASK, _be(it.mark[1], 4))]
    if it.zone is not None:
        filters.append(attribute(ZONE, _be(it.zone, 2)))
    if it.status:
        filters += [attribute(STATUS, _be(it.status, 4)), attribute(STATUS_MASK, _be(it.status, 4))]
    return plain, plain + b"".join(filters)


def _by_place(it: Wanted) -> bool:
    """Tell whether the kernel can look at addresses.

    For IPv6 it cannot: ctnetlink_filter_match_tuple() leaves out exactly the entries that have the address,
    because it takes ipv6_addr_cmp() for a test of equality (seen on 6.18).
    """
    return bool(it.places) and it.family == 4


def _tuple_filter(it: Wanted) -> bytes:
    """Return the original tuple that entries shall have, and which of its fields count."""
    flags, parts = 0, []
    if _by_place(it):
        kinds = {"src": (1, _BY_SRC), "dst": (2, _BY_DST)}  # CTA_IP_V4_SRC, CTA_IP_V4_DST
        parts.append(nested(1, *(attribute(kinds[name][0], value) for name, value in it.places)))
        flags |= sum(kinds[name][1] for name, _ in it.places)
    if it.protocol:
        kinds = {"sport": (2, _BY_SPORT), "dport": (3, _BY_DPORT)}  # CTA_PROTO_SRC_PORT, CTA_PROTO_DST_PORT
        ports = it.ports if it.protocol in WITH_PORTS else ()
        of_ports = (attribute(kinds[name][0], _be(port, 2)) for name, port in ports)
        parts.append(nested(2, attribute(1, bytes([it.protocol])), *of_ports))
        flags |= _BY_PROTOCOL | sum(kinds[name][1] for name, _ in ports)
    return nested(ORIGINAL, *parts) + nested(FILTER, attribute(1, flags.to_bytes(4, _NATIVE)))


def selected(entries: Entries, it: Wanted) -> Entries:
    """Return the entries that are wanted."""
    numbers, places = entries.numbers, entries.places
    keep = np.ones(len(entries), bool)
    if it.translated:
        keep &= numbers["nat"] != 0
    exact = {"protocol": it.protocol, "zone": it.zone, **dict(it.ports)}
    for name, value in exact.items():
        if value is not None:
            keep &= _equal(entries, name, value)
    if it.mark is not None:
        keep &= _masked(entries, "mark", it.mark[1]) == it.mark[0]
    if it.status:
        keep &= _masked(entries, "status", it.status) == it.status
    if it.port is not None:
        keep &= np.any([_equal(entries, name, it.port) for name in _ANY_PLACE], axis=0)
    for name, address in it.places:
        keep &= (places[name] == np.frombuffer(address, np.uint8)).all(axis=1)
    if it.address is not None:
        octets = np.frombuffer(it.address, np.uint8)
        keep &= np.any([(values == octets).all(axis=1) for values in places.values()], axis=0)
    return entries if keep.all() else entries.where(keep)


def _equal(entries: Entries, name: str, value: int) -> ctentries.Flags:
    values = entries.numbers[name]
    equal: ctentries.Flags = np.zeros(len(entries), bool) if values is None else values == value
    return equal


def _masked(entries: Entries, name: str, mask: int) -> ctentries.Array:
    values = entries.numbers[name]
    return np.zeros(len(entries), np.int64) if values is None else values.astype(np.int64) & mask


def _be(number: int, octets: int) -> bytes:
    return number.to_bytes(octets, "big")
