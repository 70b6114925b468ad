"""Flows between documentation addresses."""

from __future__ import annotations

import ipaddress
from typing import Any

from netlab.path.kinds import EchoFlow, SynFlow, UdpFlow
from netlab.path.probes import Flow, Protocol

SALT = 0xDEADBEEF
KINDS = [Protocol.UDP, Protocol.TCP, Protocol.ICMP]  # that need no connection


def ends(family: int) -> tuple[bytes, bytes]:
    addresses = ("192.0.2.1", "198.51.100.9") if family == 4 else ("2001:db8::1", "2001:db8:9::9")
    source, target = (ipaddress.ip_address(address).packed for address in addresses)
    return source, target


def flow(protocol: Protocol = Protocol.UDP, family: int = 4, *, number: int = 0, **changes: Any) -> Flow:
    """Return a flow from port 50000 up to 443, or echo requests with checksums from 5000 up."""
    source, target = ends(family)
    fields = {"number": number, "source": source, "target": target, "salt": SALT}
    if protocol is Protocol.ICMP:
        return EchoFlow(**{**fields, "identifier": 0xBEEF, "checksum": 5000 + number, **changes})
    kind = UdpFlow if protocol is Protocol.UDP else SynFlow
    return kind(**{**fields, "source_port": 50_000 + number, "port": 443, **changes})
