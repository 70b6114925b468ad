"""Packets the kernel dropped, and resets, each with the kernel's own reason: bpf/drops.c and its records."""

from __future__ import annotations

import socket
from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from netlab import addresses
from netlab.columns import categories
from netlab.errors import KernelError
from netlab.frames import Gap, Missing
from netlab.kernel import btf, netstat
from netlab.kernel.bpf import Program
from netlab.kernel.processes import printable
from netlab.kernel.symbols import Symbols, spans
from netlab.schemas import DROPS
from netlab.tracer.filters import Filter
from netlab.tracer.layout import ATTEMPT, DROP_COUNT, DROP_KEY, SPAN, Counter, Direction, DropKind

DROP = np.dtype([field for part in (DROP_KEY, DROP_COUNT) for field in part.descr if field[0] != "padding"])
drop_layouts = {"netlab_drop_key": DROP_KEY, "netlab_drop_count": DROP_COUNT, "netlab_span": SPAN}
Drops = npt.NDArray[np.void]

_TRACEPOINTS = {
    "netlab_drop_packet": "kfree_skb",
    "netlab_drop_reset_sent": "tcp_send_reset",
    "netlab_drop_reset_received": "tcp_receive_reset",
}
# The names of one enum share a prefix, which says nothing.
_REASONS = {
    DropKind.DROPPED: ("skb_drop_reason", "SKB_DROP_REASON_"),
    DropKind.RESET_SENT: ("sk_rst_reason", "SK_RST_REASON_"),
}
_PARTINGS = ("skb_release_data", "kfree_skb_list_reason")  # by number of enum netlab_parting
_SAYING_NOTHING = ("SKB_DROP_REASON_NOT_SPECIFIED", "SKB_DROP_REASON_QUEUE_PURGE")
_KINDS = [kind.name.lower().replace("_", "-") for kind in DropKind]
_PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6"}  # IANA's numbers
_ICMP = (1, 58)
_FLAGS = ("FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR")  # from the lowest bit, RFC 9293 and 3168
_FLAG_NAMES = [
    "|".join(name for bit, name in enumerate(_FLAGS) if bits >> bit & 1) or None for bits in range(256)
]


def drop_macros() -> dict[str, str]:
    """Return what bpf/drops.c has to know of this kernel's tracepoints."""
    told = btf.tracepoint_arguments("kfree_skb")
    numbers = {name: number for number, name in btf.enumerators("skb_drop_reason").items()}
    empty = [f"(reason) == {numbers[name]}" for name in _SAYING_NOTHING if name in numbers]
    return {
        "NETLAB_DROP_SAYS_NOTHING(reason)": f"({' || '.join(empty) or '1'})",
        "NETLAB_DROP_HAS_REASON": str(int("enum skb_drop_reason" in told)),
        "NETLAB_DROP_HAS_RECEIVER": str(int(_receivers_are_told())),
        "NETLAB_RESET_HAS_REASON": str(int(_resets_have_reasons())),
    }


def _receivers_are_told() -> bool:
    return "struct sock *" in btf.tracepoint_arguments("kfree_skb")


def _resets_have_reasons() -> bool:
    return any("sk_rst_reason" in kind for kind in btf.tracepoint_arguments("tcp_send_reset"))


