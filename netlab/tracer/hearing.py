"""What a capture has heard connections say: requests, lookups and names, with their owners."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from netlab.closing import uninterrupted
from netlab.errors import CaptureError
from netlab.frames import Missing
from netlab.protocols.dns.stats import dns_stats
from netlab.protocols.overview import protocol_stats
from netlab.tracer import handshakes, requests, stacks
from netlab.tracer.life import Watch
from netlab.tracer.look import Look
from netlab.tracer.looking import Looking
from netlab.tracer.payload import Asked, Heard, Totals

if TYPE_CHECKING:
    from netlab.tracer.lookups import LookedUp

_OVER_QUIC = {"http", "http2", "tls"}  # what clients that know HTTP/3 ask for by it instead


class Hearing(Looking):
    """A capture that reads what connections say, if it was made with `protocols=`."""

    def requests(self, protocol: str | None = None) -> pd.DataFrame:
        """Return one row per request that was read from packets, those without an answer yet too.

        A request between two sockets of this host is two rows, one at each end.

        Parameters
        ----------
        protocol
            Only requests in this one.

        Returns
        -------
        DataFrame
            Schema `netlab.schemas.REQUESTS`, with the owner of the connection at this end.

        Raises
        ------
        CaptureError
            If the capture was not made with `protocols=`, or not with this one.
        """
        return self._spoken(protocol, requests.frame, self._options.spoken.masks.missing())

    def tls(self) -> pd.DataFrame:
        """Return one row per TLS handshake, as far as it is in clear; those that failed, with the alert.

        A handshake between two sockets of this host is two rows, one at each end.

        Returns
        -------
        DataFrame
            Schema `netlab.schemas.TLS`, with the owner of the connection at this end.

        Raises
        ------
        CaptureError
            If the capture was not made with `protocols="tls"`.
        """
        return self._spoken("tls", handshakes.frame)

    def _spoken(
        self, protocol: str | None, frame: Callable[..., pd.DataFrame], hidden: Iterable[Missing] = ()
    ) -> pd.DataFrame:
        with self._asked() as watch:
            heard = self._heard(watch, protocol)
            spoken = [one for one in heard.requests if protocol in {None, one.exchange.protocol}]
            look, connections = self._speakers(watch, [one.cookie for one in spoken])
            if self._options.wanted.by_owner:
                theirs = set(connections["cookie"])
                spoken = [one for one in spoken if one.cookie in theirs]
            read = {protocol} if protocol else self._options.spoken.protocols
            sealed = requests.over_quic(look.kept().attempts) if read & _OVER_QUIC else []
            missing = [*heard.lacks(protocol), *sealed, *hidden, *look.at.missing()]
            return frame(spoken, connections, to_utc_ns=self._to_utc_ns, missing=missing)

    def dns(self) -> pd.DataFrame:
        """Return one row per DNS lookup: queries sent again, and to other servers, are one.

        Returns
        -------
        DataFrame
            Schema `netlab.schemas.DNS`, with the process that asked, or, on a server, that answered.

        Raises
        ------
        CaptureError
            If the capture was not made with `protocols="dns"`.
        """
        with self._asked() as watch:
            return self._looked_up(watch).frame(to_utc_ns=self._to_utc_ns)

    def names(self) -> pd.DataFrame:
        """Return one row per address and name that an answer gave to a process of this host.

        Returns
        -------
        DataFrame
            Schema `netlab.schemas.NAMES`, those seen last first.

        Raises
        ------
        CaptureError
            If the capture was not made with `protocols="dns"`.
        """
        with self._asked() as watch:
            return self._looked_up(watch).names(to_utc_ns=self._to_utc_ns)

    def dns_stats(self, by: Sequence[str] = ("server_address", "name", "type")) -> pd.DataFrame:
        """Return the lookups of `dns()` counted by outcome, and how long they took; see `netlab.dns_stats`.

        Parameters
        ----------
        by
            What a row stands for: any of server_address, name, type, process, container, direction, service,
            transport, netns.

        Returns
        -------
        DataFrame
            Schema `netlab.schemas.DNS_STATS`.

        Raises
        ------
        BadInput
            If a name in *by* is not known.
        CaptureError
            If the capture was not made with `protocols="dns"`.
        """
        return dns_stats(self.dns(), by)

    def protocol_stats(self) -> pd.DataFrame:
        """Count requests, TLS handshakes and DNS lookups by what was asked and the class of the answer.

        Returns
        -------
        DataFrame
            Schema `netlab.schemas.PROTOCOL_STATS`; see `netlab.protocol_stats`.

        Raises
        ------
        CaptureError
            If the capture was not made with `protocols=`.
        """
        lookups = [self.dns()] if "dns" in self._options.spoken.protocols else []
        return protocol_stats(self.requests(), *lookups)

    def totals(self) -> Totals | None:
        """Return how much was heard since the start, which only grows; None without `protocols=`."""
        with self._asked() as watch:
            return uninterrupted(watch.totals)

    def _looked_up(self, watch: Watch) -> LookedUp:
        from netlab.tracer.lookups import LookedUp, encrypted  # they need dnspython

        heard = self._heard(watch, "dns")
        look, connections = self._speakers(watch, heard.asked.cookies())
        missing = [
            *heard.missing,
            *encrypted(look.kept().attempts, heard.stacks, heard.clear),
            *look.at.missing(),
        ]
        return LookedUp.of(heard.asked, connections, self._options.spoken, missing, self._options.wanted)

    def _told(self, watch: Watch, connections: pd.DataFrame) -> pd.DataFrame:
        """Return *connections* with what packets told, if they are read: their protocols, and their names."""
        if not self._options.spoken or connections.empty:
            return connections
        heard = self._heard(watch, None)
        return stacks.with_stacks(self._named(watch, connections, heard.asked), heard.stacks)

    def _named(self, watch: Watch, connections: pd.DataFrame, asked: Asked) -> pd.DataFrame:
        """Return *connections* with the names that their processes had looked up."""
        if not asked.sightings:
            return connections
        from netlab.tracer.lookups import with_names  # it needs dnspython

        sockets = [watch.closed().attempts, watch.open()]
        return with_names(connections, asked, sockets, self._options.spoken, to_utc_ns=self._to_utc_ns)

    def _heard(self, watch: Watch, protocol: str | None) -> Heard:
        heard = uninterrupted(watch.heard)
        if heard is None or (protocol is not None and protocol not in self._options.spoken.protocols):
            raise CaptureError(
                f"this capture did not read {protocol or 'what connections say'}",
                fix=f'Make it with netlab.capture(protocols="{protocol or "http"}")',
            )
        return heard

    def _speakers(self, watch: Watch, cookies: list[int]) -> tuple[Look, pd.DataFrame]:
        """Return the connections with these cookies."""
        look = self._look(watch)
        kept = look.kept()
        theirs = np.isin(kept.attempts["cookie"], np.unique(np.array(cookies, np.uint64)))
        return look, look.frame(kept.where(theirs))
