"""The records that the programs write, as numpy dtypes; the compiler checks them against the C structs."""

from __future__ import annotations

from enum import IntEnum

import numpy as np

ATTEMPT = np.dtype(
    [
        ("local_address", "u1", 16),
        ("remote_address", "u1", 16),
        ("process", "S16"),
        ("socket", "u8"),
        ("cookie", "u8"),
        ("opened_ns", "u8"),
        ("established_ns", "u8"),
        ("closed_ns", "u8"),
        ("last_ns", "u8"),
        ("bytes_sent", "u8"),
        ("bytes_received", "u8"),
        ("process_started_ns", "u8"),
        ("packets_sent", "u8"),
        ("packets_received", "u8"),
        ("pid", "u4"),
        ("uid", "u4"),
        ("netns", "u4"),
        ("retransmits", "u4"),
        ("syn_retransmits", "u4"),
        ("srtt_us", "u4"),
        ("rtt_var_us", "u4"),
        ("min_rtt_us", "u4"),
        ("cwnd", "u4"),
        ("out_of_order", "u4"),
        ("rtos", "u4"),
        ("rwnd_limited_ms", "u4"),
        ("receive_drops", "u4"),
        ("error", "i4"),
        ("local_port", "u2"),
        ("remote_port", "u2"),
        ("family", "u2"),
        ("last_state", "u1"),
        ("direction", "u1"),
        ("pid_source", "u1"),
        ("protocol", "u1"),
        ("unsent", "u1"),
        ("complete", "u1"),
        ("mark", "u4"),
        ("interface", "u4"),
        ("deferred_us", "u4"),
    ]
)
ENDS = np.dtype(
    [
        ("local_address", "u1", 16),
        ("remote_address", "u1", 16),
        ("local_port", "u2"),
        ("remote_port", "u2"),
        ("version", "u4"),
    ]
)
FLOW_KEY = np.dtype([("ends", ENDS), ("cookie", "u8")])
LATE_OWNER = np.dtype([("process", "S16"), ("process_started_ns", "u8"), ("pid", "u4"), ("uid", "u4")])
PROCESS_KEY = np.dtype([("pid", "u4"), ("padding", "u4"), ("started_ns", "u8")])
PROCESS = np.dtype(
    [
        ("cmdline", "S256"),
        ("cgroups", "S768"),
        ("legacy", "u8"),
        ("legacy_level", "u4"),
        ("cmdline_bytes", "u4"),
        ("nspid", "u4"),
        ("unified_bytes", "u2"),
        ("cgroup_bytes", "u2"),
        ("unified_cut", "u1"),
        ("legacy_cut", "u1"),
        ("read", "u1"),
        ("padding", "u1", 5),
    ]
)
AF_INET, AF_INET6 = 2, 10  # in `family`: Linux's numbers, on every system
NOT_COUNTED = 0xFFFFFFFF  # in a counter that this kernel does not have
NOT_KNOWN = 0xFFFFFFFF  # in `deferred_us`
NOT_TOLD = 0xFFFFFFFF  # the mark of a socket that was only listed, to somebody without CAP_NET_ADMIN

