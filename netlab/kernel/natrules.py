"""Whether a network namespace has rules that translate or mark at all, in nft or in iptables."""

from __future__ import annotations

import socket
from contextlib import suppress
from pathlib import Path

from netlab.errors import CapabilityError, KernelError
from netlab.kernel import netlink

_NETFILTER = 12
_GET_CHAIN = 10 << 8 | 4  # (NFNL_SUBSYS_NFTABLES << 8) | NFT_MSG_GETCHAIN
_BODY = 4  # struct nfgenmsg
_TYPE = (7,)  # NFTA_CHAIN_TYPE
_NAT, _ROUTE = b"nat", b"route"
_LEGACY = ("ip_tables_names", "ip6_tables_names")


def present() -> bool | None:
    """Tell whether the calling thread's namespace has rules of NAT; None if that cannot be told.

    Notes
    -----
    A dump of nf_tables' chains (which iptables-nft makes, too), and the tables of legacy iptables in
    /proc/net. tc, Open vSwitch and IPVS can translate without either.
    """
    return _told(_chains(_NAT), _legacy(_NAT))


def rerouting() -> bool | None:
    """Tell whether rules here may mark what this namespace sends, and have it routed by that mark.

    Those are chains of type route: `mangle` on the way out, in the words of iptables. None if that cannot be
    told.
    """
    return _told(_chains(_ROUTE), _legacy(b"mangle"))


def _told(*answers: bool | None) -> bool | None:
    return True if True in answers else None if None in answers else False


def _chains(wanted: bytes) -> bool | None:
    body = bytes([socket.AF_UNSPEC, 0, 0, 0])
    try:
        dump = netlink.dump(_NETFILTER, _GET_CHAIN, body, doing="list nft chains")
    except CapabilityError:
        return None
    except KernelError:  # a kernel without nf_tables
        return False
    for group in dump.groups(_BODY):
        kinds = [] if group.length(_TYPE) < 1 else list(group.octets(_TYPE))
        if any(kind.tobytes().rstrip(b"\0") == wanted for kind in kinds):
            return True
    return None if dump.interrupted else False


def _legacy(table: bytes) -> bool | None:
    unknown = False
    for name in _LEGACY:
        with suppress(FileNotFoundError):  # that part of the kernel is not there
            try:
                if table in Path("/proc/thread-self/net", name).read_bytes().split():
                    return True
            except PermissionError:
                unknown = True
    return None if unknown else False
