"""Where lists of sockets come from on this system, and what those do not tell.

This is the one place that asks which system it is: all that a capture needs of one beyond eBPF is here.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable

from netlab.frames import Gap, Missing
from netlab.kernel import netstat, processes
from netlab.kernel.processes import Process
from netlab.tracer import snapshot, translations
from netlab.tracer.holders import Holders
from netlab.tracer.records import Cookies
from netlab.tracer.snapshot import Snapshot
from netlab.tracer.translations import Host, NoTranslations, Translations

LINUX: bool = sys.platform.startswith("linux")
_OPENS = ("Tcp.ActiveOpens", "Tcp.PassiveOpens")  # RFC 4022: one each for the two ends of a connection
NO_REASON = "a list of sockets does not say how a connection began or ended"
_LAST_LOOK = "of closed connections as of the last look that saw them: lower bounds"


class System(ABC):
    """What a capture asks an operating system for beyond eBPF: sockets, owners, translations."""

    untold: frozenset[str] = frozenset()  # columns of connections that no row has
    missing: tuple[Missing, ...]  # what no list tells, for the coverage
    ownerless = (
        "the kernel opened or accepted them outside any process, and nobody was seen to use, hold or close "
        "them"
    )  # why the owner of a connection is not known

    @abstractmethod
    def take(
        self,
        only: Collection[int] | None = None,
        *,
        protocol: int = 0,
        holders: Holders | None = None,
        ownerless: Cookies | None = None,
    ) -> Snapshot:
        """List the sockets as `netlab.tracer.snapshot.take` does; what is followed, with *only*."""

    @abstractmethod
    def opens(self) -> dict[int, int] | None:
        """Return how many connections each namespace has begun or accepted so far; None if nobody counts."""

    @abstractmethod
    def running(self, pids: Collection[int]) -> dict[int, Process]:
        """Return what is to be known of those of *pids* that run now."""

    @abstractmethod
    def translations(
        self, host: Host | None, wanted: Collection[int], most: int
    ) -> Translations | NoTranslations:
        """Follow translations where that is asked for and possible."""

    @abstractmethod
    def forget(self, cookies: Iterable[int]) -> None:
        """Take it that the sockets with these cookies are gone: what is like them later is another one."""


class Linux(System):
    """Linux's own tables, by sock_diag and /proc."""

    missing = (
        Missing(
            "error, reason, connect_ms, established",
            Gap.UNAVAILABLE,
            None,
            f"{NO_REASON}; use mode='ebpf'",
        ),
        Missing("bytes, packets, retransmits", Gap.APPROXIMATE, None, _LAST_LOOK),
    )

    def take(
        self,
        only: Collection[int] | None = None,
        *,
        protocol: int = 0,
        holders: Holders | None = None,
        ownerless: Cookies | None = None,
    ) -> Snapshot:
        """List the sockets of every namespace, or of those in *only*."""
        return snapshot.take(only, protocol=protocol, holders=holders, ownerless=ownerless)

    def opens(self) -> dict[int, int]:
        """Return what the kernel counts."""
        return netstat.everywhere(_opens_here)

    def running(self, pids: Collection[int]) -> dict[int, Process]:
        """Return what /proc says."""
        return processes.describe(set(pids) & processes.running()) if pids else {}

    def translations(
        self, host: Host | None, wanted: Collection[int], most: int
    ) -> Translations | NoTranslations:
        """Follow conntrack."""
        return translations.begin(host, wanted, most)

    def forget(self, cookies: Iterable[int]) -> None:
        """Do nothing: the kernel gives no cookie twice."""


def here() -> System:
    """Return what this system is.

    Raises
    ------
    CapabilityError
        Outside of Linux without psutil.
    """
    if LINUX:
        return Linux()
    from netlab.tracer.portable import Portable

    return Portable()


def _opens_here() -> int:
    counts = netstat.counters()
    return sum(counts[name] for name in _OPENS)
