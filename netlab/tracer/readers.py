"""Which dialog reads a connection: found from its first bytes, imported when first needed."""

from __future__ import annotations

import importlib

from netlab.protocols.dialog import Dialog
from netlab.protocols.streams import Choose, Unchosen

# Protocol to the module and class that reads it.
_READERS: dict[str, tuple[str, str]] = {"http": ("netlab.protocols.http1", "Http1")}
PROTOCOLS = tuple(_READERS)  # what netlab.capture(protocols=) may name


def chooser(wanted: frozenset[str], server_port: int | None = None) -> Choose:
    """Return the choice for a connection to *server_port*, among the *wanted* protocols."""

    def choose(client: bytes, server: bytes, *, whole: bool) -> Dialog | Unchosen:
        from netlab.protocols.classify import classify

        verdict = classify(client, server, from_start=whole, server_port=server_port)
        if verdict.protocol is None or verdict.protocol not in _READERS:
            return Unchosen.NOTHING if verdict.is_final else Unchosen.MORE
        if verdict.protocol not in wanted:
            return Unchosen.NOTHING
        return _reader(verdict.protocol, whole=whole)

    return choose


def _reader(protocol: str, *, whole: bool) -> Dialog:
    module, name = _READERS[protocol]
    dialog: Dialog = getattr(importlib.import_module(module), name)(whole=whole)
    return dialog
