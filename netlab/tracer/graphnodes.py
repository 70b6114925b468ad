"""The nodes of a graph of connections: one for each distinct key, and which one each connection has."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

Key: TypeAlias = tuple[Hashable, ...]
Codes: TypeAlias = npt.NDArray[np.intp]

_LOCAL = r"127\.|::1$|fe80:"  # loopback and link-local


@dataclass(frozen=True, slots=True)
class Nodes:
    """The nodes of one kind: their keys and attributes, and which one each row has (-1: none)."""

    keys: list[Key]
    attributes: list[dict[str, Any]]
    codes: Codes

    def after(self, others: int) -> Codes:
        """Return the codes, counted on from those of the nodes before."""
        return np.where(self.codes < 0, -1, self.codes + others)


def _grouped(
    kind: str, key: pd.DataFrame, only: pd.Series[bool], more: Mapping[str, pd.Series[Any]] | None = None
) -> Nodes:
    """Make a node of each distinct key; *more* are what all its rows have, None if they differ."""
    chosen = key[only]
    grouped = chosen.groupby(list(chosen), dropna=False, sort=False, observed=True)
    codes = np.full(len(key), -1, np.intp)
    codes[only.to_numpy()] = grouped.ngroup().to_numpy()
    attributes = chosen.loc[~chosen.duplicated()].reset_index(drop=True)
    for name, values in (more or {}).items():
        attributes[name] = _common(values[only].to_numpy(object), codes[only.to_numpy()], len(attributes))
    records = plain(attributes)
    names = [str(name) for name in key]
    keys: list[Key] = [(kind, *(record[name] for name in names)) for record in records]
    return Nodes(keys, [{"kind": kind, **record} for record in records], codes)


def _common(values: npt.NDArray[Any], codes: Codes, count: int) -> npt.NDArray[Any]:
    """Return the value that all rows of a node have which have one; None if they differ."""
    frame = pd.DataFrame({"code": codes, "value": values}).dropna().drop_duplicates()
    frame = frame[~frame["code"].duplicated(keep=False)]
    found = np.full(count, None, object)
    found[frame["code"].to_numpy()] = frame["value"].to_numpy()
    return found


def plain(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return rows of plain Python values; missing ones are None."""
    columns = {
        str(name): values.astype(object).where(values.notna(), None).tolist()
        for name, values in frame.items()
    }
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def processes(table: pd.DataFrame, by: str) -> Nodes:
    """Make nodes of the commands in each container, or, *by* "pid", of each process."""
    pid = table["pid"] if by == "pid" else table["pid"].where(table["process"].isna())
    key = table[["host", "container", "process"]].assign(pid=pid)
    nodes = _grouped("process", key, _every(table), {"cmdline": table["cmdline"]})
    pids = table["pid"].groupby(nodes.codes).nunique()
    for place, count in pids.items():
        nodes.attributes[int(str(place))]["pids"] = int(count) or None
    return nodes


def addresses(table: pd.DataFrame, ends: pd.DataFrame) -> Nodes:
    """Make nodes of the peers beyond the translation.

    An address is the same one, whoever talks to it, except those that every network namespace has.
    """
    local = ends["peer"].str.match(_LOCAL).astype(bool)
    key = pd.DataFrame(
        {"host": table["host"].where(local), "netns": table["netns"].where(local), "address": ends["peer"]}
    )
    return _grouped("address", key, _every(table), {"name": table["remote_name"]})


def _every(table: pd.DataFrame) -> pd.Series[bool]:
    every: pd.Series[bool] = pd.Series(np.ones(len(table)), index=table.index, dtype=bool)
    return every


def translations(table: pd.DataFrame, ends: pd.DataFrame) -> Nodes:
    """Make nodes of what is translated to what."""
    dnat, snat = ends["dnat"], ends["snat"]
    both = np.select([dnat & snat, dnat, snat], ["both", "dnat", "snat"], "none")
    stands = ends["client_address"].where(ends["incoming"], ends["new_client_address"])
    key = pd.DataFrame(
        {
            "host": table["host"],
            "direction": ends["direction"],
            "protocol": table["protocol"],
            "nat": both,
            "service": ends["service_address"],
            "service_port": ends["service_port"],
            "new_service": ends["new_service_address"].where(dnat),
            "new_service_port": ends["new_service_port"].where(dnat),
            "client": stands.where(snat),
        }
    )
    return _grouped("translation", key, dnat | snat)


def gateways(table: pd.DataFrame) -> Nodes:
    """Make nodes of the gateways of each host."""
    names = {"host": "host", "via_gateway": "address", "via_mac": "mac"}
    key = table[list(names)].rename(columns=names)
    return _grouped("gateway", key, key["address"].notna(), {"interface": table["via_interface"]})


def counted(nodes: Nodes, failed: npt.NDArray[np.bool_]) -> Iterable[tuple[Key, dict[str, Any]]]:
    """Return each node with how many connections it has, and how many of them failed."""
    has, size = nodes.codes >= 0, len(nodes.keys)
    total = np.bincount(nodes.codes[has], minlength=size).tolist()
    failures = np.bincount(nodes.codes[has & failed], minlength=size).tolist()
    for key, attributes, count, bad in zip(nodes.keys, nodes.attributes, total, failures, strict=True):
        yield key, attributes | {"connections": count, "failures": bad}
