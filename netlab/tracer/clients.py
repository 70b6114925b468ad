"""What changed since each client's last look: exact under closes, reused sockets and counters that go back.

Nothing here knows the kernel or the clock: attempts and times come in, changes go out.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from netlab.errors import BadInput, CaptureError
from netlab.tracer.records import Attempts

COUNTED = ("bytes_sent", "bytes_received", "packets_sent", "packets_received", "retransmits")
CHANGES = np.dtype([*((name, "i8") for name in COUNTED), ("is_new", "?"), ("is_changed", "?")])

_LONGEST_NAME = 64
_EXPIRED_MOST = 1024  # names that are remembered, for a better message
_WRAP = 1 << 32  # the kernel counts TCP's segments in 32 bits
_NS = 1_000_000_000


@dataclass
class Client:
    """What one client has seen."""

    name: str
    heard_ns: int
    seen: int  # the number of the first closed attempt that it has not seen
    keys: pd.MultiIndex  # of the attempts that were open at its last look
    totals: npt.NDArray[np.void]  # and their counters then
    underflows: int = 0
    closed_dropped: int = 0
    before: Client | None = None  # what it had seen before its last look


@dataclass
class Clients:
    """The registered clients of one capture.

    Parameters
    ----------
    expire_after_s
        A client that was not heard from for so long is forgotten.
    """

    expire_after_s: float
    _by_name: dict[str, Client] = field(default_factory=dict)
    _expired: dict[str, None] = field(default_factory=dict)  # the latest, in order

    def register(self, name: str, opened: Attempts, following: int, now_ns: int) -> None:
        """Begin to tell *name* what changes from now on; once registered, a client stays as it is."""
        _check(name)
        self._expire(now_ns)
        if name in self._by_name:
            self._by_name[name].heard_ns = now_ns
            return
        self._expired.pop(name, None)
        self._by_name[name] = Client(name, now_ns, following, _keys(opened), _totals(opened))

    def get(self, name: str, now_ns: int) -> Client:
        """Return a registered client, which has been heard from by that."""
        self._expire(now_ns)
        if name in self._expired:
            raise CaptureError(
                f"client {name!r} was not heard from for {self.expire_after_s:g} s and is forgotten",
                fix=f"cap.register({name!r}) begins anew",
            )
        if name not in self._by_name:
            raise CaptureError(f"no client {name!r} is registered", fix=f"Call cap.register({name!r}) first")
        self._by_name[name].heard_ns = now_ns
        return self._by_name[name]

    def __len__(self) -> int:
        """Return how many are registered."""
        return len(self._by_name)

    @property
    def underflows(self) -> int:
        """How many counters of their connections were seen to go back."""
        return sum(client.underflows for client in self._by_name.values())

    def account(self, name: str, now_ns: int, *, again: bool) -> Client:
        """Return a client's account to go on with: from its last look, or if *again* from the one before."""
        known = self.get(name, now_ns)
        if again and known.before is None:
            raise CaptureError(
                f"client {name!r} has had no answer that could be given again", fix="Leave again=True out"
            )
        base = known.before if again and known.before else known
        return replace(base, heard_ns=known.heard_ns, before=replace(base, before=None))

    def keep(self, account: Client) -> None:
        """Take *account* for that of its client from now on."""
        self._by_name[account.name] = account

    def _expire(self, now_ns: int) -> None:
        silent = [
            client.name
            for client in self._by_name.values()
            if now_ns - client.heard_ns > self.expire_after_s * _NS
        ]
        for name in silent:
            del self._by_name[name]
            self._expired[name] = None
        while len(self._expired) > _EXPIRED_MOST:
            del self._expired[next(iter(self._expired))]


def changes(client: Client, closed: Attempts, opened: Attempts) -> npt.NDArray[np.void]:
    """Return what changed for *client*: in the attempts that closed, then in the open ones.

    The client's memory is brought up to date: the next call begins from here. Closed attempts are told once
    and then forgotten. A counter that has gone back counts as unchanged, and what it was is kept.
    """
    keys = [_keys(closed), _keys(opened)]
    totals = [_totals(closed), _totals(opened)]
    told = []
    for part, (attempts, key, total) in enumerate(zip((closed, opened), keys, totals, strict=True)):
        place = client.keys.get_indexer(key) if len(client.keys) else np.full(len(key), -1)
        change = np.zeros(len(total), CHANGES)
        change["is_new"] = place < 0
        for name in COUNTED:
            before = np.where(place >= 0, client.totals[name][place] if len(client.totals) else 0, 0)
            change[name] = _gain(before, total[name], wraps=name.startswith("packets"))
            back = change[name] < 0
            client.underflows += int((back & (total[name] > 0)).sum())  # 0: not measured this time
            total[name] = np.where(back, before, total[name])
            change[name][back] = 0
        moved = np.any([change[name] != 0 for name in COUNTED], axis=0)
        told_before = (place >= 0) & (attempts["unsent"] != 0)  # it failed in connect() and stayed open
        change["is_changed"] = moved | change["is_new"] | ((part == 0) & ~told_before)
        told.append(change)
    client.keys, client.totals = keys[1], totals[1]
    return np.concatenate(told)


def _gain(before: npt.NDArray[np.int64], now: npt.NDArray[np.int64], *, wraps: bool) -> npt.NDArray[np.int64]:
    gain: npt.NDArray[np.int64] = now - before
    if wraps:
        gain = np.where((gain < 0) & (gain < -(_WRAP // 2)), gain + _WRAP, gain)
    return gain


def _keys(attempts: Attempts) -> pd.MultiIndex:
    """Identify attempts: by socket and start, or by cookie where the start was not seen."""
    followed = attempts["opened_ns"] != 0
    who = np.where(followed, attempts["socket"], attempts["cookie"])
    return pd.MultiIndex.from_arrays([attempts["protocol"], who, attempts["opened_ns"]])


def _totals(attempts: Attempts) -> npt.NDArray[np.void]:
    totals = np.zeros(len(attempts), [(name, "i8") for name in COUNTED])
    for name in COUNTED:
        totals[name] = attempts[name]
    return totals


def _check(name: object) -> None:
    if not isinstance(name, str) or not name.strip():
        raise BadInput(f"client {name!r} is no name", fix='Give one such as "dashboard"')
    if len(name) > _LONGEST_NAME:
        raise BadInput(f"the client's name has {len(name)} characters", fix=f"Use at most {_LONGEST_NAME}")
    if any(unicodedata.category(character).startswith("C") for character in name):
        raise BadInput(f"client {name!r} has control characters", fix="Use printable ones")
