"""From what the caller calls the target to an address and a route to it."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from numbers import Integral
from typing import TypeAlias
from urllib.parse import urlsplit

from netlab import addresses
from netlab.errors import BadInput, NetlabError, ProbeError
from netlab.kernel.netns import NetNs, entered
from netlab.path.opening import opening

Sockaddr: TypeAlias = tuple[str, int] | tuple[str, int, int, int]

FAMILIES: dict[int | None, socket.AddressFamily] = {
    None: socket.AF_UNSPEC,
    4: socket.AF_INET,
    6: socket.AF_INET6,
}
_AT_ONCE = 32  # look-ups
# Letters that Python, which follows IDNA 2003 (RFC 3490), turns into others and today's names keep (RFC 5894
# section 7.2): it would look up another host.
_DEVIATIONS = frozenset("\u00df\u03c2\u200c\u200d")
_DISCARD = 9  # a connected UDP socket sends nothing; the port only must not be 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """An address to probe: `name` is what was asked for, `scope` the interface index of a link-local one."""

    name: str
    family: int
    address: str
    scope: int

    @property
    def packed(self) -> bytes:
        """The address as network-order bytes."""
        return socket.inet_pton(FAMILIES[self.family], self.address)

    def sockaddr(self, port: int) -> Sockaddr:
        """Return what a socket of this family sends to."""
        return (self.address, port) if self.family == 4 else (self.address, port, 0, self.scope)


def resolve(name: str, family: int | None = None, netns: NetNs = None) -> list[Target]:
    """Return the addresses of *name* in the resolver's order of preference (RFC 6724).

    Parameters
    ----------
    name
        A host name or an address; a link-local one with its interface, as in `fe80::1%eth0`.
    family
        4 or 6 for addresses of that family only.
    netns
        The network namespace that the interface of a link-local address is in; names are looked up in the
        caller's.

    Raises
    ------
    BadInput
        If *name* is empty, no host name, of the other family, or an address that no single host has.
    ProbeError
        If the resolver does not know it.
    """
    checked_family(family)
    if not isinstance(name, str) or not name.strip():
        raise BadInput(f"target {name!r} is not a host name or an address", fix="Give one")
    if not _DEVIATIONS.isdisjoint(name):
        raise BadInput(
            f"target {name!r} has letters that are looked up in two ways",
            fix="Give its ASCII form, as in xn--…",
        )
    address = _address(name, family)
    if address and "%" not in address:
        return [_target(name, (address, 0))]
    asked = address or name
    if not address and not {"/", ":"}.isdisjoint(name):
        raise BadInput(f"target {name!r} is no host name", fix=_apart(name))
    try:
        with entered(netns if "%" in asked else None):
            found = socket.getaddrinfo(asked, None, FAMILIES[family], socket.SOCK_DGRAM)
    except (UnicodeError, ValueError) as error:
        raise BadInput(f"target {name!r} is not a host name: {error}") from error
    except socket.gaierror as error:
        raise ProbeError(
            f"cannot resolve target {name!r}: {error.strerror}", fix="Check the name, or give an address"
        ) from error
    return [_target(name, sockaddr) for *_, sockaddr in found]


def checked_family(family: object) -> None:
    """Refuse what is neither 4 nor 6 nor None."""
    if family is not None and not (isinstance(family, Integral) and int(family) in FAMILIES):
        raise BadInput(f"family {family!r} is not known", fix="Give 4, 6, or None for either")


def resolve_all(
    wanted: Sequence[str], family: int | None = None, netns: NetNs = None
) -> list[tuple[str, list[Target] | NetlabError]]:
    """Return the addresses of each name or the error that says why there is none, asking for all at once."""

    def found(name: str) -> tuple[str, list[Target] | NetlabError]:
        try:
            return name, resolve(name, family, netns)
        except NetlabError as error:
            return _shown(name), error

    with ThreadPoolExecutor(min(len(wanted), _AT_ONCE)) as pool:
        return list(pool.map(found, wanted))


def _shown(name: object) -> str:
    """Return what was given for a name as a text that a frame can hold."""
    return (name if isinstance(name, str) else repr(name)).encode(errors="backslashreplace").decode()


def _apart(name: str) -> str:
    """Return how to ask for what may be a URL, or a host with a port."""
    try:
        parts = urlsplit(name if "//" in name else f"//{name}")
        host, port = parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        host = port = None
    if not host:
        return "Give the host alone, and its port as port="
    return f"Give the host alone: {host!r}" + (f", with port={port}" if port else "")


def _address(name: str, family: int | None) -> str | None:
    """Return *name* in canonical form, checked against *family*, or None if it is no address."""
    try:
        address = addresses.canonical(name)
    except ValueError:
        return None
    version = ipaddress.ip_address(address).version
    if family not in {None, version}:
        raise BadInput(
            f"target {name!r} is an IPv{version} address, but family is {family}",
            fix=f"Leave family out, or give an IPv{family} address",
        )
    return address


def _target(name: str, sockaddr: tuple[object, ...]) -> Target:
    host = str(sockaddr[0]).partition("%")[0]
    address = ipaddress.ip_address(host)
    if address.is_multicast or address.is_unspecified or host == "255.255.255.255":
        raise BadInput(
            f"target {name!r} is {host}, which is not one host's address", fix="Give a unicast address"
        )
    return Target(
        name=name,
        family=address.version,
        address=str(address),
        scope=int(str(sockaddr[3])) if len(sockaddr) == 4 else 0,
    )


def routed(targets: list[Target], netns: NetNs) -> tuple[Target, bytes]:
    """Return the first target that the namespace has a route to, and the packed source address towards it.

    Raises
    ------
    ProbeError
        If there is a route to none of them.
    """
    refused = None
    with entered(netns):
        for target in targets:
            try:
                return target, _source(target)
            except ProbeError as error:
                refused = refused or error
    raise refused or ProbeError("no target to route to")


def _source(target: Target) -> bytes:
    # A connected UDP socket asks for the kernel's own route and source selection and sends nothing.
    with opening("a socket"), socket.socket(FAMILIES[target.family], socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(target.sockaddr(_DISCARD))
        except OSError as error:
            raise _no_route(target, error) from error
        return socket.inet_pton(FAMILIES[target.family], sock.getsockname()[0])


def _no_route(target: Target, error: OSError) -> ProbeError:
    if error.errno == errno.EINVAL and ipaddress.ip_address(target.address).is_link_local:
        fix = f"Name the interface, as in {target.address}%eth0"
    elif error.errno == errno.EACCES:
        fix = f"It is a broadcast address, or a route prohibits it: look at `ip route get {target.address}`"
    else:
        fix = f"Look at `ip route get {target.address}`"
    reason = os.strerror(error.errno or 0)
    return ProbeError(f"no route to {target.name} ({target.address}): {reason}", fix=fix)
