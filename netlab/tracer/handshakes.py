"""What TLS handshakes told, as the `tls` frame, with the owners of the connections."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from netlab.frames import Missing
from netlab.protocols.tls import Handshake
from netlab.schemas import TLS
from netlab.tracer import requests
from netlab.tracer.exchanges import Request


def frame(
    heard: list[Request], connections: pd.DataFrame, *, to_utc_ns: int, missing: Iterable[Missing]
) -> pd.DataFrame:
    """Build the frame of the handshakes in *heard*, the first one first; see `requests.frame`."""
    told = sorted(
        ((one, one.exchange) for one in heard if isinstance(one.exchange, Handshake)),
        key=lambda pair: pair[1].requested_ns,
    )
    if not told:
        return TLS.empty(missing)
    shakes = [shake for _, shake in told]
    asked = requests.times([one.requested_ns for one in shakes])
    data: dict[str, Any] = {
        "tls_version": [one.version for one in shakes],
        "tls_cipher": [one.cipher for one in shakes],
        "tls_server_name": [one.host for one in shakes],
        "tls_alpn": [one.alpn for one in shakes],
        "tls_certificate_expires_at": requests.times([one.certificate_end_ns for one in shakes]),
        "tls_ja4": [one.ja4 for one in shakes],
        "protocol_stack": [one.stack for one in shakes],
        "status": [one.status for one in shakes],
        "error": [one.error for one in shakes],
        "outcome": [one.outcome.value for one in shakes],
        "requested_at": asked + to_utc_ns,
        "latency_ms": (requests.times([one.answered_ns for one in shakes]) - asked) / 1e6,
        "duration_ms": (requests.times([one.ended_ns for one in shakes]) - asked) / 1e6,
        **requests.ends([one for one, _ in told]),
    }
    data |= requests.owners(data["cookie"], connections)
    return TLS.frame(data, missing)
