"""struct tcp_info of include/uapi/linux/tcp.h, which only ever grows at its end."""

from __future__ import annotations

import numpy as np

_BYTES = ["state", "ca_state", "retransmits", "probes", "backoff", "options", "wscale", "flags"]
_WORDS = [
    "rto",
    "ato",
    "snd_mss",
    "rcv_mss",
    "unacked",
    "sacked",
    "lost",
    "retrans",
    "fackets",
    "last_data_sent",
    "last_ack_sent",
    "last_data_recv",
    "last_ack_recv",
    "pmtu",
    "rcv_ssthresh",
    "rtt",
    "rttvar",
    "snd_ssthresh",
    "snd_cwnd",
    "advmss",
    "reordering",
    "rcv_rtt",
    "rcv_space",
    "total_retrans",
]
TCP_INFO = np.dtype(  # struct tcp_info as of Linux 6.18; times in microseconds, last_* in milliseconds
    [
        *((name, "u1") for name in _BYTES),
        *((name, "u4") for name in _WORDS),
        *((name, "u8") for name in ["pacing_rate", "max_pacing_rate", "bytes_acked", "bytes_received"]),
        *(
            (name, "u4")
            for name in ["segs_out", "segs_in", "notsent_bytes", "min_rtt", "data_segs_in", "data_segs_out"]
        ),
        *((name, "u8") for name in ["delivery_rate", "busy_time", "rwnd_limited", "sndbuf_limited"]),
        *((name, "u4") for name in ["delivered", "delivered_ce"]),
        *((name, "u8") for name in ["bytes_sent", "bytes_retrans"]),
        *(
            (name, "u4")
            for name in ["dsack_dups", "reord_seen", "rcv_ooopack", "snd_wnd", "rcv_wnd", "rehash"]
        ),
        *((name, "u2") for name in ["total_rto", "total_rto_recoveries"]),
        ("total_rto_time", "u4"),
    ]
)
