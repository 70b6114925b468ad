"""Which dialog reads a connection: found from its first bytes, imported when first needed."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import numpy as np

from netlab.protocols.dialog import Dialog
from netlab.protocols.masking import Masking
from netlab.protocols.streams import Choose, Unchosen
from netlab.tracer.stacks import Stacks

if TYPE_CHECKING:
    from netlab.tracer.lookups import Lookups

# What a connection speaks, to the module and class that read it, and to the protocols of its exchanges.
_HTTP2 = ("netlab.protocols.http2", "Http2", frozenset({"http2", "grpc"}))
_READERS: dict[str, tuple[str, str, frozenset[str]]] = {
    "http": ("netlab.protocols.http1", "Http1", frozenset({"http"})),
    "http2": _HTTP2,
    "grpc": _HTTP2,
    "redis": ("netlab.protocols.redis", "Redis", frozenset({"redis"})),
    "kafka": ("netlab.protocols.kafka", "Kafka", frozenset({"kafka"})),
    "postgres": ("netlab.protocols.postgres", "Postgres", frozenset({"postgres"})),
    "h2c": ("netlab.protocols.h2c", "Upgradable", frozenset()),  # HTTP/1 that may go on as HTTP/2
    "tls": ("netlab.protocols.tls", "Tls", frozenset({"tls"})),
}
DNS_OVER_TLS = 853  # RFC 7858
PROTOCOLS = (*sorted(set().union(*(told for *_, told in _READERS.values()))), "dns")


def prepare(wanted: frozenset[str]) -> None:
    """Import what reads the *wanted* protocols: what is not installed is missed at once."""
    for module, _, told in _READERS.values():
        if told & wanted:
            importlib.import_module(module)
    if "dns" in wanted:
        importlib.import_module("netlab.tracer.lookups")


class Readers:
    """Finds dialogs for the *wanted* protocols, which keep what *masks* leave; DNS goes to *lookups*.

    What is read *in_tls* was sealed: DNS has one more port there.
    """

    def __init__(
        self, wanted: frozenset[str], lookups: Lookups | None, masks: Masking, *, in_tls: bool = False
    ) -> None:
        self.lookups, self._masks, self._in_tls = lookups, masks, in_tls
        self._dns_ports = lookups.ports if lookups else frozenset()
        if lookups and in_tls:
            self._dns_ports |= {DNS_OVER_TLS}
        self.stacks = Stacks()
        self._spoken = frozenset(name for name, (*_, told) in _READERS.items() if told & wanted)

    def client_is_local(self, ends: np.void) -> bool | None:
        """Tell from the ports of a CONVERSATION who the client is, where these tell it."""
        local, remote = (int(ends[port]) in self._dns_ports for port in ("local_port", "remote_port"))
        return remote if local != remote else None

    def chooser(self, cookie: int, ends: np.void, *, client_is_local: bool | None) -> Choose:
        """Return the choice for the connection of a CONVERSATION."""
        port = (
            None if client_is_local is None else int(ends["remote_port" if client_is_local else "local_port"])
        )
        lookups = self.lookups

        def choose(client: bytes, server: bytes, *, whole: bool) -> Dialog | Unchosen:
            from netlab.protocols.classify import classify

            verdict = classify(client, server, whole=whole, server_port=port)
            inner = verdict.protocol if verdict.over_tls else None
            if verdict.protocol == "tls" and port == DNS_OVER_TLS:
                inner = "dns"
            if verdict.stack:
                self.stacks.tell(cookie, f"tls+{inner}" if inner else verdict.stack)
            if lookups and client_is_local is not None and port in self._dns_ports:
                return lookups.conversation(
                    cookie, ends, client_is_local=client_is_local, whole=whole, in_tls=self._in_tls
                )
            if not verdict.is_final and verdict.protocol != "http2":  # of what else is known, TLS may follow
                return Unchosen.MORE
            if inner or verdict.protocol == "tls":
                if "tls" in self._spoken:
                    return self._reader("tls", whole=whole, clear=verdict.clear, inner=inner)
            elif verdict.protocol in self._spoken:
                may_change = verdict.protocol == "http" and "http2" in self._spoken
                return self._reader("h2c" if may_change else verdict.protocol, whole=whole)
            return Unchosen.NOTHING if verdict.is_final or verdict.protocol else Unchosen.MORE

        return choose

    def _reader(self, protocol: str, **start: Any) -> Dialog:
        module, name, _ = _READERS[protocol]
        dialog: Dialog = getattr(importlib.import_module(module), name)(masks=self._masks, **start)
        return dialog
