"""When a recording looks: moments that go on as time does, however the system's clock is set meanwhile."""

from __future__ import annotations

from datetime import datetime

import pandas as pd

from netlab.frames import Gap, Missing
from netlab.kernel import clock

_SHIFT_NS = 100_000_000  # what a clock that is being disciplined does not do at once


class Moments:
    """Moments in UTC, each later than the one before, as the system's clock was set at the first.

    The rows of a capture have their times so, too. By the clock itself an hour that it is set back would be
    one moment of a replay, and an hour that it is set on an hour in which nothing happens.
    """

    def __init__(self) -> None:
        self._to_utc_ns = clock.to_utc_ns()
        self.last_ns = 0

    def next_ns(self) -> int:
        """Return the present moment."""
        self.last_ns = max(self.last_ns + 1, clock.now_ns() + self._to_utc_ns)
        return self.last_ns

    def last(self) -> datetime:
        """Return the last moment that was asked for, in the microseconds of a datetime: not before it."""
        return pd.Timestamp(self.last_ns, tz="UTC").ceil("us").to_pydatetime()

    def missing(self) -> list[Missing]:
        """Say that the moments are not those of the system's clock now."""
        shifted_ns = clock.to_utc_ns() - self._to_utc_ns
        if abs(shifted_ns) < _SHIFT_NS:
            return []
        detail = (
            f"the system's clock moved by {shifted_ns / 1e9:+.1f} s meanwhile: they are as it was at first"
        )
        return [Missing("moments of the looks, for replay()", Gap.APPROXIMATE, None, detail)]
