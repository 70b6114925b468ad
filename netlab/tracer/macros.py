"""What the programs have to know of the kernel they are compiled for, as macros."""

from __future__ import annotations

import time

from netlab.kernel import btf
from netlab.kernel.bpf import cast_macros
from netlab.tracer.layout import NOT_COUNTED
from netlab.tracer.udp import verdict_macro

_CLOCK_MONOTONIC_COARSE = 6  # include/uapi/linux/time.h; its resolution is one jiffy


def kernel_macros(*, changes: bool = False) -> dict[str, str]:
    """Return what the programs have to know: of this kernel, and whether to report *changes* of state."""
    counted = btf.has_field("tcp_sock", "total_rto")
    parent = "__parent" if btf.has_field("kernfs_node", "__parent") else "parent"  # since 6.15
    tick_us = round(time.clock_getres(_CLOCK_MONOTONIC_COARSE) * 1e6)
    return {
        "NETLAB_CHANGES": str(int(changes)),
        "NETLAB_US_PER_JIFFY": str(tick_us),
        "NETLAB_PARENT(node)": f"(node)->{parent}",
        "NETLAB_TOTAL_RTO(tp)": "(tp)->total_rto" if counted else f"{NOT_COUNTED}U",
        "NETLAB_IS_MPTCP(tp)": "(tp)->is_mptcp" if btf.has_field("tcp_sock", "is_mptcp") else "0",
        **_conntrack_macros(),
        **({"NETLAB_TRACKED": "1"} if btf.has_field("sk_buff", "_nfct") else {}),
        **verdict_macro(),
        **cast_macros("sk_buff", "bpf_cg_run_ctx"),
    }


def _conntrack_macros() -> dict[str, str]:
    """Return where an entry of conntrack has what the programs read, if conntrack is there."""
    fields = {"NETLAB_CONN_STATUS": "status", "NETLAB_CONN_TUPLES": "tuplehash"}
    if btf.has_field("nf_conn", "status"):
        return {macro: f"__builtin_offsetof(struct nf_conn, {field})" for macro, field in fields.items()}
    offsets = btf.module_offsets("nf_conntrack", "nf_conn")
    return {macro: str(offsets[field]) for macro, field in fields.items()} if offsets else {}
