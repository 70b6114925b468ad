"""The connections of this host right now, from the kernel's socket tables: no eBPF, no privilege needed."""

from __future__ import annotations

import socket
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from netlab import addresses, checks
from netlab.errors import BadInput
from netlab.frames import Gap, Missing, categories
from netlab.kernel import netlink, netns as namespaces, processes, sockdiag, spaces
from netlab.kernel.sockdiag import Sockets, State
from netlab.schemas import CONNECTIONS
from netlab.tracer import translated, translations

Flags: TypeAlias = npt.NDArray[np.bool_]
Masked: TypeAlias = np.ma.MaskedArray[Any, Any]

_TABLES = {"tcp": sockdiag.tcp_sockets, "udp": sockdiag.udp_sockets}
_UNCONNECTED = "unconnected"  # a UDP socket in CLOSE, which RFC 9293 has no word for; ss says UNCONN
_STATES = [
    _UNCONNECTED if state is State.CLOSE else state.name.lower().replace("_", "-") for state in State
]  # State counts from 1
_WITHOUT_PEER = {"listen", _UNCONNECTED}
_DIRECTIONS = ["incoming", "outgoing", "unknown", None]
_INCOMING, _OUTGOING, _UNKNOWN, _NO_PEER = range(4)
_NOBODY = 0  # no process has this id
_HIGHEST_PID = 1 << 22  # PID_MAX_LIMIT, include/linux/threads.h


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The sockets at one moment; the arrays are as long as the table."""

    sockets: Sockets
    direction: npt.NDArray[np.int8]  # places in _DIRECTIONS
    pid: Masked  # masked where it is not known, or not yet
    netns: npt.NDArray[np.int64]  # inodes
    missing: list[Missing]

    def where(self, keep: Flags) -> Snapshot:
        """Return the snapshot with only the sockets that *keep* selects."""
        return replace(
            self,
            sockets=self.sockets.where(keep),
            direction=self.direction[keep],
            pid=self.pid[keep],
            netns=self.netns[keep],
        )


def connections(
    *,
    protocol: str | None = None,
    port: int | None = None,
    pid: int | None = None,
    process: str | None = None,
    state: str | None = None,
    listening: bool = False,
    netns: namespaces.NetNs = None,
    nat: bool | namespaces.NetNs = False,
) -> pd.DataFrame:
    """List the TCP connections and connected UDP sockets that are open now, with their owners.

    Parameters
    ----------
    protocol
        "tcp" or "udp"; both by default.
    port
        Only where one of the two ends has this port.
    pid, process
        Only sockets of the process with this id, or of processes with exactly this command name.
    state
        Only this state, such as "established" or "time-wait".
    listening
        Also the listening TCP sockets and unconnected UDP sockets; they have no remote end.
    netns
        A name under /run/netns, a path, a process id, "all", or None for the calling thread's namespace.
    nat
        Fill the `nat_*` columns from a dump of conntrack in the sockets' namespaces and the host's (that of
        process 1), or in the one named here. It takes CAP_NET_ADMIN, and time for each tracked flow.

    Returns
    -------
    DataFrame
        One row per socket, columns as in `netlab.schemas.CONNECTIONS`; `seen` is "poll". A snapshot cannot
        fill every column: `netlab.coverage` names those it leaves missing, and why.

    Raises
    ------
    BadInput
        If an argument cannot be right; the kernel was not asked then.
    CapabilityError
        For another namespace without CAP_SYS_ADMIN.

    Notes
    -----
    Read by sock_diag(7) with struct tcp_info, like `ss -tunapi`. The kernel walks its tables while they
    change, so a snapshot of a busy host is not of one instant.

    Examples
    --------
    >>> import netlab
    >>> now = netlab.connections(state="established")
    >>> print(now.state.isin(["established"]).all())
    True
    """
    _check(protocol, port, pid, process, state, listening=listening)
    host = translations.host_of(nat)
    found, unreadable = owned(snapshot(netns=netns, protocol=protocol))
    keep = np.ones(len(found.sockets), bool) if listening else found.direction != _NO_PEER
    if state is not None:
        keep &= found.sockets.state == _STATES.index(state) + 1
    if port is not None:
        records = found.sockets.records
        keep &= (records["local_port"] == port) | (records["remote_port"] == port)
    if pid is not None:
        keep &= (found.pid == pid).filled(fill_value=False)
    if process is not None:
        keep &= np.isin(found.pid.filled(_NOBODY), _owned_by(found.where(keep), process))
    found = found.where(keep)
    data = columns(found)
    data["seen"] = categories(np.zeros(len(found.sockets), np.int8), ["poll"])
    records = found.sockets.records
    tuples = translated.tuples_of(records, found.sockets.protocol, found.netns)
    beyond = translations.of_open(host, tuples)
    missing = [*_missing(found, unreadable), *beyond.missing]
    return CONNECTIONS.frame(data | beyond.columns, missing)


def snapshot(*, netns: namespaces.NetNs = None, protocol: str | None = None) -> Snapshot:
    """Read the socket tables, without looking for who holds the sockets: that is `owned`.

    Parameters
    ----------
    netns
        A name under /run/netns, a path, a process id, "all", or None for the calling thread's namespace.
    protocol
        "tcp" or "udp"; both by default.
    """

    def read() -> tuple[Sockets, npt.NDArray[np.int8]]:
        sockets = sockdiag.joined(read() for name, read in _TABLES.items() if protocol in {None, name})
        return sockets, directions(sockets, ephemeral_ports())

    answers = spaces.ask(netns, read)
    tables, ways = zip(*answers.by_inode.values(), strict=True)
    sockets = sockdiag.joined(tables)
    return Snapshot(
        sockets,
        np.concatenate(ways),
        np.ma.array(np.zeros(len(sockets), np.int64), mask=True),
        np.repeat(list(answers.by_inode), [len(table) for table in tables]),
        answers.missing,
    )


def owned(found: Snapshot) -> tuple[Snapshot, int]:
    """Return the snapshot with the owners' pids, and how many processes could not be looked at."""
    owners = processes.owners()
    pid = owners.of(found.sockets.records["inode"].astype(np.int64))
    return replace(found, pid=np.ma.masked_where(~found.sockets.owned, pid)), owners.unreadable


