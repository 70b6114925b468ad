"""How much one capture may keep, in the kernel and in this process."""

from __future__ import annotations

from dataclasses import dataclass

# 16 MiB hold some 64,000 closed attempts: a second of what two cores can open and close.
_RING_PAGES = 4096


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

    def macros(self) -> dict[str, str]:
        """Return the sizes of the programs' maps."""
        return {
            "NETLAB_OPEN_MAX": str(self.max_open),
            "NETLAB_RING_PAGES": str(_RING_PAGES),
            "NETLAB_DROPS_MAX": str(self.max_drops),
            "NETLAB_PROCESSES_MAX": str(self.max_processes),
            "NETLAB_CHANGE_PAGES": str(self.change_pages),
        }


DEFAULTS = Limits()
