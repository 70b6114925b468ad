"""What this process may ask of sockets, connection tracking and namespaces."""

from __future__ import annotations

import os
import shlex
import socket
import struct
import sys
from pathlib import Path

from netlab.checkup.finding import Finding, State, all_of, grant_or_leave, granting
from netlab.errors import NetlabError
from netlab.kernel import capabilities, netlink, netns

_SETTINGS, _NAMES = "/proc/sys/net", "/run"
TUN = "/dev/net/tun"


def open_sockets() -> Finding:
    """Ask the kernel for a list of sockets."""
    # struct inet_diag_req_v2: UDP sockets in none of the states, so the answer is an empty list.
    request = struct.pack("=BBBxI48x", socket.AF_INET, socket.IPPROTO_UDP, 0, 0)
    netlink.dump(4, 20, request, doing="list sockets", module="inet_diag")
    return Finding(State.YES, "the kernel answers sock_diag requests")


def owners() -> Finding:
    """Tell whether other users' processes may be looked into."""
    # To list another user's /proc/PID/fd, and to read its entries (ptrace(2), access mode checking).
    capabilities.require("CAP_DAC_READ_SEARCH", "CAP_SYS_PTRACE", doing="look into other users' processes")
    return Finding(
        State.YES, "other users' processes may be looked into; any that refuse are in the coverage"
    )


def conntrack() -> Finding:
    """Ask the kernel for the counters of connection tracking."""
    # IPCTNL_MSG_CT_GET_STATS_CPU (4) of subsystem 1, asked with a struct nfgenmsg: a few lines of counters.
    statistics = 1 << 8 | 4
    with granting("CAP_NET_ADMIN"):
        doing = "read connection tracking counters"
        netlink.dump(12, statistics, bytes(4), doing=doing, module="nf_conntrack_netlink")
    return Finding(State.YES, "the kernel answers connection tracking requests")


def _conntrack_switch(name: str) -> Finding:
    switch = Path("/proc/sys/net/netfilter", name)
    if not switch.exists():
        why = "this network namespace has no connection tracking"
        return Finding(State.NO, why, "sudo modprobe nf_conntrack, and a firewall rule that uses it")
    if switch.read_text(encoding="ascii").strip() == "0":
        why = f"net.netfilter.{name} is 0 in this network namespace; it acts on new entries only"
        return Finding(State.NO, why, f"sudo sysctl -w net.netfilter.{name}=1")
    return Finding(State.YES, f"net.netfilter.{name} is 1")


def accounting() -> Finding:
    """Tell whether packets and bytes of new entries are counted."""
    return _conntrack_switch("nf_conntrack_acct")


def timestamps() -> Finding:
    """Tell whether new entries are dated."""
    return _conntrack_switch("nf_conntrack_timestamp")


def namespaces() -> Finding:
    """Enter a network namespace, which is this one."""
    with granting("CAP_SYS_ADMIN"), netns.entered("/proc/thread-self/ns/net"):
        named = len(netns.names())
    return Finding(State.YES, f"this process may enter namespaces; {named} have a name here")


def raw_sockets() -> Finding:
    """Open a raw socket of each family."""
    for family in (socket.AF_INET, socket.AF_INET6):
        error = capabilities.raw_socket(family)
        if error is not None:
            why = f"the kernel refuses raw {family.name} sockets: {error.strerror}"
            fix = (
                f"{grant_or_leave('CAP_NET_RAW')}; traceroute() by udp, and by tcp from Linux 6.2, needs none"
            )
            return Finding(State.NO, why, fix)
    return Finding(State.YES, "raw sockets of both families open")


def ping_sockets() -> Finding:
    """Open a socket that may send echo requests and nothing else."""
    error = capabilities.ping_socket(socket.AF_INET)  # the sysctl is for IPv6 too
    if error is not None:
        why = f"no group of this process is in net.ipv4.ping_group_range: {error.strerror}"
        return Finding(State.NO, why, "sudo sysctl -w net.ipv4.ping_group_range='0 2147483647'")
    return Finding(State.YES, "a group of this process is in net.ipv4.ping_group_range")


def practice() -> Finding:
    """Tell whether all is here that practice networks are made with."""
    problems = []
    try:
        capabilities.require("CAP_NET_ADMIN", "CAP_SYS_ADMIN", doing="build network namespaces")
        namespaces()
    except NetlabError as error:
        as_root = f"sudo -E {shlex.quote(sys.executable)} … (setcap is not enough for the tools it runs)"
        problems.append(Finding(State.NO, error.problem, as_root))
    if capabilities.tool("nft") is None:
        problems.append(Finding(State.NO, "nft is not installed", "sudo apt-get install nftables"))
    problems += _closed()
    return all_of(problems) if problems else Finding(State.YES, "namespaces and nft are here")


def _closed() -> list[Finding]:
    """Return which places that namespaces are made in cannot be written, as in many containers."""
    return [
        Finding(State.NO, f"{place} is read-only", f"docker run --privileged …, or mount {place} writable")
        for place in (_SETTINGS, _NAMES)
        if os.path.exists(place) and os.statvfs(place).f_flag & os.ST_RDONLY  # noqa: PTH110 - as statvfs is
    ]


def simulated() -> Finding:
    """Tell whether all is here that simulated internets are made with."""
    problems = []
    try:
        capabilities.require("CAP_NET_RAW", doing="take packets off a TUN device")
    except NetlabError as error:
        problems.append(Finding(State.NO, error.problem, error.fix))
    if not Path(TUN).exists():
        problems.append(Finding(State.NO, f"{TUN} is not here", "sudo modprobe tun"))
    needed = practice()
    problems += [needed] if needed.state is State.NO else []
    return all_of(problems) if problems else Finding(State.YES, f"namespaces and {TUN} are here")
