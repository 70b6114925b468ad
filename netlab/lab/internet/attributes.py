"""Every attribute of nodes and links, and what it may be."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any, TypeAlias

from netlab import checks
from netlab.errors import BadInput
from netlab.lab.internet.shape import Balance, Echo, Quotes, Tcp, Udp
from netlab.wire import icmp, ip
from netlab.wire.extensions import Label

_Check: TypeAlias = Callable[[str, Any], Any]  # (what it is about, value) → what the shape has

_WRITTEN = (str, ipaddress.IPv4Address, ipaddress.IPv6Address)
_PROTOCOLS = {
    "udp": frozenset({ip.UDP}),
    "tcp": frozenset({ip.TCP}),
    "icmp": frozenset({ip.ICMP, ip.ICMPV6}),
}


def checked(what: str, attributes: Mapping[str, Any], known: Mapping[str, _Check]) -> dict[str, Any]:
    """Return what *attributes* say, each checked by *known*; refuse what is not in there."""
    for key in attributes:
        if key not in known:
            raise BadInput(f"{what} has an unknown attribute {key!r}", fix=checks.nearest(key, known))
    return {key: known[key](f"{key} of {what}", value) for key, value in attributes.items()}


def number(low: float, high: float) -> _Check:
    """Return the check for a number from *low* to *high*."""

    def check(what: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, Real) or not low <= float(value) <= high:
            raise BadInput(f"{what}: {value!r} is not a number from {low:g} to {high:g}")
        return float(value)

    return check


def _whole(low: int, high: int) -> _Check:
    return lambda what, value: checks.whole(what, value, low, high)


def _flag(what: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise BadInput(f"{what}: {value!r} is neither true nor false")
    return value


def _word(kind: Any) -> _Check:
    return lambda what, value: kind(checks.choice(what, value, list(kind)))


def _by_port(kind: Any) -> _Check:
    word = _word(kind)

    def check(what: str, value: Any) -> dict[int, Any]:
        if not isinstance(value, Mapping):
            raise BadInput(f"{what}: {value!r} is no table of ports")
        # TOML's keys are strings.
        numbers = {int(k) if isinstance(k, str) and k.isdecimal() else k: v for k, v in value.items()}
        return {checks.port(port, f"port {port!r} in {what}"): word(what, v) for port, v in numbers.items()}

    return check


def address(family: int) -> _Check:
    """Return the check for an address of *family* that a host may have."""

    def check(what: str, value: Any) -> bytes:
        try:
            found = ipaddress.ip_address(value) if isinstance(value, _WRITTEN) else None
        except ValueError:
            found = None
        if found is None or found.version != family or _of_no_host(found):
            raise BadInput(f"{what}: {value!r} is no IPv{family} address of a host")
        return found.packed

    return check


def _of_no_host(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    everyone = address == ipaddress.IPv4Address("255.255.255.255")
    return address.is_multicast or address.is_loopback or address.is_unspecified or everyone


def _prefixes(what: str, value: Any) -> tuple[tuple[int, int, int], ...]:
    try:
        networks = [ipaddress.ip_network(prefix) for prefix in _several(what, value)]
    except ValueError as error:
        raise BadInput(f"{what}: {error}", fix="Give networks such as 203.0.113.0/24") from error
    return tuple((n.max_prefixlen, int(n.network_address), int(n.netmask)) for n in networks)


def _silence(what: str, value: Any) -> frozenset[icmp.Error]:
    if isinstance(value, bool):
        return frozenset(icmp.Error) if value else frozenset()
    return frozenset(_word(icmp.Error)(what, word) for word in _several(what, value))


def _protocols(what: str, value: Any) -> frozenset[int]:
    words = [checks.choice(what, word, _PROTOCOLS) for word in _several(what, value)]
    return frozenset().union(*(_PROTOCOLS[word] for word in words))


def _several(what: str, value: Any) -> list[Any]:
    if not isinstance(value, list | tuple | set | frozenset):
        raise BadInput(f"{what}: {value!r} is no list")
    return list(value)


def _labels(what: str, value: Any) -> tuple[Label, ...]:
    stack = []
    for entry in _several(what, value):
        known = {"label": _whole(0, 2**20 - 1), "traffic_class": _whole(0, 7), "ttl": _whole(0, 255)}
        table = entry if isinstance(entry, Mapping) else {"label": entry}
        if "label" not in table:
            raise BadInput(f"{what}: {entry!r} has no label")
        stack.append(Label(**checked(what, table, known)))
    if len(stack) > 16:
        raise BadInput(f"{what}: a stack of {len(stack)} labels", fix="Give 16 at most")
    return tuple(stack)


def _translations(what: str, value: Any) -> dict[bytes, bytes]:
    if not isinstance(value, Mapping):
        raise BadInput(f"{what}: {value!r} is no table of addresses")
    pairs = {}
    for outside, inside in value.items():
        family = 6 if ":" in str(outside) else 4
        pairs[address(family)(what, outside)] = address(family)(what, inside)
    return pairs


NODE: dict[str, _Check] = {
    "address4": address(4),
    "address6": address(6),
    "prefixes": _prefixes,
    "balance": _word(Balance),
    "silent": _silence,
    "answers_from4": address(4),
    "answers_from6": address(6),
    "reply_ttl": _whole(1, 255),
    "counts_answers": _flag,
    "quote_bytes": _whole(8, 65535),
    "told_mtu": _whole(0, 65535),
    "icmp_per_s": number(0.001, 1e6),
    "icmp_burst": _whole(1, 10**6),
    "mpls": _labels,
    "hidden": _flag,
    "set_ttl": _whole(1, 255),
    "set_dscp": _whole(0, 63),
    "set_ecn": _whole(0, 3),
    "set_ip_id": _flag,
    "nat4": address(4),
    "nat6": address(6),
    "nat_port_shift": _whole(0, 65534),
    "nat_quotes": _word(Quotes),
    "dnat": _translations,
    "filters": _protocols,
    "prohibits": _protocols,
    "tcp": _word(Tcp),
    "tcp_ports": _by_port(Tcp),
    "udp": _word(Udp),
    "udp_ports": _by_port(Udp),
    "echo": _word(Echo),
}
LINK: dict[str, _Check] = {
    "delay_ms": number(0, 1e6),
    "jitter_ms": number(0, 1e6),
    "loss": number(0, 1),
    "mtu_bytes": _whole(68, 65535),
    "metric": _whole(1, 10**6),
    "up": _flag,
    "far_address4": address(4),
    "far_address6": address(6),
}
