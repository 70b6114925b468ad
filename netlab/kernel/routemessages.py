"""Route messages as columns: what a dump of the tables and the answer to a look-up have in common.

Source: struct rtmsg, struct rtnexthop and enum rtattr_type_t, include/uapi/linux/rtnetlink.h.
"""

from __future__ import annotations

import socket
import struct
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from netlab import addresses
from netlab.kernel import nlmessages
from netlab.kernel.rtnetlink import Array, attributes, each_distinct, text

BODY = np.dtype(
    [
        ("family", "u1"),
        ("destination_length", "u1"),
        ("source_length", "u1"),
        ("tos", "u1"),
        ("table", "u1"),
        ("protocol", "u1"),
        ("scope", "u1"),
        ("type", "u1"),
        ("flags", "u4"),
    ]
)
_DESTINATION, _SOURCE, _INTERFACE, _GATEWAY, _PRIORITY, _PREFERRED = (1,), (2,), (4,), (5,), (6,), (7,)
_METRICS, _MULTIPATH, _TABLE, _VIA = (8,), (9,), (15,), (18,)
_PREFERENCE, _ENCAP_TYPE, _NEXTHOP_ID = (20,), (21,), (30,)
_MTU = 2  # RTAX_MTU
_HOP = struct.Struct("=HBBi")  # length, flags, weight - 1, interface
_NEXTHOP_FLAGS = 0x7F  # of rtm_flags: the rest is about the message

TYPES = {
    1: "unicast",
    2: "local",
    3: "broadcast",
    4: "anycast",
    5: "multicast",
    6: "blackhole",
    7: "unreachable",
    8: "prohibit",
    9: "throw",
    10: "nat",
}


def decoded(dump: nlmessages.Dump, family: int) -> pd.DataFrame:
    """Return the routes of *dump*, all of *family* (4 or 6), with one row for each next hop.

    `row` is the message's place in the dump, `nexthop` the next hop's place in the route; numbers are the
    kernel's, and missing where the message lacks the attribute.
    """
    bodies = dump.body(BODY)
    parts = [_columns(group, bodies[group.rows], family) for group in dump.groups(BODY.itemsize)]
    if not parts:
        return _columns(_EMPTY, bodies[:0], family)
    whole = pd.concat(parts, ignore_index=True)
    return whole.sort_values(["row", "nexthop"], kind="stable", ignore_index=True)


def names_objects(dump: nlmessages.Dump) -> bool:
    """Tell whether any route names a next hop object."""
    return any(_NEXTHOP_ID in group.payloads for group in dump.groups(BODY.itemsize))


_EMPTY = nlmessages.Group(np.empty(0, np.uint32), np.empty(0, np.intp), np.empty(0, np.intp), {})


def _columns(group: nlmessages.Group, bodies: Array, family: int) -> pd.DataFrame:
    rows = len(group.rows)
    table = group.get(_TABLE, "u4")  # the body's own field holds 8 bits
    frame = pd.DataFrame(
        {
            "row": group.rows,
            "table": _number(bodies["table"] if table is None else table, rows),
            "type": _number(bodies["type"], rows),
            "protocol": _number(bodies["protocol"], rows),
            "scope": _number(bodies["scope"], rows),
            "tos": _number(bodies["tos"], rows),
            "message_flags": _number(bodies["flags"], rows),
            "destination": _prefix(group, _DESTINATION, bodies["destination_length"], family),
            "source": _prefix(group, _SOURCE, bodies["source_length"], family),
            "address": _address(group, _PREFERRED, family),
            "metric": _number(group.get(_PRIORITY, "u4"), rows).fillna(0),  # IPv4 does not send 0
            "preference": _number(group.get(_PREFERENCE, "u1"), rows),
            "nexthop_id": _number(group.get(_NEXTHOP_ID, "u4"), rows),
            "mtu": _nested(group, _METRICS, mtu),
        }
    )
    hops = _multipath(group) if group.length(_MULTIPATH) > 0 else _single(group, bodies, family)
    return frame.join(hops, how="right").reset_index(drop=True)


def _number(values: Any, rows: int) -> pd.api.extensions.ExtensionArray:
    if values is None:
        return pd.array([None] * rows, "Int64")
    return pd.arrays.IntegerArray(np.ma.getdata(values).astype(np.int64), np.ma.getmaskarray(values))


