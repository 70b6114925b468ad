"""What of what connections say is in no row, as coverages tell it."""

from __future__ import annotations

import numpy as np

from netlab.frames import Cause, Gap, Missing
from netlab.kernel import clock
from netlab.tracer.account import Account
from netlab.tracer.layout import Counter
from netlab.tracer.limits import Limits

_OLDEST = "the oldest of more than {}"
_RING = "packets whose payload, or the end of it, did not fit into the ring buffer"
_MAP = "packets of connections that did not fit into the map"
_SILENT = "those silent for longest were given up"
_CROWDED = "answers to the oldest streams of HTTP/2, where more were open on a connection than are followed"
_PAUSED = "packets of connections that began while the capture was paused"
_MIDWAY = (
    "connections were not followed from their first byte: read from the first message that is surely whole"
)
_BYTES = "bytes of connections that are read were lost on the way to netlab"
_CUT = (
    "bytes of connections that are read were not looked at: of a packet, or call inside TLS, only the first "
    "64 KiB are, 16 or half of one where netlab falls behind, and of a connection 512 until its kind is clear"
)
_UNREAD = "bytes of connections that are read could not be understood"
_FIELDS = "header fields of HTTP/2 name others that were sent before netlab looked"
_SWITCHED = (
    "connections went on in what is not read: an upgrade such as to WebSocket, CONNECT to what is not "
    "asked for, Redis' MONITOR, replication"
)
_IGNORED = "connections spoke something else than the protocols asked for"
_UNDECIDED = "connections said too little to tell what they speak"


def gaps(account: Account, counts: dict[int, int], limits: Limits) -> list[Missing]:
    """Return what was not understood; *counts* are the programs' counters."""
    found = [
        Missing("requests", Gap.LOST, counts[Counter.PAYLOAD_LOST], _RING, Cause.RING_FULL),
        Missing("requests", Gap.LOST, counts[Counter.CONVERSATION_LOST], _MAP),
        Missing(
            "requests", Gap.LOST, account.evicted, f"more than {limits.max_open} connections spoke: {_SILENT}"
        ),
        Missing("requests", Gap.UNSEEN, counts[Counter.PAYLOAD_WHILE_PAUSED], _PAUSED),
        Missing("requests", Gap.UNSEEN, account.midway, _MIDWAY + _since(account.midway_since_ns)),
        Missing("requests", Gap.UNSEEN, account.missed_bytes, _BYTES),
        Missing("requests", Gap.UNSEEN, account.cut_bytes, _CUT),
        Missing("requests", Gap.UNAVAILABLE, account.unread_bytes, _UNREAD),
        Missing("requests", Gap.UNSEEN, account.unknown_fields, _FIELDS),
        Missing("requests", Gap.LOST, account.given_up, _CROWDED),
        Missing("requests", Gap.UNAVAILABLE, account.switched, _SWITCHED),
        Missing("requests", Gap.UNAVAILABLE, account.ignored + account.over_tls, _IGNORED),
        Missing("requests", Gap.UNAVAILABLE, account.undecided, _UNDECIDED),
    ]
    return [gap for gap in found if gap.count]


def let_go(count: int, most: int) -> list[Missing]:
    """Return how many requests made room for the latest *most*."""
    return [Missing("requests", Gap.LOST, count, _OLDEST.format(most), Cause.LET_GO)] if count else []


def _since(at_ns: int) -> str:
    if not at_ns:
        return ""
    return f", on all of them since {np.datetime64(at_ns + clock.to_utc_ns(), 'ns').astype('M8[s]')} UTC"
