"""One conversation as its reader sees it: bytes of both sides in, requests with their answers out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum, StrEnum
from functools import cache
from typing import Protocol, TypeGuard, runtime_checkable


class Side(IntEnum):
    """Who says something."""

    CLIENT = 0  # opened the connection
    SERVER = 1

    @property
    def other(self) -> Side:
        """The one who listens."""
        return Side(1 - self)


class Outcome(StrEnum):
    """What became of a request."""

    ANSWERED = "answered"
    PENDING = "pending"  # not answered yet
    UNANSWERED = "unanswered"  # the conversation ended first
    MISSED = "missed"  # bytes were not seen where the answer may have been


@dataclass(slots=True)
class Exchange:
    """One request and what became of it. Times are those of its packets, by the clock of captures."""

    protocol: str  # http, http2, grpc, kafka, postgres, redis
    requested_ns: int  # the request's first byte
    outcome: Outcome = Outcome.PENDING
    answered_ns: int | None = None  # the answer's first byte
    ended_ns: int | None = None  # the answer's last byte
    version: str | None = None  # of the protocol: HTTP/1.1; of a Kafka API: its number
    operation: str | None = None  # GET; SELECT; Produce; HGET
    resource: str | None = None  # path, table, topic, prefix of the key; masked by default
    host: str | None = None  # as the request names it: Host, :authority
    status: str | None = None  # 404; grpc-status; SQLSTATE; Kafka's error code
    error: str | None = (
        None  # the failure by name: Not Found, UNAVAILABLE, unique_violation; None: it went well
    )
    request_bytes: int | None = None  # the whole message, with its framing
    response_bytes: int | None = None
    stream: int | None = None  # HTTP/2's stream, Kafka's correlation id
    partition: int | None = None
    records: int | None = None

    def unproved(self) -> Exchange:
        """Return the request alone: what was read of an answer may be another one's."""
        return replace(
            self,
            outcome=Outcome.MISSED,
            answered_ns=None,
            ended_ns=None,
            status=None,
            error=None,
            response_bytes=None,
            records=None,
        )


class Dialog(Protocol):
    """Reads one conversation. Bounded in memory, whatever comes; never raises for what the network says.

    Each method returns the exchanges that are over with it, each once. What came in the middle of a message
    is skipped up to the next one that is surely whole: a reader begins anywhere, and never guesses.
    """

    unread_bytes: int  # said, and understood as nothing: counted in the coverage

    def said(self, side: Side, data: bytes, at_ns: int) -> list[Exchange]:
        """Read the next bytes of *side*."""

    def missed(self, side: Side, size: int | None, at_ns: int) -> list[Exchange]:
        """Go on behind *size* bytes of *side* that were not seen; None: nobody knows how many.

        A message whose length is known is still whole when only its payload was missed.
        """

    def ended(self, at_ns: int) -> list[Exchange]:
        """Take note that the connection is closed: what was not answered will not be."""

    def pending(self) -> list[Exchange]:
        """Return what is not answered yet."""


@runtime_checkable
class PassesBodies(Protocol):
    """A dialog that only counts bytes of bodies: to miss those is no loss."""

    def spare(self, side: Side) -> int:
        """Return how many of the next bytes of *side* are only counted."""


class Changes(Dialog, Protocol):
    """A dialog after which another one may begin on the same connection."""

    upgraded: str | None  # what is spoken from now on
    left: int  # bytes of the last data that are in it


def is_done(dialog: Dialog | None) -> bool:
    """Return whether *dialog* reads nothing more of its connection, however much is said."""
    upgraded = getattr(dialog, "upgraded", None)
    return getattr(dialog, "is_done", False) or upgraded not in {None, "connect"}


def is_tunnel(dialog: Dialog) -> TypeGuard[Changes]:
    """Return whether *dialog* is over, and its connection a tunnel from now on (RFC 9110 section 9.3.6)."""
    return getattr(dialog, "upgraded", None) == "connect"


def passes_bodies(dialog: Dialog | None) -> TypeGuard[PassesBodies]:
    """Return whether *dialog* counts bodies; before Python 3.12 the check itself takes as long as a head."""
    return _passes_bodies(type(dialog))  # type: ignore[arg-type]  # to mypy classes have no hash


@cache
def _passes_bodies(kind: type[object]) -> bool:
    return issubclass(kind, PassesBodies)
