"""`netlab.panels.LiveDNS`: name lookups as they are made, those that failed or were slow first."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import pandas as pd

from netlab.panels.listing import LiveTable
from netlab.panels.live import Feed
from netlab.panels.rates import activity
from netlab.panels.sources import feed_of
from netlab.panels.table import Field, Searched, Table, number, said
from netlab.panels.words import ends, owner
from netlab.schemas import DNS
from netlab.views.text import milliseconds

_SEARCHED: list[Searched] = [
    "name", "type", "rcode", "answers", "cname", "transport", "service", "process", "pid",
    ("server_address", "server_port"), "silent_servers", "local_address", "container", "direction",
]  # fmt: skip
_IDENTITY = ["cookie", "asked_at", "name", "type", "local_port", "server_address"]
_WELL = {"NOERROR", "pending", "missed"}  # missed: packets were not seen, the answer may have come


def _server(rows: pd.DataFrame) -> list[str]:
    return ends(rows["server_address"], rows["server_port"])


_FIELDS = [
    Field("rcode", "Outcome", "the answer's code, or why there is none", by="rcode", text=said("rcode", str)),
    Field("name", "Name", "what was asked for", by="name", text=said("name", str)),
    Field("type", "Type", "which records", by="type", text=said("type", str)),
    number("latency_ms", "Waited", "from the first query to the answer, retries included", milliseconds),
    number("retries", "Retries", "queries sent again, to any server", str),
    Field("answers", "Answers", "the records asked for", by="answers", text=said("answers", str)),
    number("ttl_s", "TTL", "how many seconds the answer may be kept", str),
    Field("server", "Server", "who answered, or was asked last", by="server_address", text=_server),
    Field("transport", "Over", "udp, tcp, or both", by="transport", text=said("transport", str)),
    Field("process", "Process", "owner at this end and its process id", by="process", text=owner),
]


def _failed(rows: pd.DataFrame) -> npt.NDArray[np.bool_]:
    return (~rows["rcode"].astype("string").isin(_WELL)).to_numpy(bool)


def _failures_first(rows: pd.DataFrame) -> npt.NDArray[np.intp]:
    return np.lexsort((-rows["asked_at"].astype("int64").to_numpy(), ~_failed(rows)))


@runtime_checkable
class LookupFeed(Feed, Protocol):
    """What `LiveDNS` follows: a `Capture` with the protocol dns, or what gives the rows of a recording."""

    def dns(self) -> pd.DataFrame:
        """Return every lookup so far, as in `netlab.schemas.DNS`; called from another thread."""


class LiveDNS(LiveTable[LookupFeed, pd.DataFrame]):
    """A table of DNS lookups as they are made: failures and timeouts first, click a row for all of it.

    Parameters
    ----------
    source
        What to follow: a `Capture` made with `protocols="dns"`, or nothing: then the panel makes its own.
    **options
        What else `netlab.capture()` takes, such as `process="curl"`, `dns_ports=(53, 5353)`,
        `mask_names=["corp.example"]` or `duration_s=60`.

    Raises
    ------
    BadInput
        If an option cannot be right, or options come with a source that has its own.
    CapabilityError
        When it starts, if this process may not attach eBPF programs.

    Notes
    -----
    One row is one lookup, however often and to whomever it was sent. A lookup between two processes of this
    host, such as one answered by a local resolver, is two rows, one at each end.

    Examples
    --------
    >>> import netlab.panels
    >>> panel = netlab.panels.LiveDNS()
    >>> panel.state.value
    'not started'
    >>> panel.close()
    """

    def __init__(self, source: LookupFeed | None = None, **options: Any) -> None:
        given = options | {"protocols": "dns"} if source is None else options
        super().__init__(
            feed_of(source, LookupFeed, given),
            Table(_FIELDS, searched=_SEARCHED, identity=_IDENTITY, order=_failures_first, bad=_failed),
            DNS,
            duration_s=options.get("duration_s"),
        )

    def _read(self, feed: LookupFeed) -> pd.DataFrame:
        return feed.dns()

    def _show(self, seen: pd.DataFrame) -> None:
        asked = seen["asked_at"]
        self._list(activity(self.feed, "lookups", asked, asked[_failed(seen)]), seen)
