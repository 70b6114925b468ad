"""What the kernel is asked about the way of one connection's packets."""

from __future__ import annotations

import ipaddress
from typing import Any

import pandas as pd

from netlab.kernel.ctnames import NUMBERS
from netlab.kernel.lookups import Question
from netlab.kernel.routing import Routing

# No peer: what a socket has that is not connected.
UNSPECIFIED = ["0.0.0.0", "::"]  # noqa: S104 - nothing is bound


def question(known: Routing, row: dict[Any, Any]) -> Question | None:
    """Return what to ask; None for a link-local peer whose link is not known."""
    destination = ipaddress.ip_address(row["remote_address"])
    source = "" if pd.isna(row["local_address"]) else row["local_address"]
    if source in UNSPECIFIED:
        source = ""
    interface = _number(row.get("bound_ifindex")) or (known.interface_of(source) if source else 0)
    if destination.version == 6 and destination.is_link_local and not interface:
        return None
    protocol = row.get("protocol")
    return Question(
        family=destination.version,
        destination=destination.packed,
        source=ipaddress.ip_address(source).packed if source else b"",
        interface=interface,
        mark=_number(row.get("mark")) or 0,
        uid=_number(row.get("uid")),
        protocol=0 if protocol is None or pd.isna(protocol) else NUMBERS[protocol],
        source_port=_number(row.get("local_port")) or 0,
        port=_number(row.get("remote_port")) or 0,
    )


def _number(value: Any) -> int | None:
    return None if value is None or pd.isna(value) else int(value)