class DropSource:
    """Adds up drops and resets in the kernel as long as *program* is attached."""

    def __init__(self, program: Program, wanted: Filter) -> None:
        self._program = program
        self._owned = wanted.by_owner or wanted.direction is not Direction.UNKNOWN
        self._wanted = replace(wanted.of_anyone(), direction=Direction.UNKNOWN)
        self._symbols = Symbols()
        self._missing = _untold()
        self._last: tuple[Drops, list[Missing]] | None = None
        self._table = program.map("netlab_drops", DROP_KEY, DROP_COUNT)
        self._counters = program.map("netlab_counters", "u4", "u8")
        self._refused_before = _refused_by_listeners(self._wanted.netns)
        self._unanswered_before = _cookies_unanswered(self._wanted.netns)
        self._leave_out_parts()
        for function, event in _TRACEPOINTS.items():
            try:
                program.attach_raw_tracepoint(function, event)
            except KernelError as error:
                self._missing.append(Missing(f"drops at {event}", Gap.UNAVAILABLE, None, str(error)))

    def _leave_out_parts(self) -> None:
        """Tell the programs where the kernel frees what packets were put together from."""
        known, partings = spans(*_PARTINGS), self._program.map("netlab_partings", "u4", SPAN)
        for place, span in enumerate(known):
            partings.set(place, np.array([span], SPAN)[0])
        if not any(length for _, length in known):
            self._missing.append(Missing("drops", Gap.APPROXIMATE, None, _IN_PARTS))

    def last(self) -> None:
        """Keep the table, whose map goes away."""
        self._last = self._read()

    def frame(self, *, to_utc_ns: int) -> pd.DataFrame:
        """Return the drops so far, schema `netlab.schemas.DROPS`, without their connections."""
        records, lost = self._last or self._read()
        names = self._symbols.names(records["location"])
        missing = [*self._missing, *lost]
        if self._owned:
            missing.append(Missing("drops", Gap.APPROXIMATE, None, _OF_OTHERS))
        nameless = int((names.isna() & (records["location"] != 0)).sum())
        if nameless:
            missing.append(Missing("location", Gap.UNAVAILABLE, nameless, _HIDDEN))
        return frame(records, names, to_utc_ns=to_utc_ns, missing=missing)

    def _read(self) -> tuple[Drops, list[Missing]]:
        """Return one record (`DROP`) per kind of drop so far, in no order, and what was lost by then."""
        (keys, counts), lost = self._table.items(), self._lost()
        together = np.empty(len(keys), DROP)
        for part in (keys, counts):
            for name in part.dtype.names or ():
                if name != "padding":
                    together[name] = part[name]
        lost += [*self._unseen(together), *self._unfinished()]
        return together[_wanted(together, self._wanted)], lost

    def _lost(self) -> list[Missing]:
        numbers, values = self._counters.items()
        counts = dict(zip(numbers.tolist(), values.tolist(), strict=True))
        full = f"more than {self._table.entries} kinds of drops: packets of the others are not in the table"
        told = [
            (Gap.LOST, counts[Counter.DROPS_FULL], full),
            (Gap.LOST, counts[Counter.DROPS_UNREAD], _UNREAD),
            (
                Gap.UNSEEN,
                counts[Counter.DROPS_WHILE_PAUSED],
                "packets were dropped while the capture was paused",
            ),
            (Gap.LOST, self._missed(), _MISSED),
        ]
        return [Missing("drops", kind, count, detail) for kind, count, detail in told if count]

    def _unseen(self, records: Drops) -> list[Missing]:
        """Say how many SYNs listeners had no room for: TCP frees them as if it had taken them."""
        refused = netstat.gained(self._refused_before, _refused_by_listeners(self._wanted.netns))
        numbers = [number for number, name in btf.enumerators("skb_drop_reason").items() if name == _OVERFLOW]
        seen = records[(records["kind"] == DropKind.DROPPED) & np.isin(records["reason"], numbers)]
        unseen = refused - int(seen["packets"].sum())
        detail = f"{_NO_ROOM}: {'of SYNs ' * bool(numbers)}the kernel only counts it (ListenDrops)"
        return [Missing("drops", Gap.UNSEEN, unseen, detail)] if unseen > 0 else []

    def _unfinished(self) -> list[Missing]:
        """Say how many handshakes are nowhere: not even the kernel knows of them any more."""
        count = netstat.gained(self._unanswered_before, _cookies_unanswered(self._wanted.netns))
        return [Missing("connections", Gap.UNSEEN, count, _FLOOD)] if count else []

    def _missed(self) -> int:
        return self._program.misses(*_TRACEPOINTS)


_OVERFLOW = "SKB_DROP_REASON_TCP_LISTEN_OVERFLOW"
_NO_ROOM = "connections that listeners on any port had no room for"
_FLOOD = (
    "SYNs to listeners on any port that a SYN cookie answered and nobody came back with, as in a SYN flood: "
    "the kernel keeps nothing of them but a number (SyncookiesSent, SyncookiesRecv)"
)
_UNREAD = "IP packets whose headers, or ports or network namespace where asked for, could not be read"
_MISSED = "packets were dropped in the middle of another drop on the same CPU"
_OF_OTHERS = "packets have no owner and no direction: drops of other processes' connections are in it too"
_IN_PARTS = (
    "/proc/kallsyms hides the functions' addresses (kernel.kptr_restrict): fragments and segments that were "
    "put together may be told as dropped, too, beside the packet that they became, or though it was not"
)
_HIDDEN = "/proc/kallsyms hides the functions' addresses (kernel.kptr_restrict), or the module is gone"


_NO_REASONS = "Linux gives reasons since 5.17: packets that TCP had done with are among the dropped ones"
_NO_RECEIVERS = (
    "TCP packets let go without a reason: on this kernel most were not dropped, so all are left out"
)
_NO_RESET_REASONS = "before Linux 6.10 resets have no reason, and one that no socket sent is not reported"


def _refused_by_listeners(netns: Collection[int]) -> dict[int, int]:
    """Return how many connections listeners of each namespace in *netns* (none: of any) have dropped."""
    return netstat.everywhere(lambda: netstat.counters()["TcpExt.ListenDrops"], only=netns or None)


