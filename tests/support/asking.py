"""DNS queries and answers as packets of one socket, made by dnspython: what the matching is tested with."""

from __future__ import annotations

import ipaddress
from typing import Any

import dns.message
import dns.rrset

from netlab.protocols.dns.message import Message, read
from netlab.protocols.dns.queries import Ends

ASKER, SERVER, OTHER = "192.0.2.10", "192.0.2.53", "192.0.2.54"
SECOND = 1_000_000_000


def ends(
    *, cookie: int = 1, port: int = 40_000, server: str = SERVER, server_port: int = 53, is_tcp: bool = False
) -> Ends:
    """Return the asker's end of a conversation with a server."""
    local, remote = ipaddress.ip_address(ASKER).packed, ipaddress.ip_address(server).packed
    return Ends(7, cookie, is_tcp, local, port, remote, server_port)


def seen_by_server(asker: Ends) -> Ends:
    """Return the same conversation as the server sees it."""
    return asker._replace(
        local_address=asker.remote_address,
        local_port=asker.remote_port,
        remote_address=asker.local_address,
        remote_port=asker.local_port,
    )


def query(name: str = "www.example.", kind: str = "A", *, number: int = 77, **options: Any) -> Message:
    """Return a query as netlab reads it."""
    return read(dns.message.make_query(name, kind, id=number, **options).to_wire())


def answer(
    name: str = "www.example.",
    kind: str = "A",
    *records: str,
    number: int = 77,
    rcode: str = "NOERROR",
    flags: str = "QR",
    question: bool = True,
) -> Message:
    """Return an answer as netlab reads it; *records* as in a zone file, without their class."""
    made = dns.message.make_query(name, kind, id=number)
    made.flags = dns.flags.from_text(flags)
    made.set_rcode(dns.rcode.from_text(rcode))
    if not question:
        made.question = []
    for record in records:
        owner, ttl, kind_, rest = record.split(" ", 3)
        made.answer.append(dns.rrset.from_text(owner, int(ttl), "IN", kind_, rest))
    return read(made.to_wire())
