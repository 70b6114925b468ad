"""What a capture leaves out: addresses with ports and protocols, as `{"10.0.0.0/8": ["80", "udp 53"]}`.

A key is an address, a CIDR or `*`; each entry is `*`, a port or a range, for one protocol when that is named
first.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from netlab.errors import BadInput
from netlab.tracer.networks import Address, End, Flags, Network, Networks, Side, network

Entry: TypeAlias = str | int
Excluded: TypeAlias = Mapping[Address, Entry | Iterable[Entry]]

PROTOCOLS = {"tcp": int(socket.IPPROTO_TCP), "udp": int(socket.IPPROTO_UDP)}
_ANY = "*"
_PORT_MAX = 65_535
_FORM = re.compile(r"(?:(tcp|udp)\s*)?(?:(\*)|(\d{1,5})(?:\s*-\s*(\d{1,5}))?)", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class Ports:
    """A range of ports, of one protocol or of each (0)."""

    low: int
    high: int
    protocol: int = 0

    @property
    def every(self) -> bool:
        """Whether the port does not matter, and may be not known."""
        return self.low == 0

    def hold(self, end: End, protocols: npt.NDArray[np.uint8]) -> Flags:
        """Tell which ends have one of these ports."""
        inside = (end.port >= self.low) & (end.port <= self.high)
        return inside & (protocols == self.protocol) if self.protocol else inside

    def condition(self, side: Side) -> list[str]:
        """Return the same as C terms that have to be true together."""
        port = f"(attempt)->{side}_port"
        terms = [] if self.every else [f"{port} >= {self.low}", f"{port} <= {self.high}"]
        return [*terms, f"(attempt)->protocol == {self.protocol}"] if self.protocol else terms


_EVERY_PORT = Ports(0, _PORT_MAX)


@dataclass(frozen=True, slots=True)
class Excludes:
    """Rules for one end: ports, and the networks (none: any address) where they are left out."""

    rules: tuple[tuple[Ports, Networks], ...] = ()

    @classmethod
    def of(cls, name: str, given: Excluded | None) -> Excludes:
        """Check what the caller gave for the option *name*."""
        if given is None:
            return cls()
        if not isinstance(given, Mapping) or not given:
            raise BadInput(f"{name} {given!r} is not a mapping with entries", fix=_EXAMPLE)
        networks: dict[Ports, list[Network]] = {}
        anywhere: set[Ports] = set()
        for key, entries in given.items():
            for ports in _entries(name, key, entries):
                if key == _ANY:
                    anywhere.add(ports)
                else:
                    networks.setdefault(ports, []).append(network(f"{name} address", key))
        everywhere = [(ports, Networks()) for ports in sorted(anywhere)]
        somewhere = [
            (ports, Networks.of(name, networks[ports])) for ports in sorted(networks) if ports not in anywhere
        ]
        return cls((*everywhere, *somewhere))

    def __len__(self) -> int:
        """Return how many comparisons the rules take."""
        return sum(max(1, len(networks)) for _, networks in self.rules)

    def hold(self, end: End, protocols: npt.NDArray[np.uint8]) -> Flags:
        """Tell which ends are left out."""
        out = np.zeros(len(protocols), bool)
        for ports, networks in self.rules:
            here = ports.hold(end, protocols)
            out |= here & networks.hold(end) if networks else here
        return out

    def condition(self, side: Side) -> str:
        """Return the same as C, over the variables of `networks.declarations`."""
        rules = (
            [*ports.condition(side), *([networks.condition(side)] if networks else [])]
            for ports, networks in self.rules
        )
        return " || ".join(f"({' && '.join(terms)})" for terms in rules)


_EXAMPLE = 'Give such as {"10.0.0.0/8": ["80", "1-5", "udp 53"], "*": ["tcp 22"]}'
_ENTRY = 'Give a port, a range such as "8000-8999", "*", or one of these after "tcp" or "udp"'


def _entries(name: str, key: object, entries: object) -> list[Ports]:
    several = entries if isinstance(entries, Iterable) and not isinstance(entries, str | bytes) else [entries]
    found = [_ports(name, key, entry) for entry in several]
    if not found:
        raise BadInput(
            f"{name} {key!r} has no ports", fix=f'Give ["*"] to leave out all of {key}, or leave it away'
        )
    return found


def _ports(name: str, key: object, entry: object) -> Ports:
    where = f"{name} {key!r}: {entry!r}"
    text = str(entry) if isinstance(entry, int) and not isinstance(entry, bool) else entry
    form = _FORM.fullmatch(text.strip()) if isinstance(text, str) else None
    if form is None:
        raise BadInput(f"{where} is not a port, a range or *", fix=_ENTRY)
    word, star, low, high = form.groups()
    protocol = PROTOCOLS[word.lower()] if word else 0
    if star:
        if key == _ANY:
            raise BadInput(f"{where} would leave out everything", fix=_EVERYTHING)
        return Ports(_EVERY_PORT.low, _EVERY_PORT.high, protocol)
    ports = Ports(int(low), int(high or low), protocol)
    if min(ports.low, ports.high) < 1 or max(ports.low, ports.high) > _PORT_MAX:
        raise BadInput(f"{where} is outside the ports, which go from 1 to {_PORT_MAX}", fix=_ENTRY)
    if ports.low > ports.high:
        raise BadInput(f"{where} ends before it begins", fix=f'Did you mean "{high}-{low}"?')
    return ports


_EVERYTHING = 'Name addresses or ports; to follow one protocol only, say protocol="tcp" or "udp"'
