"""Which way a packet would go: next hop, interface and source address, as the kernel would choose them."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import fields
from typing import TypeAlias

import numpy as np
import pandas as pd

from netlab import addresses, checks
from netlab.errors import BadInput
from netlab.frames import Gap, Missing
from netlab.kernel import netns as namespaces, rtnetlink, spaces
from netlab.kernel.lookups import Question
from netlab.kernel.routing import Routing, Way
from netlab.kernel.rtnetlink import Link
from netlab.schemas import GATEWAY

Address: TypeAlias = str | ipaddress.IPv4Address | ipaddress.IPv6Address
_HIGHEST = 2**32 - 1


@checks.options
def gateway(
    destination: Address | Iterable[Address],
    *,
    source: Address | None = None,
    mark: int | None = None,
    interface: str | None = None,
    uid: int | None = None,
    netns: namespaces.NetNs = None,
) -> pd.DataFrame:
    """Say which way packets to a destination go from here, or from another network namespace.

    Parameters
    ----------
    destination
        An IP address, or several.
    source
        The source address; None lets the kernel choose it.
    mark
        The packet's firewall mark (SO_MARK), which policy rules may look at.
    interface
        The interface or VRF that the socket is bound to (SO_BINDTODEVICE).
    uid
        The user whose socket sends, which policy rules may look at; None is the calling user.
    netns
        A name under /run/netns, a path, a process id, "all", or None, which is the calling thread's
        namespace alone.

    Returns
    -------
    DataFrame
        One row for each destination (in each namespace), columns as in `netlab.schemas.GATEWAY`. A
        destination that cannot be reached is a row, too: `type` and `reason` say why.

    Raises
    ------
    BadInput
        If an argument cannot be right, or the namespace has no such interface.
    CapabilityError
        Without CAP_SYS_ADMIN, for another namespace than the own one.

    Notes
    -----
    RTM_GETROUTE look-ups, as `ip route get` makes them (net/ipv4/route.c, net/ipv6/route.c), joined with
    the tables of neighbours, links and addresses (rtnetlink(7)). No packet is sent: a neighbour that nobody
    has talked to has no MAC.

    Examples
    --------
    >>> import netlab
    >>> way = netlab.gateway("127.0.0.1").iloc[0]
    >>> print(way.type, way.interface, way.address, way.subnet)
    local lo 127.0.0.1 127.0.0.0/8
    """
    wanted = [checked(one) for one in destinations(destination)]
    asked = _questions(wanted, source, mark, uid)
    found = spaces.ask(netns, lambda: _answered(asked, interface))
    ways = [way for some, _ in found.by_inode.values() for way in some]
    looked_at = [what for _, what in found.by_inode.values()]
    not_given = [name for name, given in (("mark", mark), ("uid", uid), *_NEVER_GIVEN) if given is None]
    data = {field.name: [getattr(way, field.name) for way in ways] for field in fields(Way)}
    return GATEWAY.frame(
        {
            "netns": np.repeat(list(found.by_inode), len(asked)),
            "family": [question.family for question in asked] * len(found.by_inode),
            "destination": [rtnetlink.text(one) for one in wanted] * len(found.by_inode),
            **data,
        },
        [*found.missing, *_hashed(ways), *_guessed(not_given, looked_at, len(asked))],
    )


_CHOSEN = "gateway, mac, interface"
_NEVER_GIVEN = (("flow", None), ("other", None))
_GUESSED = {
    "mark": "policy rules look at the packets' mark, and mark= was not given: taken for 0",
    "uid": "policy rules look at the user, and uid= was not given: taken for the calling one",
    "flow": "policy rules look at the protocol or ports, which this is not told: taken for none",
    "other": "policy rules look at what this is not told, such as the type of service: taken for none",
}
ONE = (str, ipaddress.IPv4Address, ipaddress.IPv6Address)


def destinations(given: Address | Iterable[Address]) -> list[Address]:
    """Return several destinations, or one alone, as a list; what is neither is refused when it is read."""
    if isinstance(given, (*ONE, bytes)) or not isinstance(given, Iterable):
        return [given]
    return list(given)


def _questions(
    wanted: list[bytes], source: Address | None, mark: int | None, uid: int | None
) -> list[Question]:
    origin = b"" if source is None else _packed("source", source)
    if origin and any(len(one) != len(origin) for one in wanted):
        raise BadInput(
            f"source {str(source)!r} is not of the destination's family",
            fix="Ask for each family on its own",
        )
    known_mark = 0 if mark is None else checks.whole("mark", mark, 0, _HIGHEST)
    known_uid = None if uid is None else checks.whole("uid", uid, 0, _HIGHEST - 1)
    return [
        Question(4 if len(one) == 4 else 6, one, origin, mark=known_mark, uid=known_uid) for one in wanted
    ]


def checked(destination: object) -> bytes:
    """Return the bytes of a destination, or refuse it."""
    return _packed("destination", destination)


def _packed(name: str, value: object) -> bytes:
    if not isinstance(value, ONE):
        raise BadInput(f"{name} {value!r} is not an IP address", fix="Give one like '192.0.2.1'")
    text, _, scope = str(value).partition("%")
    if scope:
        raise BadInput(f"{name} {value!r} names an interface", fix=f"Give {text!r} and interface={scope!r}")
    try:
        address = ipaddress.ip_address(addresses.canonical(text))
    except ValueError as error:
        raise BadInput(
            f"{name} {value!r} is not an IP address", fix="Give one like '192.0.2.1'; names are not looked up"
        ) from error
    if address.is_unspecified:
        raise BadInput(
            f"{name} {value!r} stands for no address", fix="Give that of one host, or leave it out"
        )
    return address.packed


def _answered(asked: list[Question], interface: str | None) -> tuple[list[Way], set[str]]:
    """Ask in the calling thread's namespace; tell what its rules look at, too."""
    with Routing() as routing:
        index = 0 if interface is None else _index(interface, routing.links)
        ways = routing.ways([question._replace(interface=index) for question in asked])
        return ways, routing.rules_look_at


def _index(interface: str, links: dict[int, Link]) -> int:
    for link in links.values():
        if isinstance(interface, str) and link.name == interface:
            return link.index
    names = [link.name for link in links.values()]
    raise BadInput(f"there is no interface {interface!r}", fix=checks.nearest(str(interface), names))


def _hashed(ways: list[Way]) -> list[Missing]:
    """Say which next hops are those of one flow only."""
    count = sum((way.nexthops or 0) > 1 for way in ways)
    if not count:
        return []
    detail = (
        "the route has several next hops, and the kernel chooses by a hash of the flow: another may differ"
    )
    return [Missing(_CHOSEN, Gap.APPROXIMATE, count, detail)]


def _guessed(names: list[str], looked_at: list[set[str]], each: int) -> list[Missing]:
    """Say which answers hang on what was not given, because a rule looks at it."""
    counts = {name: each * sum(name in some for some in looked_at) for name in names}
    return [
        Missing(_CHOSEN, Gap.APPROXIMATE, count, _GUESSED[name]) for name, count in counts.items() if count
    ]
