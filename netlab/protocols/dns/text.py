"""The words of DNS: labels as in a zone file, names of types and codes, what records say."""

from __future__ import annotations

import socket
from functools import lru_cache

from netlab.checks import needing

with needing("protocols", "DNS needs dnspython, which is not installed"):
    import dns.exception
    import dns.rcode
    import dns.rdata
    import dns.rdataclass
    import dns.rdatatype

_TYPES, _CLASSES = dns.rdatatype.RdataType.make, dns.rdataclass.RdataClass.make
_PLAIN = b"abcdefghijklmnopqrstuvwxyz0123456789-_"
_ESCAPED = b'"().;\\@$'
_LONGEST = 4096  # characters of what one record says


def of_label(label: bytes) -> str:
    """Return a label in lower case, with what is special in a zone file escaped (RFC 4343)."""
    lower = label.lower()
    if not lower.translate(None, _PLAIN):
        return lower.decode("ascii")
    return "".join(map(_character, lower))


def _character(code: int) -> str:
    if code in _ESCAPED:
        return f"\\{code:c}"
    return chr(code) if 0x20 < code < 0x7F else f"\\{code:03d}"


def of_address(packed: bytes) -> str:
    """Return an address of 4 or 16 bytes."""
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)


@lru_cache(maxsize=1024)
def of_type(kind: int, rdclass: int) -> str:
    """Return the name of a record's type, behind that of its class where this is not the internet."""
    name = dns.rdatatype.to_text(_TYPES(kind))
    if rdclass == dns.rdataclass.IN:
        return name
    return f"{dns.rdataclass.to_text(_CLASSES(rdclass))} {name}"


@lru_cache(maxsize=1024)
def of_rcode(code: int) -> str:
    """Return the name of an answer's code; RCODE123 where it has none."""
    name = dns.rcode.to_text(dns.rcode.Rcode.make(code))
    return f"RCODE{code}" if name.isdigit() else name


def of_rdata(message: bytes, at: int, size: int, kind: int, rdclass: int) -> str:
    """Return what a record says as in a zone file, the last dot of a name left out.

    What is not as its type says is told as bytes, as what is of an unknown type is (RFC 3597 section 5).
    """
    try:
        said = dns.rdata.from_wire(_CLASSES(rdclass), _TYPES(kind), message, at, size).to_text()
    except (dns.exception.DNSException, ValueError):
        said = f"\\# {size} {message[at : at + size].hex()}".rstrip()
    said = said.removesuffix(".") or said
    return said if len(said) <= _LONGEST else f"{said[:_LONGEST]}..."
