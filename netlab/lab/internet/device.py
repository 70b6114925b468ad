"""The TUN device that a simulated internet is behind, and the tap that tells when packets entered it."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct

from pyroute2 import IPRoute

from netlab.lab.internet.shape import Node

NAME = "tun0"

_TUNSETIFF = 0x400454CA  # include/uapi/linux/if_tun.h
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
_IFA_F_NODAD = 0x02
_ETH_P_ALL = 0x0003
_PACKET_OUTGOING = 4
_SO_ATTACH_FILTER = 26
_SO_RCVBUFFORCE = 33
_SO_TIMESTAMPNS = 35
_TAP_BYTES = 8 << 20  # some 5,000 packets of a burst

# ld [type of the packet] (linux/filter.h: SKF_AD_OFF + SKF_AD_PKTTYPE); jeq #outgoing; ret all; ret nothing
_OUTGOING_ONLY = (
    (0x20, 0, 0, 0xFFFFF000 + 4),
    (0x15, 0, 1, _PACKET_OUTGOING),
    (0x06, 0, 0, 0xFFFF),
    (0x06, 0, 0, 0),
)


def open_tun() -> int:
    """Make the device in this thread's namespace; return the descriptor that it lives by."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        request = struct.pack("16sH22x", NAME.encode(), _IFF_TUN | _IFF_NO_PI)
        fcntl.ioctl(descriptor, _TUNSETIFF, request)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def open_tap() -> socket.socket:
    """Return a socket that gets the packets sent into the device, which is up, with the time of each.

    Reading the device tells only when its reader was woken, which on a busy machine is much later.
    """
    tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
    try:
        program = b"".join(struct.pack("HBBI", *instruction) for instruction in _OUTGOING_ONLY)
        text = ctypes.create_string_buffer(program)
        filter_ = struct.pack("HL", len(_OUTGOING_ONLY), ctypes.addressof(text))
        tap.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, filter_)
        tap.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _TAP_BYTES)
        tap.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        tap.settimeout(0)
        tap.bind((NAME, _ETH_P_ALL))
    except OSError:
        tap.close()
        raise
    return tap


def configure(client: Node, mtu_bytes: int) -> None:
    """Give the device the client's addresses, and send everything through it (in this thread's namespace)."""
    with IPRoute() as ip:
        loopback, device = (ip.link_lookup(ifname=name)[0] for name in ("lo", NAME))
        ip.link("set", index=loopback, state="up")
        ip.link("set", index=device, mtu=mtu_bytes, state="up")
        ip.addr("add", index=device, address=socket.inet_ntop(socket.AF_INET, client.address4), prefixlen=32)
        address6 = socket.inet_ntop(socket.AF_INET6, client.address6)
        ip.addr("add", index=device, address=address6, prefixlen=128, flags=_IFA_F_NODAD)
        for family in (socket.AF_INET, socket.AF_INET6):
            ip.route("add", dst="default", oif=device, family=family)
