"""How full the conntrack table is: when it is full, the kernel drops what would be a new connection."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from netlab.errors import CaptureError
from netlab.frames import Missing
from netlab.kernel import netns as namespaces, spaces

_SWITCHES = Path("/proc/sys/net/netfilter")  # those of the reading thread's namespace


@dataclass(frozen=True, slots=True)
class Fill:
    """The entries of one network namespace (by inode), and how many it may have."""

    netns: int
    entries: int
    most: int

    @property
    def share(self) -> float:
        """How full it is, 0 to 1."""
        return self.entries / self.most if self.most else 0.0


def conntrack_fill(netns: spaces.Spaces = None) -> tuple[list[Fill], list[Missing]]:
    """Return how full the table of each namespace is, and which of them did not tell.

    Raises
    ------
    CaptureError
        If connection tracking is not loaded.
    """
    answers = spaces.ask(netns, _fill)
    return list(answers.by_inode.values()), answers.missing


def _fill() -> Fill:
    try:
        entries, most = (int((_SWITCHES / f"nf_conntrack_{name}").read_text()) for name in ("count", "max"))
    except FileNotFoundError as error:
        raise CaptureError(
            "connections are not tracked here: nf_conntrack is not loaded",
            fix="It is loaded by the first rule that needs it; or: sudo modprobe nf_conntrack",
        ) from error
    return Fill(namespaces.inode(), entries, most)
