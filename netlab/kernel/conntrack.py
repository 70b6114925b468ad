"""The connections the kernel tracks, and their translations, over ctnetlink.

Entries of one layout stay together from the dump to the frame, so that every column is one gather for each
layout. A dump's own order is that of a hash table, and nothing is lost with it.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from netlab import addresses, checks
from netlab.errors import BadInput
from netlab.frames import Gap, Missing
from netlab.kernel import ctentries, netlink, netns as namespaces, spaces
from netlab.kernel.ctentries import Array, Entries
from netlab.schemas import CONNTRACK

_NETFILTER = 12
_GET = 0x101  # (NFNL_SUBSYS_CTNETLINK << 8) | IPCTNL_MSG_CT_GET
_BODY = 4  # bytes of struct nfgenmsg: address family, version, resource id
_AF = {None: socket.AF_UNSPEC, 4: socket.AF_INET, 6: socket.AF_INET6}


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Which entries are wanted; None stands for any."""

    family: int | None
    protocol: int | None
    address: bytes | None
    port: int | None
    translated: bool


@dataclass(frozen=True, slots=True)
class _Part:
    inode: int  # of the network namespace
    entries: Entries


def conntrack(
    *,
    netns: namespaces.NetNs = None,
    family: int | None = None,
    protocol: str | int | None = None,
    address: str | None = None,
    port: int | None = None,
) -> pd.DataFrame:
    """List the connections that the kernel tracks in a network namespace, or in all, with both their tuples.

    Parameters
    ----------
    netns
        A name under /run/netns, a path, a process id, "all", or None for the calling thread's namespace.
    family
        4 or 6; None lists both.
    protocol
        A name such as "tcp" or "icmpv6", or a protocol number.
    address
        Only entries that have this address in one of their four places.
    port
        Only entries that have this port (ICMP: identifier) in one of their four places.

    Returns
    -------
    DataFrame
        One row per entry, columns as in `netlab.schemas.CONNTRACK`. Entries made while accounting was
        off have no counters; the coverage says how many, and how to turn it on.

    Raises
    ------
    BadInput
        If an argument cannot be right; the kernel was not asked then.
    CapabilityError
        Without CAP_NET_ADMIN, which ctnetlink asks for.

    Notes
    -----
    Read by a ctnetlink dump (net/netfilter/nf_conntrack_netlink.c), like `conntrack -L -o extended,id`.

    Examples
    --------
    >>> import netlab
    >>> flows = netlab.conntrack(protocol="tcp", port=443)
    >>> print(flows.columns[:4].tolist())
    ['protocol', 'family', 'src', 'sport']
    """
    return _listed(netns, _wanted(family, protocol, address, port, translated=False))


def nat(
    *,
    netns: namespaces.NetNs = None,
    family: int | None = None,
    protocol: str | int | None = None,
    address: str | None = None,
    port: int | None = None,
) -> pd.DataFrame:
    """List only the tracked connections whose addresses or ports are translated.

    Takes and raises what `conntrack` does.

    Returns
    -------
    DataFrame
        Columns as in `netlab.schemas.CONNTRACK`. `nat` is "snat" where replies go elsewhere than to the
        source, "dnat" where they come from elsewhere than the destination, "both" where both hold.

    Examples
    --------
    >>> import netlab
    >>> print(netlab.nat().nat.isna().any())
    False
    """
    return _listed(netns, _wanted(family, protocol, address, port, translated=True))


def _wanted(
    family: int | None, protocol: str | int | None, address: str | None, port: int | None, *, translated: bool
) -> _Wanted:
    if family not in {None, 4, 6}:
        raise BadInput(f"family {family!r} is not an address family", fix="Give 4 or 6")
    packed = None if address is None else _packed(address)
    its_family = packed and ctentries.family_of(len(packed))
    if packed and family not in {None, its_family}:
        raise BadInput(f"address {address!r} is not of family {family}", fix="Leave one of the two out")
    return _Wanted(
        family=its_family or family,
        protocol=None if protocol is None else _protocol_number(protocol),
        address=packed,
        port=None if port is None else checks.port(port),
        translated=translated,
    )


def _packed(address: str) -> bytes:
    try:
        return ipaddress.ip_address(addresses.canonical(str(address))).packed
    except ValueError as error:
        raise BadInput(
            f"address {address!r} is not an IP address", fix="Give one like '192.0.2.1'"
        ) from error


def _protocol_number(protocol: str | int) -> int:
    if isinstance(protocol, str):
        return ctentries.NUMBERS[checks.choice("protocol", protocol, ctentries.NUMBERS)]
    return checks.whole("protocol", protocol, 0, 255)


