"""What the name of a probe's function says about where it runs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from netlab.checks import nearest
from netlab.errors import BadInput, CapabilityError
from netlab.kernel import capabilities
from netlab.kernel.bpf import CgroupHook

_TRACEFS = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))
_CONVENTION = (
    "Name it raw_tracepoint__EVENT, tracepoint__CATEGORY__EVENT, uprobe__LIBRARY__SYMBOL, cgroup__HOOK, "
    "socket__NAME or kprobe__FUNCTION, or make it `static inline` if another one calls it"
)


class Kind(StrEnum):
    """What a function is attached to; the value is what its name begins with."""

    RAW_TRACEPOINT = "raw_tracepoint"
    TRACEPOINT = "tracepoint"
    UPROBE = "uprobe"
    URETPROBE = "uretprobe"
    CGROUP = "cgroup"
    SOCKET = "socket"
    KPROBE = "kprobe"
    KRETPROBE = "kretprobe"


_VERDICTS = {  # what a bystander returns where the kernel acts on it
    Kind.CGROUP: 1,  # let the packet, the socket or the connect() through
    Kind.SOCKET: 0,  # queue nothing: nobody reads the socket
}


@dataclass(frozen=True, slots=True)
class Hook:
    """One function: where it runs, and under which name it was compiled."""

    function: str
    kind: Kind
    where: str  # event, category:event, library:symbol or hook

    @property
    def verdict(self) -> int | None:
        """What the kernel is told instead of what the function returns; None where it does not ask."""
        return _VERDICTS.get(self.kind)

    @property
    def compiled(self) -> str:
        """The name of the function that is loaded."""
        return self.function if self.verdict is None else f"netlab_{self.function}"


_NAME = re.compile(r"([a-z]+(?:_tracepoint)?)__(\w+)")
_PAIRED = {Kind.TRACEPOINT, Kind.UPROBE, Kind.URETPROBE}


def hook(function: str) -> Hook:
    """Return where *function* runs by its name, if this kernel has such a place.

    Raises
    ------
    BadInput
        If the name follows no convention, or names a hook that there is not.
    CapabilityError
        If this kernel has no kprobes, or the tracepoints cannot be seen.
    """
    found = _NAME.fullmatch(function)
    if found is None or found[1] not in set(Kind):
        raise BadInput(f"the function {function} does not say where it runs", fix=_CONVENTION)
    kind, where = Kind(found[1]), found[2]
    if kind in _PAIRED:
        first, separator, second = where.partition("__")
        if not separator or not second:
            raise BadInput(f"the function {function} names only half of a {kind}", fix=_CONVENTION)
        where = f"{first}:{second}"
    _CHECKS.get(kind, _anywhere)(where)
    return Hook(function, kind, where)


def _anywhere(_: str) -> None:
    """Accept what only attaching can tell."""


def _tracepoint(where: str) -> None:
    category, _, event = where.partition(":")
    events = next((home / "events" for home in _TRACEFS if (home / "events").is_dir()), None)
    if events is None:
        raise CapabilityError(
            f"the tracepoint {where} cannot be found, because tracefs is not mounted",
            fix="Run: sudo mount -t tracefs tracefs /sys/kernel/tracing, or use raw_tracepoint__EVENT",
        )
    if not (events / category / event / "format").exists():
        named = sorted(path.parent.name for path in events.glob(f"{category}/*/format"))
        known = named or sorted(path.name for path in events.iterdir() if path.is_dir())
        raise BadInput(
            f"this kernel has no tracepoint {where}", fix=nearest(event if named else category, known)
        )


def _cgroup(where: str) -> None:
    known = [place.name.lower() for place in CgroupHook]
    if where not in known:
        raise BadInput(f"there is no cgroup hook {where!r}", fix=nearest(where, known))
    if capabilities.cgroup2_mount() is None:
        raise CapabilityError("no cgroup v2 hierarchy is mounted", fix=f"Run: {capabilities.MOUNT_CGROUP2}")


def _kprobe(where: str) -> None:
    if not capabilities.has_kprobes():
        raise CapabilityError(
            f"this kernel has no kprobes, so nothing can be attached to {where}",
            fix="Use what every kernel has: raw_tracepoint__EVENT (such as inet_sock_set_state, "
            "tcp_retransmit_skb, kfree_skb), cgroup__HOOK, socket__NAME or uprobe__LIBRARY__SYMBOL",
        )


_CHECKS = {
    Kind.TRACEPOINT: _tracepoint,
    Kind.CGROUP: _cgroup,
    Kind.KPROBE: _kprobe,
    Kind.KRETPROBE: _kprobe,
}
