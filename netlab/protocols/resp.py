"""RESP2 and RESP3, the serialization protocol of Redis: what one side says, value by value."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from netlab.protocols.dialog import Side
from netlab.protocols.masking import ANY
from netlab.protocols.rediscommands import ERRORS, READ, is_command

_LONGEST_LINE = 65536  # bytes: the server's own limit of an inline command
_KEPT = 512  # bytes of an argument that are looked at
_MOST_ITEMS = 1 << 20  # arguments of a command: the server's own limit
_ITEMS = {b"*": 1, b"~": 1, b">": 1, b"%": 2, b"|": 2}  # values that a count in front of them tells of
_PUSHES = {b">", b"*"}  # what the server says unasked; in an array it may be an answer, too
_COMMAND = re.compile(rb"\*[1-9][0-9]{0,6}\r\n\$[1-9][0-9]?\r\n([A-Za-z_.-]+)\r\n")
_REPLY = re.compile(rb"[+-][ -~]+\r\n|[:,#(][^\r\n]{1,40}\r\n|_\r\n|[$=!*~>%|](?:-1|[0-9]{1,10})\r\n")
_ERROR = re.compile(rb"[A-Z][A-Z0-9_]{1,30}(?![^ ])")


class GarbledError(Exception):
    """What is said is no RESP."""


@dataclass(slots=True)
class Voice:
    """What one side is saying: values, one after another, and values inside of values."""

    side: Side
    is_lost: bool
    held: bytes = b""  # of a line or an argument that is not whole yet
    began_ns: int = 0  # first byte of the message
    size: int = 0  # of the message so far
    items: int = 0  # values that are still to come before the message is over
    arguments: int = 0  # of a command
    kept: list[bytes] = field(
        default_factory=list
    )  # a command's first arguments; of an array or push the first string
    keeping: int | None = None  # length of the string that comes, and is looked at
    skip: int = 0  # bytes that are passed over
    kind: bytes = b""  # type of a reply
    is_failure: bool = False  # the string that comes is one
    error: str | None = None
    count: bytes = b""  # the latest number behind a string: to who subscribes, how many channels are left

    @property
    def is_over(self) -> bool:
        """Whether nothing of the message is still to come."""
        return not self.items and not self.skip and self.keeping is None

    def next_message(self, at_ns: int) -> None:
        """Forget the message that is over."""
        self.kept, self.size, self.error, self.count, self.began_ns = [], 0, None, b"", at_ns

    def step(self, data: bytes, place: int) -> int:
        """Read the next part at *place* and return the place behind it; *place* if it is not whole yet."""
        if self.skip:
            count = min(self.skip, len(data) - place)
            self.skip -= count
            return place + count
        if self.keeping is not None:
            count = min(self.keeping, _KEPT)
            if len(data) - place < count:
                return place
            if self.is_failure:
                self.error = self.error or _error(data[place : place + count])
            else:
                self.kept.append(data[place : place + count])
            self.skip, self.keeping = self.keeping + 2 - count, None
            return place + count
        end = data.find(b"\r\n", place)
        if (len(data) if end < 0 else end) - place > _LONGEST_LINE:
            raise GarbledError
        if end < 0:
            return place
        if self.side:
            self._value(data[place:end])
        else:
            self._argument(data[place:end])
        return end + 2

    def _argument(self, line: bytes) -> None:
        """Read a line of a command."""
        kind, rest = line[:1], line[1:]
        if self.items:
            if kind != b"$":
                raise GarbledError
            self.items -= 1
            self._string(_number(rest), is_kept=len(self.kept) < READ)
        elif kind == b"*":
            self.items = self.arguments = max(0, _number(rest))
        elif line:
            words = line.split()
            self.kept, self.arguments = words[:READ], len(words)
            if not self.kept or not is_command(self.kept[0].decode("latin-1").upper()):
                raise GarbledError

    def _value(self, line: bytes) -> None:
        """Read a line of a reply."""
        kind, rest = line[:1], line[1:]
        if not self.items:
            self.items, self.kind = 1, kind
        if kind in _ITEMS:
            inside = max(0, _number(rest)) * _ITEMS[kind]
            self.items += inside - (kind != b"|")  # the value itself is behind its attributes
        elif kind and kind in b"$=!":
            self.items -= 1
            self.is_failure = kind == b"!"
            may_push = self.kind in _PUSHES and not self.kept
            self._string(_number(rest), is_kept=self.is_failure or may_push)
        elif kind and kind in b"+:,#(_-":
            self.items -= 1
            if kind == b"-":
                self.error = self.error or _error(rest)
            elif kind == b":" and self.kept:
                self.count = rest  # of any length: times in milliseconds have more digits than lengths
        else:
            raise GarbledError
        if self.items > _MOST_ITEMS:
            raise GarbledError

    def _string(self, length: int, *, is_kept: bool) -> None:
        """Expect a string of *length* bytes and its line end; -1 is no string."""
        if length > 0 and is_kept:
            self.keeping = length
        elif length >= 0:
            self.skip = length + 2
            if is_kept and not self.is_failure:
                self.kept.append(b"")


def begins_command(data: bytes) -> bool:
    """Return whether a command surely begins with *data*."""
    found = _COMMAND.match(data)
    return bool(found and is_command(found[1].decode("ascii").upper()))


def begins_reply(data: bytes) -> bool:
    """Return whether a reply may begin with *data*."""
    return _REPLY.match(data) is not None


def _number(digits: bytes) -> int:
    if len(digits) > 10 or not digits.removeprefix(b"-").isdigit():
        raise GarbledError
    return int(digits)


def _error(text: bytes) -> str:
    """Return an error's name, its first word; what follows may quote the command, and scripts say any."""
    found = _ERROR.match(text)
    name = found[0].decode("ascii") if found else "ERR"
    return name if name in ERRORS else ANY
