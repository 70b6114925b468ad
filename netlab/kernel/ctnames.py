"""What numbers in conntrack entries are called, spelt as conntrack(8) prints them.

Source: include/uapi/linux/netfilter/nf_conntrack_common.h, nf_conntrack_tcp.h, nf_conntrack_sctp.h and (of
kernels up to 6.16) nf_conntrack_dccp.h.
"""

from __future__ import annotations

import sys

_PROTOCOLS = {  # not from /etc/protocols, which differs between hosts
    1: "icmp",
    2: "igmp",
    6: "tcp",
    17: "udp",
    33: "dccp",
    47: "gre",
    50: "esp",
    51: "ah",
    58: "icmpv6",
    132: "sctp",
    136: "udplite",
}
NUMBERS = {name: number for number, name in _PROTOCOLS.items()}

# enum tcp_conntrack, enum sctp_conntrack, enum ct_dccp_states
TCP = [
    "NONE",
    "SYN_SENT",
    "SYN_RECV",
    "ESTABLISHED",
    "FIN_WAIT",
    "CLOSE_WAIT",
    "LAST_ACK",
    "TIME_WAIT",
    "CLOSE",
    "SYN_SENT2",
]
SCTP = [
    "NONE",
    "CLOSED",
    "COOKIE_WAIT",
    "COOKIE_ECHOED",
    "ESTABLISHED",
    "SHUTDOWN_SENT",
    "SHUTDOWN_RECD",
    "SHUTDOWN_ACK_SENT",
    "HEARTBEAT_SENT",
    "HEARTBEAT_ACKED",
]
DCCP = [
    "NONE",
    "REQUEST",
    "RESPOND",
    "PARTOPEN",
    "OPEN",
    "CLOSEREQ",
    "CLOSING",
    "TIMEWAIT",
    "IGNORE",
    "INVALID",
]
STATES = list(dict.fromkeys([*TCP, *SCTP, *DCCP]))

FLAGS = [  # enum ip_conntrack_status, by bit
    "expected",
    "seen-reply",
    "assured",
    "confirmed",
    "src-nat",
    "dst-nat",
    "seq-adjust",
    "src-nat-done",
    "dst-nat-done",
    "dying",
    "fixed-timeout",
    "template",
    "untracked",
    "helper",
    "offload",
    "hw-offload",
]
NAT = {1: "snat", 2: "dnat", 3: "both"}
OFFLOAD = {1: "software", 2: "hardware"}
ZONE_DIRECTION = {1: "original", 2: "reply"}


def protocol_name(number: int) -> str:
    """Return a protocol's name, or its number as text."""
    return _PROTOCOLS.get(number, str(number))


def flag_names(status: int) -> str:
    """Return the names of the status bits that are set, joined by |; the number of a bit without a name."""
    bits = (bit for bit in range(status.bit_length()) if status >> bit & 1)
    return "|".join(FLAGS[bit] if bit < len(FLAGS) else str(bit) for bit in bits)


def label_bits(labels: bytes) -> str | None:
    """Return the numbers of the labels that are set, joined by |, or None without any.

    The kernel keeps labels as a bitmap of its own words (unsigned long) in its own byte order.
    """
    if sys.byteorder == "little":
        bits = int.from_bytes(labels, "little")
    else:
        words = [labels[at : at + 8] for at in range(0, len(labels), 8)]
        bits = int.from_bytes(b"".join(reversed(words)), "big")
    return "|".join(str(bit) for bit in range(bits.bit_length()) if bits >> bit & 1) or None


def text(octets: bytes) -> str | None:
    """Return a string attribute's text, without the NUL at its end."""
    return octets.split(b"\0", 1)[0].decode(errors="replace") or None