def columns(found: Snapshot) -> dict[str, Any]:
    """Return the columns of `netlab.schemas.CONNECTIONS` that a snapshot can fill, ready for its `frame`."""
    sockets, records = found.sockets, found.sockets.records
    family, peerless = sockets.family, found.direction == _NO_PEER
    return {
        "protocol": categories(np.where(sockets.protocol == socket.IPPROTO_UDP, 1, 0), ["tcp", "udp"]),
        "family": family,
        "state": categories(sockets.state, [None, *_STATES]),
        "direction": categories(found.direction, _DIRECTIONS),
        "local_address": addresses.column([_text(family, records["local_address"])]),
        "local_port": records["local_port"],
        "remote_address": addresses.column([_text(family, records["remote_address"], peerless)]),
        "remote_port": np.ma.array(records["remote_port"], mask=peerless),
        **_owners(found.pid),
        "uid": np.ma.array(records["uid"], mask=~sockets.owned),  # else the kernel says 0, which is root
        "netns": found.netns,
        **_traffic(sockets),
        "pid_source": categories(np.where(np.ma.getmaskarray(found.pid), 1, 0), ["socket", None]),
        "cookie": sockets.cookie,
        "inode": np.ma.array(records["inode"], mask=~sockets.owned),
        "mark": sockets.mark,
    }


