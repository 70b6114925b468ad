"""Lookups to the `dns` frame."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from netlab.frames import Cause, Gap, Missing
from netlab.protocols.dns import text
from netlab.protocols.dns.lookups import Answer, grouped
from netlab.protocols.dns.queries import Account, Outcome, Query
from netlab.protocols.masking import Mask
from netlab.schemas import DNS


class Owner(NamedTuple):
    """Whose socket it is."""

    pid: int
    process: str | None
    container: str | None


Owners = Mapping[int, Owner]  # by cookie; who is not in it is unknown


def frame(
    queries: Iterable[Query],
    *,
    owners: Owners,
    timeout_s: float,
    to_utc_ns: int,
    mask: Mask = str,
    missing: Iterable[Missing] = (),
) -> pd.DataFrame:
    """Build the frame, oldest lookup first.

    Parameters
    ----------
    queries
        What was asked, answered or not.
    owners
        Whose each socket is.
    timeout_s
        After how many seconds a query is given up.
    to_utc_ns
        What to add to a packet's time to get UTC.
    mask
        Is given each text that may have a name in it.
    missing
        What the frame lacks.
    """
    asked = list(queries)
    lookups = grouped(asked, [_asker(query, owners) for query in asked], timeout_s=timeout_s)
    if not lookups:
        return DNS.empty(missing)
    last = [lookup.last for lookup in lookups]
    first_ns = np.array([lookup.queries[0].asked_ns for lookup in lookups])
    known = [owners.get(query.ends.cookie) for query in last]
    data = {
        **_said(last, mask),
        **_times(last, first_ns),
        **_ends(last),
        "retries": [lookup.retries for lookup in lookups],
        "transport": [lookup.transport for lookup in lookups],
        "truncated": [_yes(any(query.is_truncated for query in lookup.queries)) for lookup in lookups],
        "silent_servers": [" ".join(map(text.of_address, lookup.silent)) or None for lookup in lookups],
        "conversations": [_several(lookup.conversations) for lookup in lookups],
        "asked_at": first_ns + to_utc_ns,
        "pid": [owner and owner.pid for owner in known],
        "process": [owner and owner.process for owner in known],
        "container": [owner and owner.container for owner in known],
    }
    return DNS.frame(data, missing)


def lacks(account: Account, unread: int) -> list[Missing]:
    """Say what no row tells of, *unread* messages among it."""
    gaps = [
        Missing("dns", Gap.UNSEEN, account.unasked, _UNASKED),
        Missing("dns", Gap.LOST, account.crowded, "queries came while too many others were in flight"),
        Missing("dns", Gap.LOST, account.dropped, "queries made room for later ones", Cause.LET_GO),
        Missing("dns", Gap.UNAVAILABLE, account.others, _OTHERS),
        Missing("dns", Gap.UNAVAILABLE, unread, "messages on the ports of DNS could not be read as DNS"),
    ]
    return [gap for gap in gaps if gap.count]


_UNASKED = "answers to no query in flight: late, a second one, or asked before the capture"
_OTHERS = (
    "messages that look nothing up, such as zone changes, notifications and mDNS probes for one's own name"
)


def _asker(query: Query, owners: Owners) -> Hashable:
    """Return who sent a query: a process of this host, or the address it came from."""
    ends = query.ends
    if not query.outgoing:
        return ends.netns, ends.remote_address, ends.is_tls  # what ends TLS may pass it on, on one host
    owner = owners.get(ends.cookie)
    return ends.netns, owner.pid if owner else None, None if owner else (ends.cookie or ends.local_port)


def _said(last: list[Query], mask: Mask) -> dict[str, Any]:
    """Return the columns of what was asked, and answered."""
    answers = [Answer.of(query) for query in last]
    return {
        "name": [mask(query.question.name) for query in last],
        "type": [text.of_type(query.question.type, query.question.rdclass) for query in last],
        "rcode": [_rcode(query) for query in last],
        "answers": [_shown(answer, mask) for answer in answers],
        "ttl_s": [answer.ttl_s for answer in answers],
        "cname": [mask(" ".join(answer.chain)) or None for answer in answers],
        "service": [query.service for query in last],
        "edns_bytes": [query.edns_bytes for query in last],
        "answer_bytes": [query.answer_bytes for query in last],
    }


def _shown(answer: Answer, mask: Mask) -> str | None:
    return mask("; ".join(record.text or "" for record in answer.records)) or None


def _rcode(query: Query) -> str:
    return str(query.outcome) if query.rcode is None else text.of_rcode(query.rcode)


def _times(last: list[Query], first_ns: Any) -> dict[str, Any]:
    unanswered = np.array([query.outcome is not Outcome.ANSWERED for query in last])
    answered_ns = np.array([query.answered_ns or 0 for query in last])
    sent_ns = np.array([query.last_ns for query in last])
    return {
        "latency_ms": np.ma.array((answered_ns - first_ns) / 1e6, mask=unanswered),
        "answer_ms": np.ma.array((answered_ns - sent_ns) / 1e6, mask=unanswered),
    }


def _ends(last: list[Query]) -> dict[str, Any]:
    return {
        "server_address": [text.of_address(query.server[0]) for query in last],
        "server_port": [query.server[1] for query in last],
        "direction": ["outgoing" if query.outgoing else "incoming" for query in last],
        "local_address": [text.of_address(query.ends.local_address) for query in last],
        "local_port": [query.ends.local_port for query in last],
        "remote_address": [text.of_address(query.ends.remote_address) for query in last],
        "remote_port": [query.ends.remote_port for query in last],
        "netns": [query.ends.netns or None for query in last],
        "cookie": [query.ends.cookie or None for query in last],
    }


def _several(words: list[str]) -> str | None:
    return " ".join(words) if len(words) > 1 else None


def _yes(value: bool) -> str:  # noqa: FBT001 - it says which word
    return "yes" if value else "no"
