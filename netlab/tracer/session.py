"""A capture as its user has it: the tables of what it saw."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from netlab.closing import uninterrupted
from netlab.errors import CaptureError
from netlab.frames import Gap, Missing
from netlab.tracer import clients, debugging, deltas, dropjoin, events, reasons
from netlab.tracer.hearing import Hearing
from netlab.tracer.life import Watch
from netlab.tracer.options import Options

_LATER_THAN_ALL = (1 << 63) - 1  # the number of no attempt
_NOT_SEEN = {Gap.LOST, Gap.UNSEEN}


class Capture(Hearing):
    """TCP connection attempts and UDP flows followed by eBPF; made by `netlab.capture()`.

    Use it as a context manager, or call `start()` and `stop()`. What was seen stays readable after the end.
    """

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._clients = clients.Clients(options.client_expiry_s)

    def __repr__(self) -> str:
        return f"<netlab capture: {', '.join([str(self.state), *self._counted()])}>"

    def _counted(self) -> Iterator[str]:
        """Yield what is known without a look at sockets, and without waiting for somebody else's."""
        if self._watch is None or self._is_inherited() or not self._lock.acquire(blocking=False):
            return
        try:
            uninterrupted(self._watch.drain)
            wanted, opened = self._options.wanted, uninterrupted(self._watch.open)
            ended = self._watch.closed(_LATER_THAN_ALL).following
            began = int(wanted.may_keep(opened).sum())  # a branch's are those of all
            # Some owners only a list of sockets tells.
            most = "up to " if wanted.by_owner else ""
            yield f"{most}{began:,} begun and open"
            yield f"{most}{ended:,} ended"
            lost = [gap for gap in self._watch.losses() if gap.count and gap.kind in _NOT_SEEN]
            yield from (f"lacks {gap.count:,} {gap.what}" for gap in lost)
        finally:
            self._lock.release()

    def connections(self) -> pd.DataFrame:
        """Return one row per attempt seen so far, open and closed, failed ones with their errno.

        Returns
        -------
        DataFrame
            Schema `netlab.schemas.CONNECTIONS`; counters of open connections are those of this moment, or of
            the end of the capture.
        """
        with self._asked() as watch:
            return self._connections_and_drops(watch)[0]

    def failures(self) -> pd.DataFrame:
        """Return the attempts that failed: the rows of `connections()` that have an `error` or a `reason`."""
        return reasons.failed(self.connections())

    def events(self) -> pd.DataFrame:
        """Return every change of a TCP connection's state, in the order of the kernel's clock on all CPUs.

        Returns
        -------
        DataFrame
            Schema `netlab.schemas.EVENTS`.

        Raises
        ------
        CaptureError
            If the capture was not made with `events=True`.
        """
        if not self._options.events:
            raise CaptureError(
                "this capture did not record events", fix="Make it with netlab.capture(events=True)"
            )
        with self._asked() as watch:
            look = self._look(watch)
            kept, changed = look.kept(), watch.changes()
            frame = events.frame(changed, kept.attempts, to_utc_ns=self._to_utc_ns)
            frame.attrs["coverage"] = look.frame(kept).attrs["coverage"]
            return frame

    def drops(self) -> pd.DataFrame:
        """Return the packets that this host dropped and the TCP resets it sent and received, with the reason.

        Alike ones (same tuple, reason and place) are one row. Filters by process and direction do not apply
        to packets; the coverage says so, and the `pid` column tells whose connection it was, where known.
        What is dropped in a pause is counted in the coverage only.

        Returns
        -------
        DataFrame
            Schema `netlab.schemas.DROPS`.

        Raises
        ------
        CaptureError
            If the capture was not made with `drops=True`.
        """
        with self._asked() as watch:
            connections, drops = self._connections_and_drops(watch)
            if drops is None:
                raise CaptureError(
                    "this capture did not record drops", fix="Make it with netlab.capture(drops=True)"
                )
            return dropjoin.with_owners(drops, connections)

    def _connections_and_drops(self, watch: Watch) -> tuple[pd.DataFrame, pd.DataFrame | None]:
        """Return the attempts and the drops, which are None if they are not recorded."""
        look = self._look(watch)
        return self._explained(watch, look.frame(look.kept()))

    def _explained(self, watch: Watch, connections: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame | None]:
        """Return *connections* with names and what drops explain in their `reason`; and the drops, if any."""
        connections = self._told(watch, connections)
        if watch.drops is None:
            return connections, None
        drops = watch.drops.frame(to_utc_ns=self._to_utc_ns)
        return dropjoin.with_drops(connections, drops), drops

    def register(self, client: str) -> None:
        """Begin to keep account for *client* of what changes; safe to call again.

        Parameters
        ----------
        client
            Its name. Clients of different names do not take anything from each other. One that has not asked
            for `client_expiry_s` is forgotten.

        Raises
        ------
        BadInput
            If the name is empty, too long or has control characters.
        """
        with self._asked() as watch:
            look, now_ns = self._look(watch), time.monotonic_ns()
            told, closed = look.told()
            opened = told.where(np.arange(closed, len(told.attempts))).attempts
            self._clients.register(client, opened, look.ended.following, now_ns)

    def delta(self, client: str, *, again: bool = False) -> pd.DataFrame:
        """Return what changed since this client's last call, or since it registered.

        Parameters
        ----------
        client
            The name it registered with.
        again
            Count from before the last call, whose answer got lost on its way to the client.

        Returns
        -------
        DataFrame
            Schema `netlab.schemas.DELTAS`: the columns of `connections()`, which are of the whole life, and
            beside them the change. Attempts that are not new, not newly closed and unchanged are left out.
            Each attempt is told as closed once; `netlab.coverage` counts those dropped before they were told.

        Raises
        ------
        CaptureError
            If the client has not registered, was silent for too long, or has no last call to go back to.
        """
        with self._asked() as watch:
            account = self._clients.account(client, time.monotonic_ns(), again=again)
            look = self._look(watch, since=account.seen)
            told, closed = look.told()
            change = clients.changes(account, told.attempts[:closed], told.attempts[closed:])
            dropped = look.dropped(account.seen)
            account.seen, account.closed_dropped = look.ended.following, account.closed_dropped + dropped
            changed = np.flatnonzero(change["is_changed"])
            order = changed[np.argsort(told.attempts["opened_ns"][changed], kind="stable")]
            connections, _ = self._explained(watch, look.frame(told.where(order)))
            frame = deltas.frame(connections, change[order], dropped)
            self._clients.keep(account)  # not before: after an interrupt the next call tells all of it
            return frame

    def debug_state(self, client: str) -> dict[str, int]:
        """Return what is kept for *client*: for finding out why its account looks odd."""
        with self._asked() as watch:
            account = self._clients.get(client, time.monotonic_ns())
            return {
                "open_tracked": len(account.keys),
                "closed_unseen": watch.closed(account.seen).following - account.seen,
                "closed_dropped": account.closed_dropped,
                "underflows": account.underflows,
            }

    def counts(self) -> dict[str, int]:
        """Return how many connections are open, have ended and were let go of, and how many clients ask."""
        with self._asked() as watch:
            look = self._look(watch, since=_LATER_THAN_ALL)
            opened, _ = look.told()
            return {
                "open": len(opened.attempts),
                "closed": look.ended.following,
                "clients": len(self._clients),
                "underflows": self._clients.underflows,
            }

    def losses(self) -> list[Missing]:
        """Say what the capture could not keep or see until now, without looking at any connection."""
        with self._asked() as watch:
            return watch.losses()

    def cost(self) -> pd.DataFrame:
        """Return what each of the capture's programs cost so far.

        Returns
        -------
        DataFrame
            Schema `netlab.schemas.COST`: how often each program ran, its time, and the memory of programs and
            maps. Runs are counted in captures made with `cost=True`, and while kernel.bpf_stats_enabled is 1.
        """
        with self._asked() as watch:
            return debugging.cost(watch.usage())

    def debug_nat(self) -> pd.DataFrame:
        """Return the translations that connections are joined with, also those that conntrack has let go of.

        Returns
        -------
        DataFrame
            Schema `netlab.schemas.CONNTRACK`.
        """
        with self._asked():
            return debugging.translations(self._nat.now())

    def debug_processes(self) -> list[dict[str, Any]]:
        """Return the processes that the programs met, as they were when they were met."""
        with self._asked() as watch:
            return debugging.processes(watch.processes())

    def debug_maps(self) -> dict[str, pd.DataFrame]:
        """Return the programs' maps as they are, one raw frame each: for finding out why a row looks odd."""
        with self._asked() as watch:
            return {name: debugging.raw(records) for name, records in uninterrupted(watch.maps).items()}
