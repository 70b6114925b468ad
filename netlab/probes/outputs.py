"""What comes out of a probe: the records of a ring buffer, and the entries of a map, as frames."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from netlab.frames import Gap, Missing
from netlab.probes.columns import columns, plain
from netlab.probes.description import PER_CPU, Layout, MapKind, Table
from netlab.probes.network import ITSELF
from netlab.probes.program import ProbeProgram

SCHEMA = "probe"  # a kind of frame whose columns are each probe's own
_POSSIBLE = Path("/sys/devices/system/cpu/possible")
_HASHES = {MapKind.HASH, MapKind.PERCPU_HASH}
_FORGETFUL = {MapKind.LRU_HASH, MapKind.LRU_PERCPU_HASH}  # the others have every entry
_FREED = 128  # entries that each CPU frees at once, before the map is full (kernel/bpf/bpf_lru_list.c)


class Slots(Enum):
    """What the keys of a map are."""

    NONE = auto()  # what the probe chose
    LINEAR = auto()
    LOGARITHMIC = auto()  # slot n counts values of n bits: bpf_log2l()


@dataclass(frozen=True, slots=True)
class Glance:
    """How many rows an output has, and the frame of some of them."""

    total: int
    frame: pd.DataFrame


class Records:
    """The records of one ring buffer so far."""

    def __init__(self, program: ProbeProgram, name: str, place: int, max_rows: int, to_utc_ns: int) -> None:
        self._layout = program.description.rings[name]
        self._program, self._name, self._place = program, name, place
        self._ring = program.ring(name, self._layout.dtype)
        self._max_rows, self._to_utc_ns = max_rows, to_utc_ns
        self._blocks: list[npt.NDArray[Any]] = [np.empty(0, self._layout.dtype)]
        self._rows = self._beyond = self._lost = 0

    def drain(self) -> None:
        """Take the records over, so that the kernel has room for others."""
        records = self._ring.read()
        kept = records[: self._max_rows - self._rows]
        if len(kept):
            self._blocks.append(kept)
        self._rows += len(kept)
        self._beyond += len(records) - len(kept)

    def read(self) -> None:
        """Take over what the kernel has now."""
        self.drain()
        self._lost = self._program.lost()[self._place]

    def frame(self, skipped: int) -> pd.DataFrame:
        """Return a row per record; *skipped* runs of the program are in the coverage."""
        self._blocks = [np.concatenate(self._blocks)]
        return self._shown(self._blocks[0], skipped)

    def glance(self, rows: int, skipped: int) -> Glance:
        """Return the latest *rows* records."""
        latest: list[npt.NDArray[Any]] = []
        for block in reversed(self._blocks):
            latest.insert(0, block)
            if sum(map(len, latest)) >= rows:
                break
        return Glance(self._rows, self._shown(np.concatenate(latest)[-rows:], skipped))

    def _shown(self, records: npt.NDArray[Any], skipped: int) -> pd.DataFrame:
        missing = [
            Missing(self._name, Gap.LOST, self._lost, "records did not fit into the ring buffer"),
            Missing(self._name, Gap.LOST, self._beyond, f"records came after the first {self._max_rows}"),
        ]
        found = columns(records, self._layout.network_order, self._to_utc_ns)
        return _frame(found, [gap for gap in missing if gap.count], skipped)


class Entries:
    """The entries of one map as they were at the last look."""

    def __init__(self, program: ProbeProgram, name: str, table: Table, slots: Slots, to_utc_ns: int) -> None:
        self._name, self._table, self._slots, self._to_utc_ns = name, table, slots, to_utc_ns
        value = table.value.dtype
        self._cpus = _possible_cpus() if table.kind in PER_CPU else 0
        if self._cpus:  # the kernel hands out a value per CPU, each padded to 8 bytes
            padded: Any = {"names": ["it"], "formats": [value], "itemsize": -(-value.itemsize // 8) * 8}
            value = np.dtype((np.dtype(padded), (self._cpus,)))
        self._stored = np.dtype([("stored", value)])
        self._map = program.map(name, table.key.dtype, self._stored)

    def read(self) -> None:
        """Take over what the kernel has now."""
        self._keys, self._values = self._map.items()

    def frame(self, skipped: int) -> pd.DataFrame:
        """Return a row per entry, and per CPU where the map has a value for each."""
        keys, values, found = self._keys, self._values["stored"], dict[str, Any]()
        if self._cpus:
            keys = np.repeat(keys, self._cpus)
            found["cpu"] = np.tile(np.arange(self._cpus), len(values))
            values = values["it"].reshape(-1)
        if self._slots is not Slots.NONE:
            keys, values = keys[values != 0], values[values != 0]
        key, value = ("slot", "count") if self._slots is not Slots.NONE else ("key", "value")
        found = self._side(keys, self._table.key, key) | found
        if self._slots is Slots.LOGARITHMIC and key in found:
            found |= _bounds(np.asarray(found[key]))
        counted = self._side(values, self._table.value, value)
        clash = {name: f"value.{name}" for name in counted if name in found}
        found |= {clash.get(name, name): column for name, column in counted.items()}
        return _frame(found, self._missing(), skipped)

    def _missing(self) -> list[Missing]:
        """Return what a map that is full has no room for, or no longer has."""
        room, used = self._map.entries, len(self._keys)
        if self._table.kind in _HASHES and used >= room:
            return [Missing(self._name, Gap.LOST, None, _FULL.format(room))]
        if self._table.kind in _FORGETFUL and used >= room - min(_FREED * _possible_cpus(), room // 2):
            return [Missing(self._name, Gap.APPROXIMATE, None, _LETS_GO.format(room))]
        return []

    def glance(self, rows: int, skipped: int) -> Glance:
        """Return the first *rows* entries."""
        whole = self.frame(skipped)
        return Glance(len(whole), whole.head(rows))

    def _side(self, values: npt.NDArray[Any], layout: Layout, name: str) -> dict[str, Any]:
        if values.dtype.names:
            return columns(values, layout.network_order, self._to_utc_ns)
        return {name: plain(values, swapped=ITSELF in layout.network_order)}


_FULL = "the map has all of its {} entries: keys that came later are not in it"

_LETS_GO = (
    "the map lets go of keys that were not used for long before it has {} entries: some may not be in it"
)


def _bounds(slots: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
    """Return the smallest and the largest value that each slot of bpf_log2l() counts."""
    high = (np.uint64(1) << slots.astype(np.uint64)) - np.uint64(1)
    return {"low": np.where(slots <= 1, 0, (high >> np.uint64(1)) + np.uint64(1)), "high": high}


def _frame(found: dict[str, Any], missing: Iterable[Missing], skipped: int) -> pd.DataFrame:
    frame = pd.DataFrame(found, copy=False)
    gaps = list(missing)
    if skipped:
        gaps.append(Missing("runs", Gap.LOST, skipped, "the program was running on that CPU already"))
    frame.attrs = {"schema": SCHEMA, "coverage": [asdict(gap) for gap in gaps]}
    return frame


def _possible_cpus() -> int:
    """Return how many CPUs the kernel has room for: its per-CPU values are that many."""
    last = _POSSIBLE.read_text(encoding="ascii").strip().split(",")[-1]
    return int(last.rpartition("-")[2]) + 1
