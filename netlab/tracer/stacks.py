"""Which layers of protocols connections speak, as far as their bytes have told."""

from __future__ import annotations

from collections import OrderedDict

import pandas as pd

from netlab.protocols.dialog import Exchange
from netlab.protocols.tls import Handshake

_MOST = 1 << 17  # connections; those told of longest ago are forgotten


class Stacks:
    """The stack of each connection, by the socket's cookie."""

    def __init__(self) -> None:
        self._told: OrderedDict[int, str] = OrderedDict()
        self._over_tls: set[int] = set()

    def tell(self, cookie: int, stack: str) -> None:
        """Note what a connection speaks; what is told later counts."""
        self._told[cookie] = stack
        self._told.move_to_end(cookie)
        if stack.startswith("tls"):
            self._over_tls.add(cookie)
        if len(self._told) > _MOST:
            self._over_tls.discard(self._told.popitem(last=False)[0])

    def hear(self, cookie: int, exchange: Exchange) -> None:
        """Note what an exchange tells beyond the first bytes: gRPC in HTTP/2, what is in TLS, a change."""
        if exchange.protocol == "grpc":
            self.tell(cookie, "http2+grpc")
        elif exchange.protocol == "http2" and self._told.get(cookie) == "http":
            self.tell(cookie, "http2")
        elif isinstance(exchange, Handshake):
            self.tell(cookie, exchange.stack)

    def over_tls(self) -> set[int]:
        """Return the cookies of the connections that speak TLS; not a copy."""
        return self._over_tls

    def by_cookie(self) -> dict[int, str]:
        """Return what was told by now."""
        return dict(self._told)


def with_stacks(connections: pd.DataFrame, told: dict[int, str]) -> pd.DataFrame:
    """Return *connections* with the stacks that are known."""
    known = connections["cookie"].map(told, na_action="ignore")
    told_of = connections.assign(protocol_stack=known.astype(connections["protocol_stack"].dtype))
    told_of.attrs = connections.attrs
    return told_of
