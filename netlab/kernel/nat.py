"""Which tracked connections are translated, and what kind of translation it is.

The two tuples of an entry say what is translated. What they do not say is whether the new source was written
in a rule or taken from the outgoing interface: MASQUERADE leaves no trace in ctnetlink. What can be known is
whether the new source is an address of this namespace, and whether both ends are on one link, by the subnets
of its interfaces.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from netlab import checks
from netlab.kernel import (
    conntrack,
    ctentries,
    ctframe,
    ctwanted,
    netlink,
    netns as namespaces,
    nlmessages,
    rtnetlink,
    spaces,
)
from netlab.kernel.ctentries import Array, Entries, Flags
from netlab.schemas import NAT

_KINDS = ["snat", "dnat", "both", "masquerade", "hairpin"]
_MASQUERADE, _HAIRPIN = 4, 5


@checks.options
def nat(
    *,
    netns: spaces.Spaces = None,
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
) -> pd.DataFrame:
    """List only the tracked connections whose addresses or ports are translated, and what kind that is.

    Takes and raises what `conntrack` does.

    Returns
    -------
    DataFrame
        Columns as in `netlab.schemas.NAT`. `nat` is what the tuples say: "snat" where replies go elsewhere
        than to the source, "dnat" where they come from elsewhere than the destination, "both" where both
        hold. `kind` says more where more can be known: "masquerade" is a snat to an address of this
        namespace, which a MASQUERADE rule makes, and a SNAT rule with such an address as well; "hairpin" is
        a dnat, with or without snat, whose client and new destination are on one link of this namespace, or
        are the same; what is sent to this namespace itself, as by a REDIRECT rule, stays a dnat. Ends behind
        another router are not recognised as being on one link.

    Notes
    -----
    Addresses and their subnets by RTM_GETADDR, in the namespace of the entry.

    Examples
    --------
    >>> import netlab
    >>> print(netlab.nat().nat.isna().any())
    False
    """
    chosen = ctwanted.wanted(
        family=family,
        protocol=protocol,
        address=address,
        port=port,
        src=src,
        sport=sport,
        dst=dst,
        dport=dport,
        mark=mark,
        zone=zone,
        status=status,
        translated=True,
    )
    homes: dict[int, list[_Home]] = {}

    def ask() -> nlmessages.Dump:
        homes[namespaces.inode()] = _homes()
        return conntrack.dump(chosen)

    parts, missing = conntrack.listed(spaces.ask(netns, ask), chosen)
    kinds = [_kind(part.entries, homes[part.inode]) for part in parts]
    codes = np.concatenate([np.zeros(0, np.int64), *kinds])
    if not len(codes):
        return NAT.empty(missing)
    return ctframe.framed(parts, missing, NAT, kind=pd.Categorical.from_codes(codes - 1, pd.Index(_KINDS)))


@dataclass(frozen=True, slots=True)
class _Home:
    """An address of this namespace."""

    address: Array
    network: Array  # of the subnet: the own one, or the other end's
    prefix_bits: int
    link: int  # index of the interface


def _homes() -> list[_Home]:
    """Return the addresses of the calling thread's namespace."""
    with netlink.opened(rtnetlink.ROUTE) as kernel:
        known = rtnetlink.interface_addresses(kernel)
    return [
        _Home(
            _octets(ipaddress.ip_address(local)), _octets(network.network_address), network.prefixlen, index
        )
        for index, some in known.items()
        for local, network in some
    ]


def _octets(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> Array:
    return np.frombuffer(address.packed, np.uint8)


def _kind(entries: Entries, homes: list[_Home]) -> Array:
    """Return the place of each translated entry's kind in _KINDS, from 1."""
    source, new_source = entries.places["src"], entries.places["reply_dst"]
    target = entries.places["reply_src"]
    known = np.asarray(entries.numbers["nat"])
    link, new_link = _link(source, homes), _link(target, homes)
    same_link = ((link == new_link) & (link > 0)) | ~ctentries.differ(source, target)
    hairpin = (known >= 2) & same_link & ~_own(source, homes) & ~_own(target, homes)
    masquerade = (known == 1) & _own(new_source, homes) & ctentries.differ(source, new_source)
    return np.select([hairpin, masquerade], [_HAIRPIN, _MASQUERADE], known)


def _own(places: Array, homes: list[_Home]) -> Flags:
    own = np.zeros(len(places), bool)
    for home in homes:
        if len(home.address) == places.shape[1]:
            own |= (places == home.address).all(axis=1)
    return own


def _link(places: Array, homes: list[_Home]) -> Array:
    """Return the interface whose subnet has each address, the longest prefix first; 0 where none has."""
    links = np.zeros(len(places), np.int64)
    for home in sorted(homes, key=lambda home: home.prefix_bits):
        if len(home.network) == places.shape[1]:
            mask = np.packbits(np.arange(8 * len(home.network)) < home.prefix_bits)
            links[((places ^ home.network) & mask == 0).all(axis=1)] = home.link
    return links
