"""The wiring of the practice network: namespaces, their switches, links, addresses and routes."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from pyroute2 import IPRoute, netns as named_namespaces

from netlab.lab import plan
from netlab.lab.host import Host

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
_IFA_F_NODAD = 0x02  # include/uapi/linux/if_addr.h: usable at once, not after a second of detection
_libc = ctypes.CDLL(None, use_errno=True)  # os.unshare() came with Python 3.12

_EVERYWHERE = {
    "ipv6/conf/all/accept_dad": "0",
    "ipv6/conf/default/accept_dad": "0",
    "ipv6/conf/default/router_solicitations": "0",
    # Linux answers a peer with 6 ICMP errors and then one a second, which no trace of a test survives.
    "ipv4/icmp_ratelimit": "0",
    "ipv4/icmp_msgs_per_sec": "1000000",
    "ipv4/icmp_msgs_burst": "1000000",
    "ipv6/icmp/ratelimit": "0",
}
_FORWARDING = {"ipv4/ip_forward": "1", "ipv6/conf/all/forwarding": "1"}
# There once the kernel has loaded nf_conntrack, which it does for the first rule that translates.
_ACCOUNTING = {"netfilter/nf_conntrack_acct": "1", "netfilter/nf_conntrack_timestamp": "1"}
_BACKLOG = {"core/somaxconn": "4096"}
_SYSCTLS = {
    plan.CLIENT: {"ipv4/tcp_syn_retries": "1"},  # a dropped SYN ends after 3 s and not after two minutes
    plan.GATEWAY: _FORWARDING,
    **dict.fromkeys(plan.ROUTERS, _FORWARDING),
    **dict.fromkeys(plan.SERVERS, _BACKLOG),
}


def make_namespace(host: Host) -> None:
    """Make the namespace that is *host*, with its switches set."""
    in_a_thread_of_its_own(_make_namespace, host)


def count_tracked(host: Host) -> None:
    """Have the kernel count the packets of the connections that *host*, which has its firewall, tracks."""
    with host.entered():
        _switch(_ACCOUNTING)


def connect(hosts: dict[str, Host]) -> None:
    """Link the hosts by veth pairs, and give them addresses and routes."""
    in_a_thread_of_its_own(_connect, hosts)


def in_a_thread_of_its_own(work: Callable[[T], None], subject: T) -> None:
    """Do *work* on *subject* in a thread that ends with it.

    The thread may change its namespace for good, and pyroute2, which drives an event loop of its own, does
    not work in a thread where one runs already, as in a notebook's.
    """
    with ThreadPoolExecutor(max_workers=1) as alone:
        alone.submit(work, subject).result()


def _make_namespace(host: Host) -> None:
    """Move this thread to a new namespace, give that the host's name, and set its switches."""
    if _libc.unshare(_CLONE_NEWNET):
        code = ctypes.get_errno()
        raise OSError(code, f"unshare(CLONE_NEWNET): {os.strerror(code)}")
    named_namespaces.attach(host.netns, threading.get_native_id())
    _switch(_EVERYWHERE | _SYSCTLS[host.name])


def _switch(sysctls: dict[str, str]) -> None:
    """Set switches of the namespace that this thread is in."""
    for name, value in sysctls.items():
        Path("/proc/sys/net", name).write_text(value, encoding="ascii")


def _connect(hosts: dict[str, Host]) -> None:
    """Make the links; an interface is called after the host at the other end."""
    with IPRoute() as outside:
        for link in plan.LINKS:
            outside.link(
                "add",
                ifname=link.far,
                kind="veth",
                net_ns_fd=hosts[link.near].netns,
                peer={"ifname": link.near, "net_ns_fd": hosts[link.far].netns},
            )
    for name, host in hosts.items():
        with host.entered():
            inside = IPRoute()
        with inside:
            _configure(name, inside)


def _configure(name: str, ip: IPRoute) -> None:
    """Bring up the interfaces of one host, with addresses and routes."""
    interfaces = {link.get("ifname"): link["index"] for link in ip.get_links()}
    for index in interfaces.values():
        ip.link("set", index=index, state="up")
    for link in plan.links_of(name):
        for family in plan.FAMILIES:
            ip.addr(
                "add",
                index=interfaces[link.peer(name)],
                address=link.address(name, family),
                prefixlen=link.network(family).prefixlen,
                **({"flags": _IFA_F_NODAD} if family == 6 else {}),
            )
    for family in plan.FAMILIES:
        for prefix, next_hop in plan.routes(name, family):
            ip.route("add", dst=prefix, gateway=next_hop)
