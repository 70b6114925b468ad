"""How much one capture may keep, in the kernel and in this process."""

from __future__ import annotations

import mmap
from dataclasses import dataclass

# 16 MiB hold some 64,000 closed attempts: a second of what two cores can open and close.
_RING_PAGES = 4096
_PASSAGES = 4096  # bodies that are on their way at one time
_OF_CONNECTIONS = (
    "netlab_open",
    "netlab_flows",
    "netlab_udp_sockets",
    "netlab_conversations",
    "netlab_sessions",
    "netlab_calls",
    "netlab_spoken_over",
    "netlab_verdicts",
)


@dataclass(frozen=True, slots=True)
class Limits:
    """Numbers of attempts; what does not fit is counted."""

    max_open: int = 65_536
    max_closed: int = 1_000_000
    max_processes: int = 16_384
    max_drops: int = 16_384  # kinds of drops: same tuple, place and reason
    max_nat: int = 1_000_000  # translations
    max_requests: int = 100_000
    piece_pages: int = 8192  # of the ring of payload: 32 MiB hold 54,000 pieces
    clear_pages: int = 8192  # of the ring of clear text, likewise
    change_pages: int = 1  # of the ring of state changes: hardly any when nobody wants them

    def sizes(self) -> dict[str, int]:
        """Return how large the maps of `bpf/` are made that are NETLAB_SIZED: entries, or a ring's bytes."""
        rings = {
            "netlab_reports": _RING_PAGES,
            "netlab_flow_reports": _RING_PAGES,
            "netlab_changes": self.change_pages,
            "netlab_pieces": self.piece_pages,
            "netlab_clears": self.clear_pages,
        }
        return {
            **dict.fromkeys(_OF_CONNECTIONS, self.max_open),
            "netlab_processes": self.max_processes,
            "netlab_drops": self.max_drops,
            "netlab_passages": _PASSAGES,
            **{ring: pages * mmap.PAGESIZE for ring, pages in rings.items()},
        }


DEFAULTS = Limits()
