"""What a capture was asked for."""

from __future__ import annotations

from dataclasses import dataclass

from netlab.tracer.filters import Filter
from netlab.tracer.limits import Limits
from netlab.tracer.payload import Spoken
from netlab.tracer.translations import Host


@dataclass(frozen=True, slots=True)
class Options:
    """What `netlab.capture()` was asked for, checked."""

    wanted: Filter
    limits: Limits
    duration_s: float | None
    backfill: bool
    events: bool
    drops: bool
    spoken: Spoken
    cost: bool
    client_expiry_s: float
    mode: str  # ebpf or poll
    poll_every_s: float
    nat: Host | None  # who translates beside each connection's own namespace; None: nobody asks