def _traffic(sockets: Sockets) -> dict[str, Masked]:
    retransmits = sockets.info("total_retrans")
    return {
        "bytes_sent": sockets.bytes_sent,
        "bytes_received": sockets.bytes_received,
        "packets_sent": sockets.info("segs_out"),
        "packets_received": sockets.info("segs_in"),
        "retransmits": retransmits,
        "syn_retransmits": np.ma.masked_where(sockets.state != State.SYN_SENT, retransmits),
        "rtt_ms": sockets.rtt_us / 1000,
        "rtt_var_ms": sockets.rtt_var_us / 1000,
        "min_rtt_ms": sockets.min_rtt_us / 1000,
        "cwnd": sockets.info("snd_cwnd"),
        "out_of_order": sockets.info("rcv_ooopack"),
        "rtos": sockets.info("total_rto"),
        "rwnd_limited_ms": sockets.info("rwnd_limited") / 1000,
    }


def _owners(pid: Masked) -> dict[str, Any]:
    """Describe each owner once, and hand the description to all its sockets."""
    known = ~np.ma.getmaskarray(pid)
    pids, places = np.unique(pid.data[known], return_inverse=True)
    row = np.zeros(len(pid), np.int64)
    row[known] = places
    who = processes.describe(pids.tolist())
    owners = [who.get(number) for number in pids.tolist()]  # None: it ended meanwhile
    taken = pa.array(row, mask=~known)
    return {
        "pid": pid,
        "nspid": _owner_numbers([owner.nspid if owner else None for owner in owners], row, known),
        "process": _owner_text([owner.name if owner else None for owner in owners], taken),
        "cmdline": _owner_text([owner.cmdline if owner else None for owner in owners], taken),
        "cgroup": _owner_text([owner.cgroup if owner else None for owner in owners], taken),
        "container": _owner_text([owner.container if owner else None for owner in owners], taken),
    }


def _owner_text(values: list[str | None], rows: pa.Array) -> pd.api.extensions.ExtensionArray:
    return addresses.column([pa.array(values, pa.large_string()).take(rows)])


def _owner_numbers(values: list[int | None], rows: npt.NDArray[np.int64], known: Flags) -> pd.Series:
    numbers = pd.array([*values, None], dtype="Int64")
    return pd.Series(numbers.take(np.where(known, rows, len(values))))


def _owned_by(found: Snapshot, process: str) -> list[int]:
    who = processes.describe(np.unique(found.pid.compressed()).tolist())
    return [pid for pid, owner in who.items() if owner.name == process]


def directions(sockets: Sockets, ephemeral: range) -> npt.NDArray[np.int8]:
    """Tell who opened each connection from its local port.

    connect(2) never takes a port that a socket was bound to (__inet_hash_connect() in
    net/ipv4/inet_hashtables.c): a local port that also listens was accepted on, and another one from the
    ephemeral range was taken by connect(2). The rest was bound first, or its listener has gone.
    """
    records, state = sockets.records, sockets.state
    peerless = (state == State.LISTEN) | (state == State.CLOSE)
    port = sockets.protocol.astype(np.uint32) << 16 | records["local_port"]
    listens = np.isin(port, port[peerless])
    local = records["local_port"]
    taken = (local >= ephemeral.start) & (local < ephemeral.stop)
    conditions = [peerless, state == State.SYN_SENT, listens | (state == State.SYN_RECV), taken]
    verdicts = [np.int8(code) for code in (_NO_PEER, _OUTGOING, _INCOMING, _OUTGOING)]
    return np.select(conditions, verdicts, np.int8(_UNKNOWN))


def ephemeral_ports() -> range:
    """Return the ports that connect(2) takes from in the calling thread's namespace; none if not readable."""
    try:
        low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    except OSError:
        return range(0)
    return range(low, high + 1)


