"""What a capture knows at one moment, and what it says it does not know."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from netlab.frames import Gap, Missing
from netlab.kernel.sockdiag import State
from netlab.tracer import rows
from netlab.tracer.closed import Ended
from netlab.tracer.filters import Filter
from netlab.tracer.layout import NOT_COUNTED, PidSource
from netlab.tracer.merge import Table, merge
from netlab.tracer.owners import Owners, Processes
from netlab.tracer.records import Attempts, end_unseen
from netlab.tracer.snapshot import Snapshot
from netlab.tracer.sockets import UNCOUNTED_RTOS


@dataclass(frozen=True, slots=True)
class Clock:
    """The present kernel time, and what to add to a kernel time to get UTC."""

    now_ns: int
    to_utc_ns: int


@dataclass(frozen=True, slots=True)
class Look:
    """Every attempt of anyone: those that ended come first in the table, and *ended* has their numbers."""

    table: Table
    ended: Ended
    wanted: Filter
    clock: Clock
    owners: Owners
    missing: list[Missing]

    @classmethod
    def of(
        cls,
        ended: Ended,
        opened: Attempts,
        before: Snapshot,
        now: Snapshot,
        *,
        wanted: Filter,
        clock: Clock,
        losses: list[Missing],
        processes: Processes,
    ) -> Look:
        """Join what was seen; *opened* has to be read before *ended*, see `merge`."""
        table = merge(ended.attempts, opened, before, now)
        missing = [*losses, *before.missing, *now.missing]
        return cls(table, ended, wanted, clock, Owners(processes, before.owners | now.owners), missing)

    def kept(self) -> Table:
        """Return the attempts that the filter keeps."""
        return self.table.where(self.wanted.keeps(self.table.attempts))

    def told(self, seen: int) -> tuple[Table, int]:
        """Return what a client is told that has seen the closed attempts up to number *seen*.

        Wanted attempts that closed since, then the open ones; and how many of them are the closed ones.
        """
        attempts, closed = self.table.attempts, len(self.ended.numbers)
        wanted = self.wanted.keeps(attempts)
        asking = (attempts["unsent"][closed:] != 0) & (self.table.states[closed:] != State.CLOSE)
        fresh = np.flatnonzero(wanted[:closed] & (self.ended.numbers >= seen))
        running = closed + np.flatnonzero(wanted[closed:] & ~asking)
        return self.table.where(np.concatenate([fresh, running])), len(fresh)

    def dropped(self, seen: int) -> int:
        """Return how many closed attempts are not kept any more though a client has not *seen* them."""
        return self.ended.following - seen - int((self.ended.numbers >= seen).sum())

    def frame(self, part: Table) -> pd.DataFrame:
        """Return *part* of the attempts by the schema `netlab.schemas.CONNECTIONS`."""
        return rows.connections(
            part,
            to_utc_ns=self.clock.to_utc_ns,
            now_ns=self.clock.now_ns,
            owners=self.owners,
            missing=dict.fromkeys([*self.missing, *self._guesses(part)]),
        )

    def _guesses(self, part: Table) -> list[Missing]:
        """Say of how many attempts something is not known, or guessed."""
        possible = self.wanted.of_anyone().keeps(self.table.attempts)
        ownerless = _count(possible & (self.table.attempts["pid_source"] == PidSource.NONE))
        guessed = self.table if self.wanted.direction else part  # a wrong guess may be what left a row out
        unseen = (part.attempts["opened_ns"] == 0) & ~part.backfilled
        gaps = [
            Missing("connections", Gap.UNSEEN, ownerless, _MAY_BELONG)
            if self.wanted.by_owner
            else Missing("pid, process", Gap.UNAVAILABLE, ownerless, _OWNERLESS),
            Missing("direction", Gap.APPROXIMATE, _count(guessed.backfilled), _FROM_PORTS),
            Missing("closed_at, error, counters", Gap.UNSEEN, _count(end_unseen(part.attempts)), _END),
            Missing("opened_at", Gap.UNSEEN, _count(unseen), _START),
            Missing("rtos", Gap.UNAVAILABLE, _count(part.attempts["rtos"] == NOT_COUNTED), UNCOUNTED_RTOS),
        ]
        return [gap for gap in gaps if gap.count]


def _count(flags: npt.NDArray[np.bool_]) -> int:
    return int(np.count_nonzero(flags))


_OWNERLESS = (
    "accepted by the kernel outside any process, and nobody was seen to hold, read or close the socket"
)
_MAY_BELONG = f"their owner is not known, so they may belong to the process asked for: {_OWNERLESS}"
_END = "the kernel did not run the program when the connection ended"
_START = "they ended before netlab had listed what was open, or the kernel did not run the program"
_FROM_PORTS = "of connections older than the capture, direction is told from the ports"
