"""Sets of IP networks: parsed strictly, matched as columns in numpy and as words in C.

An IPv4-mapped IPv6 address (RFC 4291, 2.5.5.2) counts as the IPv4 address in it, on both sides: a dual-stack
socket's peer is found by its IPv4 network, and `::/0` means IPv6 only.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from netlab.errors import BadInput
from netlab.tracer.layout import AF_INET6

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
Address: TypeAlias = str | ipaddress.IPv4Address | ipaddress.IPv6Address | Network
Side: TypeAlias = Literal["local", "remote"]
Flags: TypeAlias = npt.NDArray[np.bool_]

_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")
_MAPPED_PREFIX = np.frombuffer(_MAPPED.network_address.packed[:12], np.uint8)
_GIVEN = (str, ipaddress.IPv4Address, ipaddress.IPv6Address, ipaddress.IPv4Network, ipaddress.IPv6Network)


@dataclass(frozen=True, slots=True)
class End:
    """One end of every attempt: its port, and its address as a number of its own family.

    An unspecified address is one that is not known: connect() has not chosen it yet.
    """

    port: npt.NDArray[np.uint16]
    known: Flags
    is_v4: Flags
    v4: npt.NDArray[np.uint32]
    v6: npt.NDArray[np.bytes_]  # 16 bytes in network order: they sort as the numbers do

    @classmethod
    def of(cls, attempts: npt.NDArray[np.void], side: Side) -> End:
        """Return the local or the remote end of attempt records."""
        packed = np.ascontiguousarray(attempts[f"{side}_address"])
        is_v6 = attempts["family"] == AF_INET6
        mapped = is_v6 & (packed[:, :12] == _MAPPED_PREFIX).all(axis=1)
        v4 = np.ascontiguousarray(np.where(mapped[:, None], packed[:, 12:], packed[:, :4]))
        number = v4.view(">u4").ravel().astype(np.uint32)
        is_v4 = ~is_v6 | mapped
        return cls(
            port=attempts[f"{side}_port"],
            known=np.where(is_v4, number != 0, packed.any(axis=1)),
            is_v4=is_v4,
            v4=number,
            v6=packed.view("S16").ravel(),
        )


@dataclass(frozen=True, slots=True)
class Networks:
    """A set of networks, in order and without overlap."""

    members: tuple[Network, ...] = ()

    @classmethod
    def of(cls, name: str, values: Iterable[object]) -> Networks:
        """Parse addresses and CIDRs; *name* is the option that they were given for."""
        parsed = [network(name, value) for value in values]
        v4 = [one for one in parsed if isinstance(one, ipaddress.IPv4Network)]
        v6 = [one for one in parsed if isinstance(one, ipaddress.IPv6Network)]
        return cls((*ipaddress.collapse_addresses(v4), *ipaddress.collapse_addresses(v6)))

    def __len__(self) -> int:
        return len(self.members)

    def hold(self, end: End) -> Flags:
        """Tell which addresses are in one of the networks; those not known are in none."""
        v4 = [one for one in self.members if one.version == 4]
        v6 = [one for one in self.members if one.version == 6]
        in_v4 = _between(
            end.v4,
            np.array([int(one.network_address) for one in v4], np.uint32),
            np.array([int(one.broadcast_address) for one in v4], np.uint32),
        )
        in_v6 = _between(
            end.v6,
            np.array([one.network_address.packed for one in v6], "S16"),
            np.array([one.broadcast_address.packed for one in v6], "S16"),
        )
        return end.known & np.where(end.is_v4, in_v4, in_v6)

    def condition(self, side: Side) -> str:
        """Return the same as C, over the variables of `declarations`."""
        v4 = [_v4_condition(one, side) for one in self.members if one.version == 4]
        v6 = [_v6_condition(one, side) for one in self.members if one.version == 6]
        by_family = f"(netlab_{side}_is_v4 ? {' || '.join(v4) or '0'} : {' || '.join(v6) or '0'})"
        return f"(netlab_{side}_known && {by_family})"


def declarations(side: Side) -> str:
    """Return the C variables for one end of `attempt`: its words, and what `End` holds."""
    words, family = f"netlab_{side}", "(attempt)->family"
    mapped = f"(!{words}[0] && !{words}[1] && {words}[2] == {_words(_MAPPED.network_address.packed)[2]}U)"
    any_word = " | ".join(f"{words}[{place}]" for place in range(4))
    return (
        f"const u32 *{words} = (const u32 *)(attempt)->{side}_address; "
        f"bool {words}_is_v4 = {family} != {AF_INET6} || {mapped}; "
        f"u32 {words}_v4 = {family} == {AF_INET6} ? {words}[3] : {words}[0]; "
        f"bool {words}_known = {words}_is_v4 ? {words}_v4 != 0 : ({any_word}) != 0;"
    )


def network(name: str, value: object) -> Network:
    """Return the network that *value* stands for; one address is a network of its own."""
    if not isinstance(value, _GIVEN):
        raise BadInput(f"{name} {value!r} is not an address", fix=_FORMS)
    text = str(value).strip()
    if "%" in text:
        raise BadInput(
            f"{name} {value!r} names an interface, which records do not have",
            fix=f"Leave it out: {text.partition('%')[0]}",
        )
    try:
        parsed = ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise BadInput(f"{name} {value!r} is not an address or a CIDR", fix=_advice(text)) from error
    written = ipaddress.ip_interface(text)
    if written.ip != parsed.network_address:
        raise BadInput(
            f"{name} {value!r} has bits set behind its prefix /{parsed.prefixlen}",
            fix=f"Give {parsed} for the whole network, or {written.ip} for that one address",
        )
    if isinstance(parsed, ipaddress.IPv6Network) and parsed.subnet_of(_MAPPED):
        return ipaddress.IPv4Network((parsed.network_address.packed[12:], parsed.prefixlen - 96))
    return parsed


_FORMS = 'Give an address or a CIDR, such as "192.0.2.7", "10.0.0.0/8" or "2001:db8::/32"'


def _advice(text: str) -> str:
    address, slash, prefix = text.partition("/")
    try:
        most = ipaddress.ip_address(address).max_prefixlen
    except ValueError:
        return _FORMS
    return f"The prefix length of {address} goes from 0 to {most}, not {prefix!r}" if slash else _FORMS


def _between(values: npt.NDArray[Any], first: npt.NDArray[Any], last: npt.NDArray[Any]) -> Flags:
    """Tell which values are in one of the ranges, which are sorted and do not overlap."""
    if not len(first):
        return np.zeros(len(values), bool)
    place = np.searchsorted(first, values, side="right") - 1
    inside: Flags = (place >= 0) & (values <= last[place])
    return inside


def _words(packed: bytes) -> tuple[int, ...]:
    """Return network-order bytes as the words that this machine's CPU reads from them."""
    return struct.unpack(f"={len(packed) // 4}I", packed)


def _v4_condition(one: Network, side: Side) -> str:
    (mask,), (wanted,) = _words(one.netmask.packed), _words(one.network_address.packed)
    return f"(netlab_{side}_v4 & {mask}U) == {wanted}U"


def _v6_condition(one: Network, side: Side) -> str:
    """One comparison of all words: each branch doubles the states that the verifier follows."""
    masks, wanted = _words(one.netmask.packed), _words(one.network_address.packed)
    differences = [
        f"(netlab_{side}[{place}] ^ {wanted[place]}U) & {mask}U" for place, mask in enumerate(masks) if mask
    ]
    return f"({' | '.join(differences) or '0'}) == 0"
