"""What the probes of a monitor tell, whoever has them: a monitor, or a replay of one."""

from __future__ import annotations

from abc import ABC, abstractmethod

import pandas as pd

from netlab.frames import concat
from netlab.path import course, rejections, stats, verdicts


class Findings(ABC):
    """Statistics, changes and verdicts of what `hops` and `end_to_end` return."""

    @abstractmethod
    def hops(self) -> pd.DataFrame:
        """Return every probe to a hop so far, as in `netlab.schemas.HOPS`."""

    @abstractmethod
    def end_to_end(self) -> pd.DataFrame:
        """Return every probe that was sent through to the target, in the same form."""

    def stats(self) -> pd.DataFrame:
        """Return loss, round-trip times and jitter per hop so far (`netlab.path.path_stats`).

        The last row, with TTL 64, or `max_ttl` if that is larger, is the end-to-end probe.
        """
        # Apart, because what ends the path of a run does not end that of its probe to the target.
        return concat([stats.path_stats(self.hops()), stats.path_stats(self.end_to_end())])

    def changes(self) -> pd.DataFrame:
        """Return when the path became another (`netlab.path.path_changes`)."""
        return course.path_changes(self.hops())

    def runs(self) -> pd.DataFrame:
        """Return which path each round met (`netlab.path.path_runs`)."""
        return course.path_runs(self.hops())

    def explain(self, *, mtu: pd.DataFrame | None = None) -> pd.DataFrame:
        """Return what each hop's losses mean (`netlab.path.explain`); end-to-end probes count for the end."""
        hops, ends = self.hops(), self.end_to_end()
        return verdicts.explain(concat([hops, rejections.at_the_target(ends, hops)]), mtu=mtu)


class Given(Findings):
    """The findings of probes that are there already: each frame is made once, however much is asked of it."""

    def __init__(self, hops: pd.DataFrame, end_to_end: pd.DataFrame) -> None:
        self._hops, self._end_to_end = hops, end_to_end

    def hops(self) -> pd.DataFrame:
        """Return the probes to hops that were given."""
        return self._hops

    def end_to_end(self) -> pd.DataFrame:
        """Return the probes through to the target that were given."""
        return self._end_to_end
