"""What a capture follows, checked here and applied in the kernel as far as it fits.

A condition with more than `MOST_IN_KERNEL` comparisons is not compiled into the programs: `Filter.keeps`
applies it to what they report. What is not known yet passes in both: an address that connect() has still to
choose, and the direction of a connection that nobody saw begin.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from numbers import Integral
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from netlab import checks
from netlab.errors import BadInput
from netlab.kernel import netns as namespaces, processes, spaces
from netlab.tracer.excludes import PROTOCOLS, Excluded, Excludes
from netlab.tracer.layout import Direction, PidSource
from netlab.tracer.networks import Address, End, Networks, Side, declarations

MOST_IN_KERNEL = 64  # comparisons a condition may have: the verifier walks each of them at every hook

_COMM_BYTES = 15  # TASK_COMM_LEN without the closing NUL: the kernel cuts longer names
_PID_MAX = 1 << 22
_INODE_MAX = (1 << 32) - 1  # ns_common.inum, include/linux/ns_common.h
_NS_GET_NSTYPE = 0xB703  # include/uapi/linux/nsfs.h
_CLONE_NEWNET = 0x40000000
_DIRECTIONS = {"incoming": Direction.INCOMING, "outgoing": Direction.OUTGOING}

Ports: TypeAlias = int | Iterable[int] | None
Pids: TypeAlias = int | Iterable[int] | None
Names: TypeAlias = str | Iterable[str] | None
Addresses: TypeAlias = Address | Iterable[Address] | None
Spaces: TypeAlias = namespaces.NetNs | Iterable[namespaces.NetNs]


_ANYWHERE, _NOTHING = Networks(), Excludes()


@dataclass(frozen=True, slots=True)
class Filter:
    """What to follow; an empty condition follows all.

    Ports are those of either end; pids and names are one condition, and any match is enough.
    """

    ports: tuple[int, ...] = ()
    pids: tuple[int, ...] = ()
    names: tuple[str, ...] = ()
    remote: Networks = _ANYWHERE
    local: Networks = _ANYWHERE
    exclude_remote: Excludes = _NOTHING
    exclude_local: Excludes = _NOTHING
    protocol: int = 0  # IPPROTO_*
    netns: tuple[int, ...] = ()  # inodes
    netns_files: tuple[Path | None, ...] = field(default=(), compare=False)  # of those not given by inode
    direction: Direction = Direction.UNKNOWN

    @classmethod
    def of(
        cls,
        *,
        port: Ports = None,
        pid: Pids = None,
        process: Names = None,
        remote: Addresses = None,
        local: Addresses = None,
        protocol: str | None = None,
        netns: Spaces = spaces.ALL,
        direction: str | None = None,
        exclude_remote: Excluded | None = None,
        exclude_local: Excluded | None = None,
    ) -> Filter:
        """Check what the caller gave."""
        files = _spaces(netns)
        return cls(
            ports=tuple(checks.port(value) for value in _several("port", port)),
            pids=tuple(_pid(value) for value in _several("pid", pid)),
            names=tuple(_name(value) for value in _several("process", process)),
            remote=Networks.of("remote", _addresses("remote", remote)),
            local=Networks.of("local", _addresses("local", local)),
            exclude_remote=Excludes.of("exclude_remote", exclude_remote),
            exclude_local=Excludes.of("exclude_local", exclude_local),
            protocol=0 if protocol is None else PROTOCOLS[checks.choice("protocol", protocol, PROTOCOLS)],
            netns=tuple(files),
            netns_files=tuple(files.values()),
            direction=Direction.UNKNOWN
            if direction is None
            else _DIRECTIONS[checks.choice("direction", direction, _DIRECTIONS)],
        )

    @property
    def by_owner(self) -> bool:
        """Whether the owner decides, which for accepted sockets is known only later."""
        return bool(self.pids or self.names)

    def of_anyone(self) -> Filter:
        """Return the filter without its owners."""
        return replace(self, pids=(), names=())

    def macros(self) -> dict[str, str]:
        """Return the C conditions for the programs; only numbers get into them."""
        owners = [f"(pid) == {pid}" for pid in self.pids]
        for name in self.names:
            low, high = struct.unpack("=QQ", os.fsencode(name).ljust(16, b"\0"))
            owners.append(f"((name)[0] == {low}ULL && (name)[1] == {high}ULL)")
        ways = [Direction.UNKNOWN, self.direction] if self.direction else []
        return {
            "NETLAB_WANTED_PORT(p)": port_condition(self.ports),
            "NETLAB_WANTED_PROCESS(pid, name)": _any(owners),
            "NETLAB_WANTED_PEERS(attempt)": self._peers(),
            "NETLAB_WANTED_NETNS(inode)": _any([f"(inode) == {inode}U" for inode in self.netns]),
            "NETLAB_WANTED_DIRECTION(direction)": _any([f"(direction) == {int(way)}" for way in ways]),
        }

    def keeps(self, attempts: npt.NDArray[np.void]) -> npt.NDArray[np.bool_]:
        """Tell which records pass, by the same rules as in the kernel."""
        keep = np.ones(len(attempts), bool)
        if self.ports:
            keep &= np.isin(attempts["local_port"], self.ports) | np.isin(attempts["remote_port"], self.ports)
        if self.by_owner:
            names = np.array([os.fsencode(name) for name in self.names], "S16")
            keep &= np.isin(attempts["pid"], self.pids) | np.isin(attempts["process"], names)
        if self.protocol:
            keep &= attempts["protocol"] == self.protocol
        if self.netns:
            keep &= np.isin(attempts["netns"], self.netns)
        if self.direction:
            keep &= np.isin(attempts["direction"], [Direction.UNKNOWN, self.direction])
        for side, networks, excludes in self._ends():
            end = End.of(attempts, side)
            if networks:
                keep &= networks.hold(end) | ~end.known
            keep &= ~excludes.hold(end, attempts["protocol"])
        return keep

    def may_keep(self, attempts: npt.NDArray[np.void]) -> npt.NDArray[np.bool_]:
        """Tell which records pass, or would if their owner, not known yet, were wanted."""
        ownerless = attempts["pid_source"] == PidSource.NONE
        possible: npt.NDArray[np.bool_] = ownerless & self.of_anyone().keeps(attempts)
        return possible | self.keeps(attempts)

    def asks(self, side: Side) -> bool:
        """Tell whether anything is asked of the ends of one side."""
        return side in {asked for asked, *_ in self._ends()}

    def _ends(self) -> list[tuple[Side, Networks, Excludes]]:
        """Return the ends that something is asked of."""
        ends: list[tuple[Side, Networks, Excludes]] = [
            ("remote", self.remote, self.exclude_remote),
            ("local", self.local, self.exclude_local),
        ]
        return [(side, networks, excludes) for side, networks, excludes in ends if networks or excludes]

    def _peers(self) -> str:
        """Return what is asked of both ends as one C expression over a pointer to an attempt."""
        terms = [f"(attempt)->protocol == {self.protocol}"] if self.protocol else []
        variables = ""
        for side, networks, excludes in self._ends():
            variables += declarations(side) + " "
            if 0 < len(networks) <= MOST_IN_KERNEL:
                terms.append(f"(!netlab_{side}_known || {networks.condition(side)})")
            if 0 < len(excludes) <= MOST_IN_KERNEL:
                terms.append(f"!({excludes.condition(side)})")
        return f"({{ {variables}{' && '.join(terms)}; }})" if terms else "1"


def port_condition(ports: Iterable[int]) -> str:
    """Return the C condition for *p* being one of *ports*; true where they are too many, or none."""
    return _any([f"((p) >= {low} && (p) <= {high})" for low, high in _runs(ports)])


def _any(conditions: list[str]) -> str:
    return f"({' || '.join(conditions)})" if 0 < len(conditions) <= MOST_IN_KERNEL else "1"


def _runs(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Return *numbers* as the fewest ranges, both ends included."""
    runs: list[tuple[int, int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return runs


def _several(name: str, value: object) -> tuple[object, ...]:
    if value is None:
        return ()
    values = tuple(value) if isinstance(value, Iterable) and not isinstance(value, str | bytes) else (value,)
    if not values:
        raise BadInput(
            f"{name} is an empty filter", fix=f"Leave {name} out to follow all, or name at least one"
        )
    return values


def _addresses(name: str, value: Addresses) -> tuple[object, ...]:
    """Return the addresses given; a network is iterable too, over each of its addresses."""
    return (value,) if hasattr(value, "network_address") else _several(name, value)


def _spaces(value: Spaces) -> dict[int, Path | None]:
    """Return the namespaces asked for by inode, none for all, with their files where these were named.

    None is the own one, as everywhere.
    """
    if spaces.is_all(value):
        return {}
    several = (None,) if value is None else _several("netns", value)
    if any(map(spaces.is_all, several)):
        raise BadInput(f'netns has "{spaces.ALL}" beside others', fix="Leave netns out to follow all of them")
    found: dict[int, Path | None] = {}
    for inode, file in map(_space, several):
        found[inode] = found.get(inode) or file
    return dict(sorted(found.items()))


def _space(value: object) -> tuple[int, Path | None]:
    if isinstance(value, Integral) and int(value) > _PID_MAX:  # an inode, as frames show
        return checks.whole("netns", value, 1, _INODE_MAX), None
    import fcntl  # not on every system that this module is imported on

    file = namespaces.path(value)  # type: ignore[arg-type]  # it refuses what it does not know
    inode = namespaces.inode(value)  # type: ignore[arg-type]
    with suppress(BadInput):  # no namespace at all, such as `ip netns` leaves behind when its mount is gone
        descriptor = namespaces.opened(file)
        try:
            if fcntl.ioctl(descriptor, _NS_GET_NSTYPE) == _CLONE_NEWNET:
                return inode, None if value is None else file  # the thread that asks need not be there later
        finally:
            os.close(descriptor)
    raise BadInput(
        f"netns {value!r}: {file} is there and is no network namespace",
        fix=f"Give a process id or one of /run/netns: {', '.join(namespaces.names()) or 'it is empty'}",
    )


def _pid(value: object) -> int:
    pid = checks.whole("pid", value, 1, _PID_MAX)
    group = processes.thread_group(pid)
    if group not in {None, pid}:
        raise BadInput(f"pid {pid} is a thread of process {group}", fix=f"Follow the process: pid={group}")
    return pid


def _name(value: object) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise BadInput(
            f"process {value!r} is not a process name",
            fix='Give the name as ps -o comm shows it, such as "curl"',
        )
    return os.fsdecode(os.fsencode(value)[:_COMM_BYTES])  # the kernel cuts in the middle of a character too
