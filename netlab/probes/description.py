"""How the structs, maps and ring buffers of a probe lie in memory, as BCC has compiled them."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np

from netlab.errors import BadInput
from netlab.kernel.objects import names_of
from netlab.probes import layout, network
from netlab.probes.source import Source, layout_of

_OWN = "netlab_"


class MapKind(IntEnum):
    """The kinds of map whose entries are read: enum bpf_map_type, include/uapi/linux/bpf.h."""

    HASH = 1
    ARRAY = 2
    PERCPU_HASH = 5
    PERCPU_ARRAY = 6
    LRU_HASH = 9
    LRU_PERCPU_HASH = 10


PER_CPU = {MapKind.PERCPU_HASH, MapKind.PERCPU_ARRAY, MapKind.LRU_PERCPU_HASH}
_RING = 27


@dataclass(frozen=True, slots=True)
class Layout:
    """How a type lies in memory, and the paths of what of it is in network order."""

    dtype: np.dtype[Any]
    network_order: frozenset[str]


@dataclass(frozen=True, slots=True)
class Table:
    """A map of the probe's own."""

    kind: MapKind
    key: Layout
    value: Layout


class Description:
    """What BCC knows of a probe's text while it has it."""

    def __init__(self, lib: Any, module: Any, source: Source) -> None:
        self._lib, self._module, self._source = lib, module, source
        self._refuse_idle()
        self._structs = self._own_structs()
        self.rings = {name: self._ring(name) for name in source.rings}
        self.tables = self._tables()

    def _ring(self, ring: str) -> Layout:
        """Return the layout of what *ring* is sent: BCC tells the members, and each struct's own places."""
        name = ring.encode()
        count = self._lib.bpf_perf_event_fields(self._module, name)
        fields = (self._lib.bpf_perf_event_field(self._module, name, at) for at in range(count))
        members = [field.decode().partition("#")[0] for field in fields]
        if not members:
            raise BadInput(
                f"nothing sends a struct to {ring}", fix=f"{ring}.ringbuf_output(&event, sizeof(event), 0)"
            )
        return self._known(members) or _refused(f"{ring} is sent a struct that is not the probe's own")

    def _tables(self) -> dict[str, Table]:
        """Return the maps of the text, except for its ring buffers.

        Raises
        ------
        BadInput
            If one is of a kind that netlab does not read.
        """
        found = {}
        for name in names_of(self._lib, self._module, "table"):
            kind = self._lib.bpf_table_type_id(self._module, self._table_id(name))
            if name.startswith(_OWN) or kind == _RING:
                continue
            if kind not in set(MapKind):
                raise BadInput(f"netlab does not read maps such as {name}", fix="Use BPF_HASH or BPF_ARRAY")
            found[name] = Table(MapKind(kind), self._side(name, "key"), self._side(name, "leaf"))
        return found

    def _own_structs(self) -> list[tuple[list[str], Layout]]:
        """Return the members and the layouts of the text's own structs."""
        found = []
        for place, struct in enumerate(self._source.structs):
            description, dtype = self._described(layout_of(place), "leaf")
            found.append((layout.members(description), Layout(dtype, struct.network_order)))
        return found

    def _known(self, members: list[str]) -> Layout | None:
        """Return the layout of the text's own struct with these members."""
        found = {(str(each.dtype), each.network_order): each for own, each in self._structs if own == members}
        if len(found) > 1:
            _refused(f"two structs of the probe have the members {', '.join(members)} and differ")
        return next(iter(found.values()), None)

    def _side(self, table: str, side: str) -> Layout:
        """Return the layout of a map's keys or values."""
        description, dtype = self._described(table, side)
        if not dtype.names:
            swapped = {network.ITSELF} if (table, side) in self._source.swapped_maps else set()
            return Layout(dtype, frozenset(swapped))
        known = self._known(layout.members(description))
        return known if known and known.dtype == dtype else Layout(dtype, frozenset())

    def _described(self, table: str, side: str) -> tuple[str, np.dtype[Any]]:
        describe = getattr(self._lib, f"bpf_table_{side}_desc")
        measure = getattr(self._lib, f"bpf_table_{side}_size_id")
        measure.restype, measure.argtypes = ctypes.c_size_t, [ctypes.c_void_p, ctypes.c_size_t]
        description = describe(self._module, table.encode()).decode()
        return description, layout.layout(description, measure(self._module, self._table_id(table)))

    def _table_id(self, name: str) -> int:
        return int(self._lib.bpf_table_id(self._module, name.encode()))

    def _refuse_idle(self) -> None:
        """Refuse functions that would never run."""
        idle = set(names_of(self._lib, self._module, "function")) - {
            hook.compiled for hook in self._source.hooks
        }
        if idle:
            raise BadInput(
                f"the function {min(idle)} is compiled and runs nowhere",
                fix="Make it `static inline`, or name it for where it runs",
            )


def _refused(problem: str) -> Any:
    raise BadInput(problem, fix="Define one struct per kind of record in the probe, and send that")
