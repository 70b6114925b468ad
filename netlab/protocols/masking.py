"""What of a request may be shown: paths and keys without what tells one person or secret from another."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from netlab.errors import BadInput

ANY = "*"

_LONGEST = 200  # characters of a resource; the rest is cut off
_SEGMENT = 40  # characters: a longer one is a token, whatever it is made of
# Words and versions stay: users, oauth2, k8s, bootstrap.min.js, v1. A digit more, an escape or a sign: an id.
_SHORT = r"(?![A-Za-z0-9]{9})[A-Za-z]+[0-9][A-Za-z]*"
_PART = rf"(?:[A-Za-z]{{1,24}}|{_SHORT}|v[0-9]{{1,3}})"
_NAME = re.compile(rf"[._~]?{_PART}(?:[-._~]{_PART})*")
_HEX = re.compile(r"[0-9a-f]{8,}|[0-9A-F]{8,}")
_SERVICE = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
_HOST = re.compile(rb"(?:[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.%]+\])(?::[0-9]{1,5})?")


@dataclass(frozen=True, slots=True)
class Masking:
    """What is kept of paths and keys.

    The query of a path is always dropped, and so is all of a key behind its prefix.
    """

    rules: tuple[tuple[re.Pattern[str], str], ...] = ()  # one's own, before the standard one
    ids: bool = True  # whether path segments that are no words become *

    def path(self, target: str) -> str:
        """Return the path of *target* without its query, one `*` for each segment that is no word."""
        path = target.partition("?")[0].partition("#")[0]
        for pattern, replacement in self.rules:
            path = pattern.sub(replacement, path)
        if self.ids:
            path = "/".join([segment(part) if part else part for part in path.split("/")])
        return _cut(path)

    def key(self, name: str) -> str:
        """Return the prefix of a key: what is in front of its first colon, or `*` where that is no word."""
        prefix, colon, _ = name.partition(":")
        return _cut(segment(prefix) + (":*" if colon else ""))


STANDARD = Masking()


def masking(rules: Iterable[tuple[str, str]] = (), *, ids: bool = True) -> Masking:
    """Make a masking of one's own rules.

    Parameters
    ----------
    rules
        Pairs of a regular expression and what each of its matches in a path becomes, as `re.sub` takes them;
        all are applied, in their order.
    ids
        Whether segments that are no words become `*` after that: numbers, UUIDs, hashes, tokens, addresses.

    Raises
    ------
    BadInput
        If a rule is no regular expression, or its replacement names a group that it does not have.

    Examples
    --------
    >>> from netlab.protocols.masking import masking
    >>> masking([(r"^/~[^/]+", "/~user")], ids=False).path("/~jane/10?token=1")
    '/~user/10'
    """
    compiled = []
    for pattern, replacement in rules:
        try:
            compiled.append((re.compile(pattern), replacement))
            compiled[-1][0].sub(replacement, "")  # reads the replacement, too
        except (re.error, IndexError) as error:
            raise BadInput(
                f"{pattern!r} with {replacement!r} is no rule to mask by: {error}",
                fix=r"Give pairs as re.sub takes them, such as (r'^/users/[^/]+', '/users/*').",
            ) from error
    return Masking(tuple(compiled), ids)


def segment(part: str) -> str:
    """Return *part* of a path or key if it is a word or a version, else `*`."""
    if len(part) < 8 and part.isalpha() and part.isascii():  # most are
        return part
    known = len(part) <= _SEGMENT and _NAME.fullmatch(part) and not _HEX.fullmatch(part)
    return part if known or part == ANY else ANY


def service(name: str) -> str:
    """Return the *name* of a gRPC service or method, or `*` if it cannot be one."""
    return _cut(name) if _SERVICE.fullmatch(name) else ANY


def host(value: bytes) -> str | None:
    """Return a Host header's name and port without user and password; None: it is no such thing."""
    name = value.strip().rpartition(b"@")[2]
    return name.decode("ascii") if len(name) <= 255 and _HOST.fullmatch(name) else None


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"
