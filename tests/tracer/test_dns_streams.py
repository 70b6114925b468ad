"""DNS over TCP and TLS in a capture: what could not be read is no silence."""

from __future__ import annotations

import dns.message
import pytest
from asking import SECOND, ends

from netlab.protocols.dialog import Side
from netlab.protocols.dns.queries import Outcome, Queries
from netlab.tracer.lookups import OverTcp


def framed(message: dns.message.Message) -> bytes:
    said = message.to_wire()
    return len(said).to_bytes(2) + said


@pytest.mark.parametrize(
    ("cut", "outcome"), [(None, Outcome.TIMEOUT), (5, Outcome.MISSED), (2, Outcome.ANSWERED)]
)
def test_a_query_is_not_called_unanswered_when_something_came_that_was_not_understood(
    cut: int | None, outcome: Outcome
) -> None:
    """A connection is met in its middle, and pieces of 5 bytes are no place to begin to read at."""
    asked = dns.message.make_query("www.example.", "A")
    said = framed(dns.message.make_response(asked))
    seen = Queries(timeout_s=15, max_kept=10)
    dialog = OverTcp(seen, ends(is_tcp=True), client_is_local=True, whole=False)

    dialog.said(Side.CLIENT, framed(asked), 0)
    for piece in (said[:cut], said[cut:]) if cut else ():
        dialog.said(Side.SERVER, piece, SECOND)
    seen.expire(99 * SECOND)

    assert [one.outcome for one in seen.all()] == [outcome]
