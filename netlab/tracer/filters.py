"""What a capture follows: ports and processes, checked here, applied in the kernel."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from netlab import checks
from netlab.errors import BadInput

_COMM_BYTES = 15  # TASK_COMM_LEN without the closing NUL: the kernel cuts longer names
_PID_MAX = 1 << 22

Ports = int | Iterable[int] | None
Pids = int | Iterable[int] | None
Names = str | Iterable[str] | None


@dataclass(frozen=True, slots=True)
class Filter:
    """Ports (either end), process ids and process names; an empty tuple follows all."""

    ports: tuple[int, ...] = ()
    pids: tuple[int, ...] = ()
    names: tuple[str, ...] = ()

    @classmethod
    def of(cls, *, port: Ports, pid: Pids, process: Names) -> Filter:
        """Check what the caller gave."""
        return cls(
            ports=tuple(checks.port(value) for value in _several("port", port)),
            pids=tuple(checks.whole("pid", value, 1, _PID_MAX) for value in _several("pid", pid)),
            names=tuple(_name(value) for value in _several("process", process)),
        )

    @property
    def by_owner(self) -> bool:
        """Whether the owner decides, which for accepted sockets is known only later."""
        return bool(self.pids or self.names)

    def of_anyone(self) -> Filter:
        """Return the filter without its owners."""
        return replace(self, pids=(), names=())

    def macros(self) -> dict[str, str]:
        """Return the C conditions for bpf/tcp.c; only numbers get into them."""
        ports = [f"(p) == {port}" for port in self.ports]
        owners = [f"(pid) == {pid}" for pid in self.pids]
        for name in self.names:
            low, high = struct.unpack("=QQ", name.encode().ljust(16, b"\0"))
            owners.append(f"((name)[0] == {low}ULL && (name)[1] == {high}ULL)")
        return {
            "NETLAB_WANTED_PORT(p)": _any(ports),
            "NETLAB_WANTED_PROCESS(pid, name)": _any(owners),
        }

    def keeps(self, attempts: npt.NDArray[np.void]) -> npt.NDArray[np.bool_]:
        """Tell which records pass, by the same rules as in the kernel."""
        keep = np.ones(len(attempts), bool)
        if self.ports:
            keep &= np.isin(attempts["local_port"], self.ports) | np.isin(attempts["remote_port"], self.ports)
        if self.by_owner:
            names = np.array([name.encode() for name in self.names], "S16")
            keep &= np.isin(attempts["pid"], self.pids) | np.isin(attempts["process"], names)
        return keep


def _any(conditions: list[str]) -> str:
    return f"({' || '.join(conditions)})" if conditions else "1"


def _several(name: str, value: object) -> tuple[object, ...]:
    if value is None:
        return ()
    values = tuple(value) if isinstance(value, Iterable) and not isinstance(value, str | bytes) else (value,)
    if not values:
        raise BadInput(
            f"{name} is an empty filter", fix=f"Leave {name} out to follow all, or name at least one"
        )
    return values


def _name(value: object) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise BadInput(
            f"process {value!r} is not a process name",
            fix='Give the name as ps -o comm shows it, such as "curl"',
        )
    return value.encode()[:_COMM_BYTES].decode(errors="ignore")