def _cookies_unanswered(netns: Collection[int]) -> dict[int, int]:
    """Return how many SYN cookies each of these namespaces has sent that did not come back."""

    def unanswered() -> int:
        counts = netstat.counters()
        return counts["TcpExt.SyncookiesSent"] - counts["TcpExt.SyncookiesRecv"]

    return netstat.everywhere(unanswered, only=netns or None)


def _untold() -> list[Missing]:
    """Say what this kernel does not tell at all."""
    gaps = []
    if not btf.enumerators("skb_drop_reason"):
        gaps.append(Missing("reason", Gap.UNAVAILABLE, None, _NO_REASONS))
    elif not _receivers_are_told():
        gaps.append(Missing("drops", Gap.UNAVAILABLE, None, _NO_RECEIVERS))
    if not _resets_have_reasons():
        gaps.append(Missing("reset-sent", Gap.UNAVAILABLE, None, _NO_RESET_REASONS))
    return gaps


def _wanted(records: Drops, wanted: Filter) -> npt.NDArray[np.bool_]:
    """Tell which drops pass, as the programs do: either end of a packet may be the local one."""
    ends = np.zeros(len(records), ATTEMPT)
    ported = ~np.isin(records["protocol"], _ICMP)
    for name in ("family", "protocol", "netns"):
        ends[name] = records[name]
    keep = np.zeros(len(records), bool)
    for local, remote in (("src", "dst"), ("dst", "src")):
        ends["local_address"], ends["remote_address"] = records[local], records[remote]
        ends["local_port"] = np.where(ported, records[f"{local[0]}port"], 0)
        ends["remote_port"] = np.where(ported, records[f"{remote[0]}port"], 0)
        keep |= wanted.keeps(ends)
    return keep


def frame(
    records: Drops, locations: pd.Series, *, to_utc_ns: int, missing: Iterable[Missing]
) -> pd.DataFrame:
    """Build the frame, first drop first."""
    order = np.argsort(records["first_ns"], kind="stable")
    records, locations = records[order], locations.iloc[order]
    icmp = np.isin(records["protocol"], _ICMP)
    portless = icmp | ((records["sport"] == 0) & (records["dport"] == 0))
    is_v4 = records["family"] == socket.AF_INET
    resets = records["kind"] != DropKind.DROPPED  # they are known without their packet
    data = {
        "first_at": records["first_ns"].astype(np.int64) + to_utc_ns,
        "last_at": records["last_ns"].astype(np.int64) + to_utc_ns,
        "kind": categories(records["kind"], _KINDS),
        "reason": _reasons(records),
        "location": locations.array,
        "protocol": categories(records["protocol"], [_PROTOCOLS.get(number) for number in range(256)]),
        "family": np.where(is_v4, 4, 6),
        "src": addresses.mixed(is_v4, records["src"]),
        "sport": np.ma.array(records["sport"], mask=portless),
        "dst": addresses.mixed(is_v4, records["dst"]),
        "dport": np.ma.array(records["dport"], mask=portless),
        "icmp_type": np.ma.array(records["sport"], mask=~icmp),
        "icmp_code": np.ma.array(records["dport"], mask=~icmp),
        "interface": _texts(records["interface"]),
        "netns": np.ma.array(records["netns"], mask=records["netns"] == 0),
        "tcp_flags": categories(records["tcp_flags"], _FLAG_NAMES),
        "packets": records["packets"],
        "bytes": np.ma.array(records["bytes"], mask=resets),
        "cookie": np.ma.array(records["cookie"], mask=records["cookie"] == 0),
    }
    return DROPS.frame(data, missing)


def _reasons(records: Drops) -> pd.Categorical:
    """Return the reasons' names; a number without one, such as a module's own reason, stays a number."""
    places, distinct = pd.factorize(records["kind"].astype(np.int64) << 32 | records["reason"])
    names = np.array([_reason(DropKind(case >> 32), case & 0xFFFFFFFF) for case in distinct.tolist()], object)
    return pd.Categorical(names[places])


def _reason(kind: DropKind, number: int) -> str | None:
    enum, prefix = _REASONS.get(kind, (None, ""))
    names = btf.enumerators(enum) if enum else {}
    if not names:
        return None
    return names[number].removeprefix(prefix) if number in names else f"reason {number:#x}"


def _texts(raw: npt.NDArray[np.bytes_]) -> Any:
    """Return interface names, which may hold any byte but a slash and white space (dev_valid_name())."""
    places, distinct = pd.factorize(raw)
    names = [printable(name) or None for name in distinct.tolist()]
    return pd.array(names, dtype="string").take(places)
