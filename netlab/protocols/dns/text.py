"""The words of DNS: labels as in a zone file, names of types and codes, what records say, and masks."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import TypeAlias

from netlab.checks import needing
from netlab.errors import BadInput

with needing("protocols", "DNS needs dnspython, which is not installed"):
    import dns.exception
    import dns.rcode
    import dns.rdata
    import dns.rdataclass
    import dns.rdatatype

Mask: TypeAlias = Callable[[str], str]

_TYPES, _CLASSES = dns.rdatatype.RdataType.make, dns.rdataclass.RdataClass.make
_PLAIN = b"abcdefghijklmnopqrstuvwxyz0123456789-_"
_ESCAPED = b'"().;\\@$'
_LONGEST = 4096  # characters of what one record says
_WORD = re.compile(r'(?:[^\s"]|(?<=\\)")+')  # a quote within a name has a backslash
_GOES_ON = r"[\w\\-]"  # what follows still belongs to the name
_SUFFIX = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")


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


def mask(suffixes: Iterable[str]) -> Mask:
    """Return what puts `*` for the labels in front of any of *suffixes*, wherever it stands in a text.

    Raises
    ------
    BadInput
        If a suffix is no domain name.

    Examples
    --------
    >>> mask(["corp.example"])("10 vault-7.eu.corp.example")
    '10 *.corp.example'
    """
    names = sorted(map(_suffix, suffixes), key=len, reverse=True)
    if not names:
        return str
    ending = re.compile(rf"\.(?:{'|'.join(map(re.escape, names))})(?!{_GOES_ON}|\.{_GOES_ON})", re.IGNORECASE)

    def hidden(word: re.Match[str]) -> str:
        found = [match.start() for match in ending.finditer(word[0])]
        return f"*{word[0][found[-1] :]}" if found else word[0]

    return lambda said: _WORD.sub(hidden, said)


def _suffix(name: str) -> str:
    plain = name.strip(".").lower() if isinstance(name, str) else ""
    if not _SUFFIX.fullmatch(plain):
        raise BadInput(f"mask_names {name!r} is no domain", fix='Give names such as "corp.example"')
    return plain
