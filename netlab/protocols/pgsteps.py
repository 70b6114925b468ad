"""What waits for its answer on one PostgreSQL connection: messages, and groups of them."""

from __future__ import annotations

from dataclasses import dataclass, field

from netlab.protocols import sql
from netlab.protocols.dialog import Exchange
from netlab.protocols.pgnames import Naming

_UNKNOWN = sql.Statement()


@dataclass(slots=True)
class Step:
    """A message of the client that the server answers, and the exchange that it belongs to."""

    kind: bytes
    exchange: Exchange
    naming: Naming = field(default_factory=Naming)
    is_executed: bool = False  # by the same exchange
    is_single: bool = True  # and not a query of several statements, or what may be one
    is_copied_in: bool = False  # the client says data now
    is_completed: bool = False  # what was asked first of the statements of a query; others may follow


@dataclass(slots=True)
class Group:
    """Messages of the extended protocol up to the Execute, Flush or Sync that ends them."""

    begun_ns: int
    size: int = 0
    statement: sql.Statement = _UNKNOWN
    said: list[tuple[bytes, Naming]] = field(default_factory=list)  # messages by kind and what they name
