"""A probe's text compiled, attached and described: BCC and the kernel as the probe sees them."""

from __future__ import annotations

import ctypes
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import Any

import numpy as np

from netlab.errors import BadInput, ProgramError
from netlab.kernel import bpf, btf, capabilities
from netlab.kernel.bpf import CgroupHook, Unit
from netlab.probes import layout
from netlab.probes.hooks import Hook, Kind
from netlab.probes.source import NAME, Source, layout_of

_SO_ATTACH_BPF = 50  # include/uapi/asm-generic/socket.h
_ETH_P_ALL = 3
_OWN = "netlab_"
_MOST = 5  # errors that are shown; the first ones cause the others


class _ProgramKind(IntEnum):
    """enum bpf_prog_type, include/uapi/linux/bpf.h."""

    SOCKET_FILTER = 1
    KPROBE = 2
    TRACEPOINT = 5


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
    """How a struct lies in memory, and which of its members are in network order."""

    dtype: np.dtype[Any]
    network_order: frozenset[str]


@dataclass(frozen=True, slots=True)
class Table:
    """A map of the probe's own."""

    kind: MapKind
    key: Layout
    value: Layout


class ProbeProgram(Unit):
    """The compiled text of a probe; nothing is attached yet."""

    def __init__(self, source: Source, text: str) -> None:
        self._source = source
        settings = f"#define NETLAB_RINGS {max(1, len(source.rings))}\n"
        try:
            super().__init__(
                "the probe", settings + bpf.source("probe.h") + source.compiled, btf.header_tree()
            )
        except ProgramError as error:
            raise _in_own_lines(error, text) from error
        try:
            self._refuse_idle()
        except BaseException:
            self.close()
            raise

    def attach(self, hook: Hook, binaries: Mapping[str, str]) -> None:
        """Run the function of *hook* until this program is detached; *binaries* are paths by short name."""
        match hook.kind:
            case Kind.RAW_TRACEPOINT:
                self.attach_raw_tracepoint(hook.compiled, hook.where)
            case Kind.CGROUP:
                place = capabilities.cgroup2_mount()
                assert place is not None  # as its name was checked  # noqa: S101
                self.attach_cgroup(hook.compiled, place, CgroupHook[hook.where.upper()])
            case Kind.SOCKET:
                self._attach_socket(hook)
            case Kind.TRACEPOINT:
                loaded = self._load(hook.compiled, _ProgramKind.TRACEPOINT)
                category, event = hook.where.encode().split(b":")
                self._hold(hook, self._lib.bpf_attach_tracepoint(loaded, category, event))
            case Kind.UPROBE | Kind.URETPROBE:
                self._attach_uprobe(hook, binaries)
            case Kind.KPROBE | Kind.KRETPROBE:
                self._attach_kprobe(hook)

    def ring_layout(self, ring: str) -> Layout:
        """Return the layout of what *ring* is sent: BCC tells the members, and each struct's own places."""
        name = ring.encode()
        count = self._lib.bpf_perf_event_fields(self._bpf.module, name)
        fields = (self._lib.bpf_perf_event_field(self._bpf.module, name, at) for at in range(count))
        members = [field.decode().partition("#")[0] for field in fields]
        if not members:
            raise BadInput(
                f"nothing sends a struct to {ring}", fix=f"{ring}.ringbuf_output(&event, sizeof(event), 0)"
            )
        return self._known(members) or _refused(f"{ring} is sent a struct that is not the probe's own")

    def tables(self) -> dict[str, Table]:
        """Return the maps of the text, except for its ring buffers.

        Raises
        ------
        BadInput
            If one is of a kind that netlab does not read.
        """
        found = {}
        for name in self._table_names():
            kind = self._lib.bpf_table_type_id(self._bpf.module, self._table_id(name))
            if name.startswith(_OWN) or kind == _RING:
                continue
            if kind not in set(MapKind):
                raise BadInput(f"netlab does not read maps such as {name}", fix="Use BPF_HASH or BPF_ARRAY")
            found[name] = Table(MapKind(kind), self._side(name, "key"), self._side(name, "leaf"))
        return found

    def lost(self) -> list[int]:
        """Return how many records did not fit into each ring buffer."""
        _, counts = self.map("netlab_lost", "u4", "u8").items()
        return [int(count) for count in counts]

    @cached_property
    def _structs(self) -> list[tuple[list[str], Layout]]:
        """The members and the layouts of the text's own structs."""
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
        known = self._known(layout.members(description)) if dtype.names else None
        return known if known and known.dtype == dtype else Layout(dtype, frozenset())

    def _described(self, table: str, side: str) -> tuple[str, np.dtype[Any]]:
        describe = getattr(self._lib, f"bpf_table_{side}_desc")
        measure = getattr(self._lib, f"bpf_table_{side}_size_id")
        measure.restype, measure.argtypes = ctypes.c_size_t, [ctypes.c_void_p, ctypes.c_size_t]
        description = describe(self._bpf.module, table.encode()).decode()
        return description, layout.layout(description, measure(self._bpf.module, self._table_id(table)))

    def _table_id(self, name: str) -> int:
        return int(self._lib.bpf_table_id(self._bpf.module, name.encode()))

    def _refuse_idle(self) -> None:
        """Refuse functions that would never run."""
        count = self._lib.bpf_num_functions(self._bpf.module)
        compiled = {self._lib.bpf_function_name(self._bpf.module, at).decode() for at in range(count)}
        idle = compiled - {hook.compiled for hook in self._source.hooks}
        if idle:
            raise BadInput(
                f"the function {min(idle)} is compiled and runs nowhere",
                fix="Make it `static inline`, or name it for where it runs",
            )

    def _attach_socket(self, hook: Hook) -> None:
        """Run at every packet of the calling thread's network namespace; nobody reads the socket."""
        loaded = self._load(hook.compiled, _ProgramKind.SOCKET_FILTER)
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL)) as packets:
            packets.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_BPF, loaded)
            self._links.append(packets.detach())

    def _attach_uprobe(self, hook: Hook, binaries: Mapping[str, str]) -> None:
        short, symbol = hook.where.split(":")
        binary = binaries.get(short, short)
        loaded = self._load(hook.compiled, _ProgramKind.KPROBE)
        try:
            path, offset = self._bpf._check_path_symbol(binary.encode(), symbol.encode(), None, -1, 0)  # noqa: SLF001 - what attach_uprobe() begins with; its own end needs tracefs
        except Exception as error:  # BCC raises bare Exception
            raise ProgramError(
                f"{hook.function} could not be attached: {error}",
                fix="Name a library by its short name, or give its path: binaries={'c': '/lib/libc.so.6'}",
            ) from error
        name = f"netlab_{os.getpid()}_{hook.function}".encode()
        returns = int(hook.kind is Kind.URETPROBE)
        self._hold(hook, self._lib.bpf_attach_uprobe(loaded, returns, name, path, offset, -1))

    def _attach_kprobe(self, hook: Hook) -> None:
        loaded = self._load(hook.compiled, _ProgramKind.KPROBE)
        name = f"netlab_{os.getpid()}_{hook.function}".encode()
        returns = int(hook.kind is Kind.KRETPROBE)
        self._hold(hook, self._lib.bpf_attach_kprobe(loaded, returns, name, hook.where.encode(), 0, 0))

    def _hold(self, hook: Hook, link: int) -> None:
        """Keep what was attached: it goes with its descriptor."""
        if link < 0:
            reason = os.strerror(ctypes.get_errno())
            raise ProgramError(
                f"{hook.function} could not be attached to {hook.where}: {reason}",
                fix="netlab.doctor() tells what this kernel allows",
            )
        self._links.append(link)


def _refused(problem: str) -> Any:
    raise BadInput(problem, fix="Define one struct per kind of record in the probe, and send that")


def _in_own_lines(error: ProgramError, text: str) -> ProgramError:
    """Return *error* with the lines of the text that the compiler complains of."""
    lines = text.splitlines()
    found = dict.fromkeys(re.findall(rf"^{NAME}:(\d+):\d+: (?:fatal )?error: (.*)$", error.log, re.MULTILINE))
    if not found:
        return error
    said = "".join(
        f"\n  line {n}: {words}\n    {lines[int(n) - 1].strip()}" for n, words in list(found)[:_MOST]
    )
    more = f"\n  and {len(found) - _MOST} more" if len(found) > _MOST else ""
    return ProgramError(f"the probe does not compile{said}{more}", log=error.log)
