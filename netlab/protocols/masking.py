"""What of a request may be shown: names without what tells one person or secret from another."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from netlab.errors import BadInput
from netlab.frames import Gap, Missing

ANY = "*"

Mask: TypeAlias = Callable[[str], str]

_LONGEST = 200  # characters of a resource; the rest is cut off
_LONGEST_READ = 4096  # characters that one's own rules are applied to; the rest is cut off
_SEGMENT = 40  # characters: a longer one is a token, whatever it is made of
# Words and versions stay: users, oauth2, k8s, bootstrap.min.js, v1. A digit more, an escape or a sign: an id.
_SHORT = r"(?![A-Za-z0-9]{9})[A-Za-z]+[0-9][A-Za-z]*"
_PART = rf"(?:[A-Za-z]{{1,24}}|{_SHORT}|v[0-9]{{1,3}})"
_NAME = re.compile(rf"[._~]?{_PART}(?:[-._~]{_PART})*")
_HEX = re.compile(r"[0-9a-f]{8,}|[0-9A-F]{8,}")
_SERVICE = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
_HOST = re.compile(rb"(?:[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.%]+\])(?::[0-9]{1,5})?")
_WORD = re.compile(r'(?:[^\s"]|(?<=\\)")+')  # a quote within a name has a backslash
_GOES_ON = r"[\w\\-]"  # what follows still belongs to the name
_DOMAIN = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
_LIKE = (
    "Give regular expressions of RE2 (no look-around, no back references) and replacements, such as "
    r"{r'^/users/[^/]+': '/users/*'}"
)


@dataclass(frozen=True, slots=True)
class Masking:
    """What is kept of paths, keys, topics, tables and names of hosts; made by `masking()`.

    The query of a path is always dropped, and so is all of a key behind its prefix; segments of a path that
    are no words become `*`.
    """

    rules: tuple[tuple[str, str], ...] = ()  # one's own: regular expressions, and what matches become
    domains: tuple[str, ...] = ()  # what is in front of them becomes *

    def path(self, target: str) -> str:
        """Return the path of *target* without its query, one `*` for each segment that is no word."""
        path = self.name(target.partition("?")[0].partition("#")[0])
        return _cut("/".join([segment(part) if part else part for part in path.split("/")]))

    def key(self, name: str) -> str:
        """Return the prefix of a key: what is in front of its first colon, or `*` where that is no word."""
        prefix, colon, _ = self.name(name).partition(":")
        return _cut(segment(prefix) + (":*" if colon else ""))

    def name(self, text: str) -> str:
        """Return *text* as one's own rules leave it."""
        if not self.rules:
            return text
        text = text[:_LONGEST_READ]
        for pattern, replacement in self.rules:
            text = pc.replace_substring_regex(text, pattern=pattern, replacement=replacement).as_py()
        return text

    def names(self, texts: Iterable[str]) -> str | None:
        """Return *texts* as one's own rules leave them, each once, the first ones; None: there are none."""
        return _cut(", ".join(dict.fromkeys(map(self.name, texts)))) or None

    def service(self, name: str) -> str:
        """Return the *name* of a gRPC service, or `*` if it cannot be one."""
        return self.name(service(name))

    def host(self, value: bytes) -> str | None:
        """Return a Host header's name and port without user and password; None: it is no such thing."""
        name = value.strip().rpartition(b"@")[2]
        if len(name) > 255 or not _HOST.fullmatch(name):
            return None
        return self.domain(name.decode("ascii"))

    def domain(self, text: str) -> str:
        """Return *text* with `*` for the labels in front of one's domains, wherever they stand in it.

        >>> masking(domains=["corp.example"]).domain("10 vault-7.eu.corp.example")
        '10 *.corp.example'
        """
        return _hiding(self.domains)(text)

    def missing(self) -> list[Missing]:
        """Say what of requests is hidden by one's own rules."""
        detail = f"what matches mask= is hidden (rules: {len(self.rules)})"
        return [Missing("resource", Gap.UNAVAILABLE, None, detail)] if self.rules else []


STANDARD = Masking()


def masking(rules: Mapping[str, str] | None = None, domains: Iterable[str] = ()) -> Masking:
    r"""Make a masking of one's own rules.

    Parameters
    ----------
    rules
        Regular expressions, and what each match in a path, key, topic or table becomes, where `\1` is the
        first group; all are applied, in their order, to the first 4,096 characters, and the others are left
        out. Their syntax is RE2's, so that none takes longer than in proportion to the text.
    domains
        What is in front of these in names of hosts becomes `*`.

    Raises
    ------
    BadInput
        If a rule is no regular expression, its replacement names a group that it does not have, or a domain
        is none.

    Examples
    --------
    >>> from netlab.protocols.masking import masking
    >>> masking({r"^/~[^/]+": "/~user"}).path("/~jane/10?token=1")
    '/~user/*'
    """
    if not isinstance(rules, Mapping | None):
        raise BadInput(f"mask {rules!r} is no mapping", fix=_LIKE)
    for pattern, replacement in (rules or {}).items():
        try:
            pc.replace_substring_regex("", pattern=pattern, replacement=replacement)
        except (pa.ArrowInvalid, TypeError) as error:
            problem = f"mask {pattern!r}: {replacement!r} is no rule to mask by: {error}"
            raise BadInput(problem, fix=_LIKE) from error
    return Masking(tuple((rules or {}).items()), tuple(map(_domain, domains)))


def segment(part: str) -> str:
    """Return *part* of a path or key if it is a word or a version, else `*`."""
    if len(part) < 8 and part.isalpha() and part.isascii():  # most are
        return part
    known = len(part) <= _SEGMENT and _NAME.fullmatch(part) and not _HEX.fullmatch(part)
    return part if known or part == ANY else ANY


def service(name: str) -> str:
    """Return the *name* of a gRPC service or method, or `*` if it cannot be one."""
    return _cut(name) if _SERVICE.fullmatch(name) else ANY


@lru_cache(maxsize=64)
def _hiding(domains: tuple[str, ...]) -> Mask:
    if not domains:
        return str
    names = sorted(domains, key=len, reverse=True)
    ending = re.compile(rf"\.(?:{'|'.join(map(re.escape, names))})(?!{_GOES_ON}|\.{_GOES_ON})", re.IGNORECASE)

    def hidden(word: re.Match[str]) -> str:
        found = [match.start() for match in ending.finditer(word[0])]
        return f"*{word[0][found[-1] :]}" if found else word[0]

    return lambda said: _WORD.sub(hidden, said)


def _domain(name: str) -> str:
    plain = name.strip(".").lower() if isinstance(name, str) else ""
    if not _DOMAIN.fullmatch(plain):
        raise BadInput(f"mask_names {name!r} is no domain", fix='Give names such as "corp.example"')
    return plain


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"