def _text(
    family: npt.NDArray[np.uint8], octets: npt.NDArray[np.uint8], missing: Flags | None = None
) -> pa.Array:
    """Return the text of 16-byte places, of which IPv4 fills the first four."""
    four = family == 4
    parts = [addresses.text(4, octets[four, :4]), addresses.text(6, octets[~four])]
    places = np.empty(len(family), np.int64)
    places[np.concatenate([np.flatnonzero(four), np.flatnonzero(~four)])] = np.arange(len(family))
    return pa.concat_arrays(parts).take(pa.array(places, mask=missing))


def _check(
    protocol: str | None,
    port: int | None,
    pid: int | None,
    process: str | None,
    state: str | None,
    *,
    listening: bool,
) -> None:
    if protocol is not None:
        checks.choice("protocol", protocol, _TABLES)
    if port is not None:
        checks.port(port)
    if pid is not None:
        checks.whole("pid", pid, 1, _HIGHEST_PID)
    if process is not None and (not isinstance(process, str) or not process):
        raise BadInput(f"process {process!r} is not a command name", fix="Give one as in /proc/PID/comm")
    if state is not None:
        checks.choice("state", state, _STATES)
    if state in _WITHOUT_PEER and not listening:
        raise BadInput(f"state {state!r} is left out by default", fix="Add listening=True")


def _missing(found: Snapshot, unreadable: int) -> list[Missing]:
    """Say what a snapshot cannot know, as far as the frame has rows that lack it."""
    sockets = found.sockets
    unheld = sockets.owned & np.ma.getmaskarray(found.pid)
    gaps = [*found.missing, Missing(_COLUMNS, Gap.UNAVAILABLE, None, _COLUMNS_DETAIL), _WAYS, _CLOSED]
    for what, kind, where, detail in (
        ("direction", Gap.APPROXIMATE, found.direction != _NO_PEER, _DIRECTION_DETAIL),
        (_WHO, Gap.UNAVAILABLE, unheld, _owner_detail(unreadable)),
        (f"{_WHO}, uid, inode", Gap.UNAVAILABLE, ~sockets.owned, _UNOWNED_DETAIL),
        ("bytes, packets", Gap.UNAVAILABLE, sockets.protocol == socket.IPPROTO_UDP, _UDP_DETAIL),
        ("rtos", Gap.UNAVAILABLE, sockets.lacks("total_rto"), UNCOUNTED_RTOS),
        ("mark", Gap.UNAVAILABLE, np.ma.getmaskarray(sockets.mark), UNTOLD_MARK),
    ):
        count = int(where.sum())
        if count:
            gaps.append(Missing(what, kind, count, detail))
    return [*gaps, netlink.INTERRUPTED] if sockets.interrupted else gaps


def _owner_detail(unreadable: int) -> str:
    if unreadable:
        return f"processes that could not be looked at: {unreadable}; root with CAP_SYS_PTRACE may"
    return "no process in this /proc holds the socket: it is the kernel's, or of another pid namespace"


_WHO = "pid, nspid, process, cmdline, cgroup, container"
_COLUMNS = (
    "opened_at, duration_s, connect_ms, last_packet_at, assured, receive_drops, error, reason, remote_name, "
    "protocol_stack"
)
_COLUMNS_DETAIL = "not in the socket tables; netlab.capture() sees connections begin and end"
_WAYS = Missing("via_*", Gap.UNAVAILABLE, None, "netlab.with_gateway() looks them up")
_CLOSED = Missing(
    "connections that failed or closed before", Gap.UNSEEN, None, "netlab.capture() traces them"
)
_DIRECTION_DETAIL = (
    "told from the ports: incoming where a socket listens on the local port, outgoing where it is ephemeral"
)
_UNOWNED_DETAIL = "no process has a descriptor: not accepted yet, closed by its process, or in TIME-WAIT"
UNTOLD_MARK = "the kernel tells marks only with CAP_NET_ADMIN, and none of a socket in TIME-WAIT"
UNCOUNTED_RTOS = "this kernel does not count retransmission timeouts; Linux 6.7 and later do"
_UDP_DETAIL = "the kernel does not count per UDP socket; netlab.capture() does"