CHANGE = np.dtype(
    [
        ("at_ns", "u8"),
        ("socket", "u8"),
        ("cookie", "u8"),
        ("netns", "u4"),
        ("error", "i4"),
        ("before", "u1"),
        ("after", "u1"),
        ("padding", "u1", 6),
    ]
)
DROP_KEY = np.dtype(
    [
        ("src", "u1", 16),
        ("dst", "u1", 16),
        ("location", "u8"),
        ("netns", "u4"),
        ("reason", "u4"),
        ("sport", "u2"),
        ("dport", "u2"),
        ("family", "u1"),
        ("protocol", "u1"),
        ("kind", "u1"),
        ("padding", "u1"),
    ]
)
DROP_COUNT = np.dtype(
    [
        ("packets", "u8"),
        ("bytes", "u8"),
        ("first_ns", "u8"),
        ("last_ns", "u8"),
        ("cookie", "u8"),
        ("interface", "S16"),
        ("tcp_flags", "u1"),
        ("padding", "u1", 7),
    ]
)
SPAN = np.dtype([("start", "u8"), ("bytes", "u8")])
CONVERSATION = np.dtype(
    [
        ("local_address", "u1", 16),
        ("remote_address", "u1", 16),
        ("netns", "u4"),
        ("budget", "u4"),
        ("local_port", "u2"),
        ("remote_port", "u2"),
        ("family", "u2"),
        ("direction", "u1"),
        ("protocol", "u1"),
    ]
)
PASSAGE = np.dtype([("sequence", "u4"), ("bytes", "u4"), ("outgoing", "u4")])
PIECE = np.dtype(
    [
        ("conversation", CONVERSATION),
        ("at_ns", "u8"),
        ("cookie", "u8"),
        ("sequence", "u4"),
        ("settled", "u4"),
        ("other_settled", "u4"),
        ("packet_bytes", "u4"),
        ("handed_bytes", "u4"),
        ("offset", "u4"),
        ("bytes", "u2"),
        ("tcp_flags", "u1"),
        ("outgoing", "u1"),
        ("fresh", "u1"),
        ("other_fresh", "u1"),
        ("padding", "u1", 2),
        ("data", "u1", 512),
    ]
)
CLEAR = np.dtype([("session", "u8"), ("piece", PIECE)])

# What C calls them: of all programs, and of those of one file.
SHARED = {
    "netlab_attempt": ATTEMPT,
    "netlab_ends": ENDS,
    "netlab_process_key": PROCESS_KEY,
    "netlab_process": PROCESS,
    "netlab_owner": LATE_OWNER,
}
OF_FILE = {"tcp": {"netlab_change": CHANGE}, "udp": {"netlab_flow_key": FLOW_KEY}}


class Direction(IntEnum):
    """Who began the connection."""

    UNKNOWN = 0
    OUTGOING = 1
    INCOMING = 2


class PidSource(IntEnum):
    """How the owner of an attempt is known."""

    NONE = 0
    CONNECT = 1
    CLOSE = 2
    SOCKET = 3  # never in the kernel: found by who holds the descriptor
    RECEIVE = 4
    SEND = 5
    CREATE = 6


class Counter(IntEnum):
    """What the programs count when something is lost."""

    ATTEMPT_LOST = 0
    END_LOST = 1
    MAP_FULL = 2
    WHILE_PAUSED = 3
    CHANGE_LOST = 4
    NESTED_CHANGE = 5
    FLOWS_FULL = 6
    PACKET_LOST = 7
    TRANSLATION_UNKNOWN = 8
    PACKETS_WHILE_PAUSED = 9
    DROPS_FULL = 10
    DROPS_UNREAD = 11
    DROPS_WHILE_PAUSED = 12
    NOT_PLAIN_UDP = 13
    PAYLOAD_LOST = 14
    PAYLOAD_WHILE_PAUSED = 15
    CONVERSATION_LOST = 16


class Large(IntEnum):
    """Rings in which what is large may take a share, by number of `netlab_large`."""

    LARGE_SEGMENTS = 0
    LARGE_CLEAR = 1


class DropKind(IntEnum):
    """What happened to a packet, or with a reset."""

    DROPPED = 0
    RESET_SENT = 1
    RESET_RECEIVED = 2


# What C calls these numbers; the compiler checks that it means the same.
NUMBERS = {
    "NETLAB_NO_PID": PidSource.NONE,
    **{f"NETLAB_PID_{source.name}": source for source in PidSource if source},
    **{f"NETLAB_{direction.name}": direction for direction in Direction},
    **{f"NETLAB_{counter.name}": counter for counter in Counter},
}
DROP_NUMBERS = {f"NETLAB_{kind.name}": kind for kind in DropKind}
LARGE_NUMBERS = {f"NETLAB_{ring.name}": ring for ring in Large}
