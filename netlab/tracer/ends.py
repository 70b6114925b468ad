"""The socket that a packet reaches in a network namespace."""

from __future__ import annotations

import ipaddress
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from netlab.kernel import processes, sockdiag
from netlab.kernel.sockdiag import Sockets, State
from netlab.tracer.stations import FourTuple, Station

_MAPPED = bytes(10) + b"\xff\xff"
_NOBODY = "nothing listens on this port here, and no socket has this connection"
_ONLY_LISTENS = "a socket listens here, and none has this connection (any more)"
_DUAL = "it is an IPv6 socket, which gets IPv4 packets unless IPV6_V6ONLY is set"
_PEERLESS = {"tcp": State.LISTEN, "udp": State.CLOSE}

Flags = npt.NDArray[np.bool_]


def peer(here: Station, protocol: str, packet: FourTuple) -> Station:
    """Return *here* with the socket that gets *packet* in the calling thread's namespace, and its owner."""
    sockets = sockdiag.tcp_sockets() if protocol == "tcp" else sockdiag.udp_sockets()
    local = _at(sockets, "local_port", packet.dport) & _has(sockets, "local_address", packet.dst)
    connected = (
        local & _at(sockets, "remote_port", packet.sport) & _has(sockets, "remote_address", packet.src)
    )
    if connected.any():
        return _owned(here, sockets.where(np.flatnonzero(connected)[:1]))
    anywhere = _at(sockets, "local_port", packet.dport) & _is_anywhere(sockets, packet.family)
    waiting = np.flatnonzero((local | anywhere) & (sockets.state == _PEERLESS[protocol]))
    if not len(waiting):
        return replace(here, detail=_NOBODY)
    if len(waiting) > 1:
        return replace(
            here, detail=f"one of {len(waiting)} sockets that wait on this port: which cannot be told"
        )
    one = sockets.where(waiting)
    details = [_ONLY_LISTENS] if protocol == "tcp" else []
    if packet.family == 4 and one.family[0] == 6:
        details.append(_DUAL)
    return replace(_owned(here, one), detail="; ".join(details) or None)


def _at(sockets: Sockets, end: str, port: int) -> Flags:
    flags: Flags = sockets.records[end] == port
    return flags


def _has(sockets: Sockets, end: str, address: str) -> Flags:
    """Tell which sockets have *address* at an end, as their own or mapped into IPv6."""
    packed = ipaddress.ip_address(address).packed
    six = sockets.family == 6
    wanted = ~six & _equal(sockets, end, packed)
    mapped = packed if len(packed) == 16 else _MAPPED + packed
    either: Flags = wanted | six & _equal(sockets, end, mapped)
    return either


def _is_anywhere(sockets: Sockets, family: int) -> Flags:
    """Tell which sockets take packets for any address; one of IPv6 mostly takes those of IPv4 too."""
    flags: Flags = (sockets.records["local_address"] == 0).all(axis=1)
    return flags if family == 4 else flags & (sockets.family == 6)


def _equal(sockets: Sockets, end: str, packed: bytes) -> Flags:
    octets = sockets.records[end][:, : len(packed)]
    flags: Flags = (octets == np.frombuffer(packed, np.uint8)).all(axis=1)
    return flags


def _owned(here: Station, one: Sockets) -> Station:
    """Return the station with the state and the owner of one socket."""
    state = State(int(one.state[0]))
    word = "unconnected" if state is State.CLOSE else state.name.lower().replace("_", "-")
    pids = processes.owners().of(one.records["inode"].astype(np.int64)).compressed().tolist()
    who = processes.describe(pids[:1]) if one.owned[0] else {}
    found = next(iter(who.values()), None)
    return replace(here, state=word, pid=found.pid if found else None, process=found.name if found else None)
