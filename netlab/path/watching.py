"""The thread behind a monitor: it steps through rounds and keeps what they found, the latest of it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

import pandas as pd

from netlab.errors import NetlabError, ProbeError
from netlab.frames import Cause, Gap, Missing, concat
from netlab.path import engine
from netlab.path.losses import Listener, losses
from netlab.path.rounds import Rounds
from netlab.path.state import Run
from netlab.turns import Turns

_NAP_NS = 100 * engine.MILLISECOND  # how long a stop may have to wait
_OLDER = "older than the max_probes that are kept"
_BLOCK = 256  # rounds: so many runs become a frame, which is smaller; fewer of a ledger that holds little


class Channel(engine.Channel, Listener, Protocol):
    """A channel that can be closed and that counts what it lost."""

    def close(self) -> None:
        """Give the sockets back."""


Framed = Callable[[Sequence[Run], Sequence[Missing]], pd.DataFrame]


class Ledger:
    """Runs in order, the older ones as frames; holds *most* probes and counts those it let go.

    `forgotten` is how many probes that were, `gone` how many blocks of runs.
    """

    def __init__(self, framed: Framed, most: int) -> None:
        self.forgotten = self.gone = 0
        self._framed = framed
        self._most = most
        self._block = min(_BLOCK, -(-most // _BLOCK))  # what is let go at once is a small part of all
        self._blocks: deque[pd.DataFrame] = deque()
        self._runs: list[Run] = []
        self._probes = 0

    def add(self, run: Run) -> None:
        """Keep one more run."""
        self._runs.append(run)
        if len(self._runs) == self._block:
            block = self._framed(self._runs, [])
            self._runs = []
            self._blocks.append(block)
            self._probes += len(block)
        while self._probes > self._most:
            self.forget(self.gone + 1)

    def forget(self, blocks: int) -> None:
        """Let go of the first *blocks* of all there were."""
        while self.gone < blocks:
            oldest = self._blocks.popleft()
            self._probes -= len(oldest)
            self.forgotten += len(oldest)
            self.gone += 1

    def since(self) -> pd.Timestamp | None:
        """Return when the first of the probes that it holds was sent."""
        for block in self._blocks:
            if len(block):
                return block["sent_at"].min()  # type: ignore[no-any-return]
        sent = (probe.wall_ns for run in self._runs for probe in run.probes.values())
        first = next((wall_ns for wall_ns in sent if wall_ns), None)  # what was refused has no time
        return None if first is None else pd.Timestamp(first, unit="ns", tz="UTC")

    def copy(self) -> tuple[list[pd.DataFrame], list[Run]]:
        """Return what it holds, for `frame`."""
        return list(self._blocks), list(self._runs)

    def frame(self, blocks: list[pd.DataFrame], runs: list[Run], missing: Sequence[Missing]) -> pd.DataFrame:
        """Return one frame of a copy and what came since."""
        return concat([*blocks, self._framed(runs, missing)])


class Watch:
    """Probes in a thread of its own until it is closed, or its time is over, or something fails.

    Parameters
    ----------
    channel
        Open; closed when the thread ends.
    rounds
        The rounds over that channel.
    framed
        Makes runs of that channel a frame.
    most
        How many probes to keep, to the hops and to the end each.
    duration_ns
        When to end, or None.
    """

    def __init__(
        self, channel: Channel, rounds: Rounds, framed: Framed, *, most: int, duration_ns: int | None
    ) -> None:
        self.ended = threading.Event()
        self.failure: BaseException | None = None
        self._channel = channel
        self._rounds = rounds
        self._hops, self._ends = Ledger(framed, most), Ledger(framed, most)
        self._until_ns = None if duration_ns is None else channel.now_ns() + duration_ns
        self._lock = Turns()
        self._asked_to_end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="netlab-monitor", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End it; rounds whose probes may still be answered count for nothing. Safe to call again.

        A signal handler may call it, too: in the middle of a look its end is waited for after that.
        """
        self._asked_to_end.set()
        with self._lock:
            is_put_off = self._lock.postpones(self.close)
        if not is_put_off and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        try:
            while not self._asked_to_end.is_set():
                with self._lock:
                    if self._is_over():
                        self._rounds.end()
                    self._rounds.send_due()
                    self._keep()
                    if self._is_over() and not self._rounds.under_way:
                        break
                answers = self._channel.receive(min(self._rounds.wait_ns(), _NAP_NS))
                with self._lock:
                    self._rounds.take(answers)
        except BaseException as error:  # noqa: BLE001 - whoever asks next is told
            self.failure = error
        finally:
            self._channel.close()
            self.ended.set()

    def _is_over(self) -> bool:
        return self._until_ns is not None and self._channel.now_ns() >= self._until_ns

    def _keep(self) -> None:
        for each in self._rounds.settled:
            self._hops.add(each.hops)
            self._ends.add(each.end)
        # A loss that only one of them still knew of would look like one at the target. Each has had the same
        # rounds, and so the same in each block.
        gone = max(self._hops.gone, self._ends.gone)
        self._hops.forget(gone)
        self._ends.forget(gone)
        self._rounds.settled.clear()

    def hops(self) -> pd.DataFrame:
        """Return the probes to the hops so far."""
        return self._look(self._hops)

    def ends(self) -> pd.DataFrame:
        """Return the probes to the end so far."""
        return self._look(self._ends)

    def _look(self, ledger: Ledger) -> pd.DataFrame:
        with self._lock:
            blocks, runs = ledger.copy()
            missing = self._missing(ledger)
        return ledger.frame(blocks, runs, missing)

    def _missing(self, ledger: Ledger) -> list[Missing]:
        rounds = self._rounds
        reason = str(rounds.refusal) if rounds.refusal else ""
        found = [
            Missing("probes", Gap.LOST, ledger.forgotten, self._before() + _OLDER, Cause.LET_GO),
            Missing("probes", Gap.UNSEEN, rounds.unsent, f"this host refused to send them: {reason}"),
            Missing("probes", Gap.INCOMPLETE, rounds.under_way, "of the last rounds: may still be answered"),
            Missing("rounds", Gap.UNSEEN, rounds.skipped, "this process did not run when they were due"),
            Missing("answers", Gap.INCOMPLETE, rounds.late, "came after timeout_s, and count as lost"),
            Missing("answers", Gap.UNSEEN, rounds.unplaced, "did not say which probe they are for"),
        ]
        return [*(item for item in found if item.count), *losses(self._channel)]

    def _before(self) -> str:
        times = [at for at in (self._hops.since(), self._ends.since()) if at is not None]
        return f"sent before {min(times):%Y-%m-%d %H:%M:%S} UTC, " if times else ""

    def check(self) -> None:
        """Raise what ended it, if it was an error."""
        if isinstance(self.failure, NetlabError):
            raise type(self.failure)(self.failure.problem, fix=self.failure.fix) from self.failure
        if self.failure is not None:
            raise ProbeError(f"the monitor ended with {self.failure!r}") from self.failure
