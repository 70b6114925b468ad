"""The connections of this host right now, from the kernel's socket tables: no eBPF, no privilege needed."""

from __future__ import annotations

import socket
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from netlab import addresses, checks
from netlab.columns import categories
from netlab.errors import BadInput
from netlab.frames import Missing
from netlab.kernel import netns as namespaces, processes, sequences, sockdiag, sockmaps, spaces
from netlab.kernel.sockdiag import Sockets, State
from netlab.schemas import CONNECTIONS
from netlab.tracer import directions, socketgaps, translated, translations
from netlab.tracer.layout import Direction

Flags: TypeAlias = npt.NDArray[np.bool_]
Masked: TypeAlias = np.ma.MaskedArray[Any, Any]

_TABLES = {"tcp": sockdiag.tcp_sockets, "udp": sockdiag.udp_sockets}
_UNCONNECTED = "unconnected"  # a UDP socket in CLOSE, which RFC 9293 has no word for; ss says UNCONN
_STATES = [
    _UNCONNECTED if state is State.CLOSE else state.name.lower().replace("_", "-") for state in State
]  # State counts from 1
_WITHOUT_PEER = {"listen", _UNCONNECTED}
_NOBODY = 0  # no process has this id
_HIGHEST_PID = 1 << 22  # PID_MAX_LIMIT, include/linux/threads.h


@dataclass(frozen=True, slots=True)
class Listing:
    """The sockets at one moment; the arrays are as long as the table."""

    sockets: Sockets
    direction: directions.Ways  # places in directions.NAMES
    pid: Masked  # masked where it is not known, or not yet
    netns: npt.NDArray[np.int64]  # inodes
    missing: list[Missing]

    @classmethod
    def of(
        cls,
        sockets: Sockets,
        netns: npt.NDArray[np.int64],
        missing: list[Missing],
        direction: directions.Ways | None = None,
    ) -> Listing:
        """Return a snapshot without owners yet, of sockets without a peer unless *direction* is given."""
        if direction is None:
            direction = np.full(len(sockets), directions.NO_PEER, np.uint8)
        unknown = np.ma.array(np.zeros(len(sockets), np.int64), mask=True)
        return cls(sockets, direction, unknown, netns, missing)

    def where(self, keep: npt.NDArray[Any]) -> Listing:
        """Return the snapshot with only the sockets that *keep* (flags or places) selects."""
        return replace(
            self,
            sockets=self.sockets.where(keep),
            direction=self.direction[keep],
            pid=self.pid[keep],
            netns=self.netns[keep],
        )


@checks.options
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
        Only this state, such as "established" or "time-wait"; "TIME_WAIT", as netstat has it, is the same.
    listening
        Also the listening TCP sockets and unconnected UDP sockets; they have no remote end.
    netns
        A name under /run/netns, a path, a process id, "all" that have a process, name or mount, or None, the
        calling thread's alone: containers have others, and only `netlab.capture()` is in all by itself.
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
    if isinstance(state, str):
        state = state.lower().replace("_", "-")
    check(protocol, port, pid, process)
    _check_state(state, listening=listening)
    host = translations.host_of(nat)
    found, unreadable = owned(snapshot(netns=netns, protocol=protocol))
    keep = np.ones(len(found.sockets), bool) if listening else found.direction != directions.NO_PEER
    if state is not None:
        keep &= found.sockets.state == _STATES.index(state) + 1
    found = found.where(keep & wanted(found, port, pid, process))
    data = columns(found)
    data["seen"] = categories(np.zeros(len(found.sockets), np.int8), ["poll"])
    records = found.sockets.records
    tuples = translated.tuples_of(records, found.sockets.protocol, found.netns)
    beyond = translations.of_open(host, tuples)
    guessed = (found.direction != directions.NO_PEER) & ~directions.proven(found.sockets)
    gaps = socketgaps.of(found.sockets, found.pid, guessed, unreadable)
    missing = [*found.missing, *gaps, *spaces.unfindable(netns), *sockmaps.missing(), *beyond.missing]
    return CONNECTIONS.frame(data | beyond.columns, missing)


def wanted(found: Listing, port: int | None, pid: int | None, process: str | None) -> Flags:
    """Tell which sockets have the port at one of their ends, and such an owner."""
    keep = np.ones(len(found.sockets), bool)
    if port is not None:
        records = found.sockets.records
        keep &= (records["local_port"] == port) | (records["remote_port"] == port)
    if pid is not None:
        keep &= (found.pid == pid).filled(fill_value=False)
    if process is not None:
        keep &= np.isin(found.pid.filled(_NOBODY), _owned_by(found.where(keep), process))
    return keep


