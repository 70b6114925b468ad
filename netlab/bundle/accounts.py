"""What changed in a replay since each of its clients last asked."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from netlab.bundle import tracks
from netlab.bundle.history import Past, is_open
from netlab.errors import BadInput, CaptureError
from netlab.tracer import clients, deltas


class Accounts:
    """Keeps the moment of the recording that each client has seen."""

    def __init__(self) -> None:
        self._seen_ns: dict[str, int] = {}

    def register(self, client: str, now_ns: int) -> None:
        """Begin the account of *client*; safe to call again."""
        if not isinstance(client, str) or not client.strip():
            raise BadInput(f"client {client!r} is no name", fix='Give one such as "dashboard"')
        self._seen_ns.setdefault(client, now_ns)

    def delta(self, client: str, connections: Past, now_ns: int) -> pd.DataFrame:
        """Return what changed since this client's last call; after going back in time that is nothing."""
        if client not in self._seen_ns:
            raise CaptureError(f"no client {client!r} is registered", fix=f"Call register({client!r}) first")
        before, now = connections.at(min(self._seen_ns[client], now_ns)), connections.at(now_ns)
        self._seen_ns[client] = now_ns
        change = _change(before, now)
        is_changed = change["is_changed"]
        return deltas.frame(now[is_changed].reset_index(drop=True), change[is_changed], dropped=0)


def _change(before: pd.DataFrame, now: pd.DataFrame) -> npt.NDArray[np.void]:
    """Return what a client is told of each row of *now* that it has last seen as in *before*."""
    known, keys = tracks.Table.of(before).keys, tracks.Table.of(now).keys
    places = pd.Index(known).get_indexer(pd.Index(keys)) if len(known) else np.full(len(keys), -1)
    change = np.zeros(len(now), clients.CHANGES)
    change["is_new"] = places < 0
    for name in clients.COUNTED:
        total = now[name].fillna(0).to_numpy(np.int64)
        seen = np.append(before[name].fillna(0).to_numpy(np.int64), 0)[places]  # -1: the 0 at the end
        change[name] = np.maximum(total - seen, 0)
    ended = np.append(is_open(before), False)[places] & ~is_open(now)
    moved = np.any([change[name] != 0 for name in clients.COUNTED], axis=0)
    change["is_changed"] = moved | change["is_new"] | ended
    return change