def _address(group: nlmessages.Group, path: nlmessages.Path, family: int) -> pd.api.extensions.ExtensionArray:
    if group.length(path) < 0:
        return pd.array([None] * len(group.rows), "string")
    return addresses.column([addresses.text(family, group.octets(path))])


def _prefix(
    group: nlmessages.Group, path: nlmessages.Path, lengths: Array, family: int
) -> pd.api.extensions.ExtensionArray:
    """Return networks as text; the whole internet has no attribute."""
    size = 4 if family == 4 else 16
    octets = group.octets(path) if group.length(path) == size else np.zeros((len(lengths), size), np.uint8)
    text = addresses.text(family, octets)
    digits = pc.cast(pa.array(lengths), pa.large_string())
    return addresses.column([pc.binary_join_element_wise(text, digits, pa.scalar("/", pa.large_string()))])


def _nested(group: nlmessages.Group, path: nlmessages.Path, parse: Any) -> pd.api.extensions.ExtensionArray:
    if group.length(path) < 1:
        return pd.array([None] * len(group.rows), "Int64")
    return pd.array(each_distinct(group.octets(path), parse), "Int64")


def mtu(payload: bytes) -> int | None:
    """Return the MTU in RTA_METRICS."""
    value = attributes(payload).get(_MTU)
    return None if value is None else int(struct.unpack("=I", value)[0])


def _single(group: nlmessages.Group, bodies: Array, family: int) -> pd.DataFrame:
    """Return the one next hop of each route, which its own attributes tell."""
    rows, index = len(group.rows), group.get(_INTERFACE, "u4")
    gateway = _address(group, _GATEWAY, family)
    if group.length(_VIA) > 0:
        gateway = pd.array(each_distinct(group.octets(_VIA), _via), "string")
    return pd.DataFrame(
        {
            "nexthop": _number(np.zeros(rows), rows),
            "nexthops": _number(np.ones(rows), rows),
            "gateway": gateway,
            "index": _number(None if index is None else np.ma.masked_equal(index, 0), rows),
            "weight": _number(None, rows),
            "flags": _number(bodies["flags"] & _NEXTHOP_FLAGS, rows),
            "encap": _number(group.get(_ENCAP_TYPE, "u2"), rows),
        }
    )


def _multipath(group: nlmessages.Group) -> pd.DataFrame:
    """Return all next hops; the index says which row of the group they are of."""
    routes = each_distinct(group.octets(_MULTIPATH), next_hops)
    flat = [(place, len(hops), *hop) for hops in routes for place, hop in enumerate(hops)]
    columns = list(zip(*flat, strict=True)) or [()] * 7
    names = ["nexthop", "nexthops", "gateway", "index", "weight", "flags", "encap"]
    arrays = {
        name: pd.array(values, "string" if name == "gateway" else "Int64")
        for name, values in zip(names, columns, strict=True)
    }
    return pd.DataFrame(arrays, index=np.repeat(np.arange(len(routes)), [len(hops) for hops in routes]))


NextHop: TypeAlias = tuple[str | None, int | None, int, int, int | None]


def next_hops(payload: bytes) -> list[NextHop]:
    """Return gateway, interface, weight, flags and encapsulation of each hop in RTA_MULTIPATH."""
    hops: list[NextHop] = []
    at = 0
    while at + _HOP.size <= len(payload):
        length, flags, more, index = _HOP.unpack_from(payload, at)
        if length < _HOP.size:
            break
        inside = attributes(payload[at + _HOP.size : at + length])
        encap = inside.get(_ENCAP_TYPE[0])
        kind = None if encap is None else int(struct.unpack("=H", encap)[0])
        hops.append((gateway(inside), index or None, more + 1, flags, kind))
        at += (length + 3) & ~3
    return hops


def gateway(inside: dict[int, bytes]) -> str | None:
    """Return the next hop among a route's attributes, which may be of the other family."""
    if _GATEWAY[0] in inside:
        return text(inside[_GATEWAY[0]])
    return _via(inside[_VIA[0]]) if _VIA[0] in inside else None


def _via(payload: bytes) -> str | None:
    """Return a next hop of the other family: struct rtvia."""
    (number,) = struct.unpack_from("=H", payload)
    if number not in {socket.AF_INET, socket.AF_INET6}:
        return None
    return text(payload[2:])
