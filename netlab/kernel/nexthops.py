"""Next hop objects (`ip nexthop`): with net.ipv4.nexthop_compat_mode=0 routes tell their number only.

Source: struct nhmsg, struct nexthop_grp and enum NHA_*, include/uapi/linux/nexthop.h.
"""

from __future__ import annotations

import socket
import struct
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from netlab.kernel import netlink
from netlab.kernel.rtnetlink import Array, each_distinct, text

_GET_NEXTHOP = 106
_BODY = np.dtype([("family", "u1"), ("scope", "u1"), ("protocol", "u1"), ("", "V1"), ("flags", "u4")])
_ID, _GROUP, _INTERFACE, _GATEWAY, _ENCAP_TYPE = (1,), (2,), (5,), (6,), (7,)  # NHA_*
_FLAGS = 0x7F  # RTNH_F_*: the rest is about the message
_MEMBER = struct.Struct("=IBBH")  # id, weight - 1, its upper eight bits (Linux 6.12), reserved

NextHop: TypeAlias = tuple[str | None, int | None, int | None, int, int | None]
Objects: TypeAlias = dict[int, list[NextHop]]
HOP = ["gateway", "index", "weight", "flags", "encap"]


def objects(kernel: socket.socket) -> Objects:
    """Return the next hops of each object and of each group, by id, with the fields of `HOP`."""
    dump = netlink.dump_over(kernel, _GET_NEXTHOP, bytes(_BODY.itemsize), doing="list next hop objects")
    flags = dump.body(_BODY)["flags"] & _FLAGS
    single: dict[int, NextHop] = {}
    groups: dict[int, list[tuple[int, int]]] = {}
    for group in dump.groups(_BODY.itemsize):
        ids = _numbers(group.get(_ID, "u4"), len(group.rows))
        if group.length(_GROUP) > 0:
            groups.update(zip(ids, each_distinct(group.octets(_GROUP), _members), strict=True))
            continue
        gateways: list[str | None] = [None] * len(ids)
        if group.length(_GATEWAY) > 0:
            gateways = list(each_distinct(group.octets(_GATEWAY), text))
        interfaces = _numbers(group.get(_INTERFACE, "u4"), len(ids))
        encaps = _numbers(group.get(_ENCAP_TYPE, "u2"), len(ids))
        hops = zip(gateways, interfaces, [None] * len(ids), flags[group.rows].tolist(), encaps, strict=True)
        single.update(zip(ids, hops, strict=True))
    found = {number: [hop] for number, hop in single.items()}
    for number, members in groups.items():
        whole = [(single[member], weight) for member, weight in members if member in single]
        found[number] = [(hop[0], hop[1], weight, *hop[3:]) for hop, weight in whole]
    return found


def _numbers(values: Array | None, rows: int) -> list[Any]:
    return [None] * rows if values is None else values.tolist()


def _members(payload: bytes) -> list[tuple[int, int]]:
    return [(number, (high << 8 | low) + 1) for number, low, high, _ in _MEMBER.iter_unpack(payload)]


def spelt_out(routes: pd.DataFrame, known: Objects) -> pd.DataFrame:
    """Return *routes* with a row for each next hop of those that only name an object which is known.

    The columns are those of `routemessages.decoded`.
    """
    named = is_bare(routes) & routes["nexthop_id"].isin(list(known))
    told = ["nexthop", "nexthops", *HOP]
    hops = pd.DataFrame(
        [
            (number, place, len(some), *hop)
            for number, some in known.items()
            for place, hop in enumerate(some)
        ],
        columns=["nexthop_id", *told],
    ).astype({name: routes[name].dtype for name in ["nexthop_id", *told]})
    spelt = routes[named].drop(columns=told).merge(hops, on="nexthop_id")
    whole = pd.concat([routes[~named], spelt[routes.columns]])
    return whole.sort_values(["row", "nexthop"], kind="stable", ignore_index=True)


def is_bare(routes: pd.DataFrame) -> pd.Series[bool]:
    """Tell which routes name an object and say nothing of it."""
    return routes["nexthop_id"].notna() & routes["index"].isna() & routes["gateway"].isna()