def snapshot(*, netns: namespaces.NetNs = None, protocol: str | None = None) -> Listing:
    """Read the socket tables, without looking for who holds the sockets: that is `owned`.

    Parameters
    ----------
    netns
        A name under /run/netns, a path, a process id, "all", or None for the calling thread's namespace.
    protocol
        "tcp" or "udp"; both by default.
    """

    def read() -> tuple[Sockets, directions.Ways]:
        sockets = sockdiag.joined(read() for name, read in _TABLES.items() if protocol in {None, name})
        return sockets, directions.of(sockets, directions.ephemeral_ports())

    answers = spaces.ask(netns, read)
    tables, ways = zip(*answers.by_inode.values(), strict=True)
    sockets = sockdiag.joined(tables)
    inodes = np.repeat(list(answers.by_inode), [len(table) for table in tables])
    return Listing.of(sockets, inodes, answers.missing, np.concatenate(ways))


def owned(found: Listing) -> tuple[Listing, int]:
    """Return the snapshot with the owners' pids, and how many processes could not be looked at."""
    owners = processes.owners()
    pid = owners.of(found.sockets.records["inode"].astype(np.int64))
    return replace(found, pid=np.ma.masked_where(~found.sockets.owned, pid)), owners.unreadable


def columns(found: Listing) -> dict[str, Any]:
    """Return the columns of `netlab.schemas.CONNECTIONS` that a snapshot can fill, ready for its `frame`."""
    sockets, records = found.sockets, found.sockets.records
    family, peerless = sockets.family, found.direction == directions.NO_PEER
    return {
        "protocol": categories(np.where(sockets.protocol == socket.IPPROTO_UDP, 1, 0), ["tcp", "udp"]),
        "family": family,
        "state": categories(sockets.state, [None, *_STATES]),
        "direction": categories(found.direction, directions.NAMES),
        "local_address": addresses.column([_text(family, records["local_address"])]),
        "local_port": records["local_port"],
        "remote_address": addresses.column([_text(family, records["remote_address"], peerless)]),
        "remote_port": np.ma.array(records["remote_port"], mask=peerless),
        **_owners(found.pid),
        "uid": np.ma.array(records["uid"], mask=~sockets.owned),  # else the kernel says 0, which is root
        "netns": found.netns,
        **_traffic(sockets, found.direction == Direction.OUTGOING),
        "pid_source": categories(np.where(np.ma.getmaskarray(found.pid), 1, 0), ["socket", None]),
        "cookie": sockets.cookie,
        "inode": np.ma.array(records["inode"], mask=~sockets.owned),
        "mark": sockets.mark,
        "bound_ifindex": np.ma.masked_equal(records["interface"], 0),
    }


def _traffic(sockets: Sockets, outgoing: Flags) -> dict[str, Masked]:
    retransmits = sockets.info("total_retrans")
    return {
        "bytes_sent": sequences.bytes_sent(sockets, outgoing),
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
        "receive_queue_bytes": sockets.receive_queue_bytes,
        "send_queue_bytes": sockets.send_queue_bytes,
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


def _owned_by(found: Listing, process: str) -> list[int]:
    who = processes.describe(np.unique(found.pid.compressed()).tolist())
    return [pid for pid, owner in who.items() if owner.name == process]


def _text(
    family: npt.NDArray[np.uint8], octets: npt.NDArray[np.uint8], missing: Flags | None = None
) -> pa.Array:
    """Return the text of 16-byte places, of which IPv4 fills the first four."""
    four = family == 4
    parts = [addresses.text(4, octets[four, :4]), addresses.text(6, octets[~four])]
    places = np.empty(len(family), np.int64)
    places[np.concatenate([np.flatnonzero(four), np.flatnonzero(~four)])] = np.arange(len(family))
    return pa.concat_arrays(parts).take(pa.array(places, mask=missing))


def check(protocol: str | None, port: int | None, pid: int | None, process: str | None) -> None:
    """Refuse what cannot be right."""
    if protocol is not None:
        checks.choice("protocol", protocol, _TABLES)
    if port is not None:
        checks.port(port)
    if pid is not None:
        checks.whole("pid", pid, 1, _HIGHEST_PID)
    if process is not None and (not isinstance(process, str) or not process):
        raise BadInput(f"process {process!r} is not a command name", fix="Give one as in /proc/PID/comm")


def _check_state(state: str | None, *, listening: bool) -> None:
    checks.flag("listening", listening)
    if state is not None:
        checks.choice("state", state, _STATES)
    if state in _WITHOUT_PEER and not listening:
        raise BadInput(f"state {state!r} is left out by default", fix="Add listening=True")