def _listed(netns: namespaces.NetNs, wanted: _Wanted) -> pd.DataFrame:
    request = bytes([_AF[wanted.family], 0, 0, 0])

    def dump() -> netlink.Dump:
        doing = "list conntrack entries"
        return netlink.dump(_NETFILTER, _GET, request, doing=doing, module="nf_conntrack_netlink")

    answers = spaces.ask(netns, dump)
    parts = [
        _Part(inode, _selected(ctentries.decoded(group), wanted))
        for inode, found in answers.by_inode.items()
        for group in found.groups(_BODY)
    ]
    interrupted = any(found.interrupted for found in answers.by_inode.values())
    return _framed(parts, [*answers.missing, *([netlink.INTERRUPTED] if interrupted else [])])


def frame_of(dump: netlink.Dump, inode: int) -> pd.DataFrame:
    """Return the conntrack messages of the namespace *inode* as a frame, in the order they came in."""
    groups = list(dump.groups(_BODY))
    frame = _framed([_Part(inode, ctentries.decoded(group)) for group in groups], [])
    order = np.argsort(np.concatenate([np.empty(0, np.intp), *(group.rows for group in groups)]))
    return frame.iloc[order].reset_index(drop=True)


def _selected(entries: Entries, wanted: _Wanted) -> Entries:
    numbers, places = entries.numbers, entries.places
    keep = np.ones(len(entries), bool)
    if wanted.translated:
        keep &= numbers["nat"] != 0
    if wanted.protocol is not None:
        keep &= numbers["protocol"] == wanted.protocol
    if wanted.port is not None:
        ports = (numbers[name] for name in ("sport", "dport", "reply_sport", "reply_dport"))
        keep &= np.any([values == wanted.port for values in ports if values is not None], axis=0)
    if wanted.address is not None:
        address = np.frombuffer(wanted.address, np.uint8)
        keep &= np.any([(values == address).all(axis=1) for values in places.values()], axis=0)
    return entries if keep.all() else entries.where(keep)


def _framed(found: list[_Part], missing: list[Missing]) -> pd.DataFrame:
    parts = [part for part in found if len(part.entries)]
    if not parts:
        return CONNTRACK.empty(missing)
    entries = [part.entries for part in parts]
    data: dict[str, Any] = {name: _joined(entries, name) for name in entries[0].numbers}
    texts = [_texts(part.places) for part in entries]
    data |= {name: addresses.column([text[name] for text in texts]) for name in entries[0].places}
    data |= {
        "protocol": _category(data["protocol"], ctentries.protocol_name),
        "state": pd.Categorical.from_codes(data["state"].filled(-1), pd.Index(ctentries.STATES)),
        "status": _category(data["status"], ctentries.flag_names),
        "nat": _category(np.ma.masked_equal(data["nat"], 0), ctentries.NAT.__getitem__),
        "netns": np.repeat([part.inode for part in parts], [len(part.entries) for part in parts]),
    }
    return CONNTRACK.frame(data, [*missing, *_uncounted(data["packets"])])


def _joined(parts: list[Entries], name: str) -> np.ma.MaskedArray[Any, Any]:
    """Join one column of all layouts; rows of a layout that lacks the attribute are masked."""
    columns = [part.numbers[name] for part in parts]
    values = [
        np.zeros(len(part), np.int64) if column is None else column.astype(np.int64)
        for part, column in zip(parts, columns, strict=True)
    ]
    absent = np.repeat([column is None for column in columns], [len(part) for part in parts])
    return np.ma.array(np.concatenate(values), mask=absent)


def _category(values: np.ma.MaskedArray[Any, Any], name: Callable[[int], str]) -> pd.Categorical[str]:
    """Name every distinct number once; masked ones stay missing."""
    known = ~np.ma.getmaskarray(values)
    codes = np.full(len(values), -1)
    codes[known], distinct = pd.factorize(values.data[known])
    return pd.Categorical.from_codes(codes, pd.Index([name(int(number)) for number in distinct], dtype="str"))


def _texts(places: dict[str, Array]) -> dict[str, pa.Array]:
    source, target = _text(places["src"]), _text(places["dst"])
    return {
        "src": source,
        "dst": target,
        "reply_src": _text_like(target, places["dst"], places["reply_src"]),
        "reply_dst": _text_like(source, places["src"], places["reply_dst"]),
    }


def _text(places: Array) -> pa.Array:
    return addresses.text(ctentries.family_of(places.shape[1]), places)


def _text_like(text: pa.Array, its_places: Array, places: Array) -> pa.Array:
    """Return the text of *places*, made anew only where they are not *its_places*: at translated flows."""
    differs = ctentries.differ(its_places, places)
    return pc.replace_with_mask(text, differs, _text(places[differs])) if differs.any() else text


def _uncounted(packets: np.ma.MaskedArray[Any, Any]) -> list[Missing]:
    count = int(np.ma.getmaskarray(packets).sum())
    if not count:
        return []
    detail = (
        "accounting was off when these entries were made; "
        "`sysctl -w net.netfilter.nf_conntrack_acct=1` counts new ones"
    )
    return [Missing("packets, bytes, reply_packets, reply_bytes", Gap.UNAVAILABLE, count, detail)]
