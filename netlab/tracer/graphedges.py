"""The edges of a graph of connections: all that have the same two nodes and go to one port are one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from netlab.tracer.graphnodes import Codes, Key, Nodes, plain

_SUMS = ["bytes_sent", "bytes_received", "retransmits"]


def edges(
    table: pd.DataFrame, ends: pd.DataFrame, kinds: list[Nodes]
) -> Iterable[tuple[Key, Key, str, dict[str, Any]]]:
    """Return each edge: source, target, key and attributes.

    *kinds* are processes, addresses, translations and gateways.
    """
    keys = [key for nodes in kinds for key in nodes.keys]
    starts = np.cumsum([0, *(len(nodes.keys) for nodes in kinds)])
    process, address, translation, gateway = (
        nodes.after(start) for nodes, start in zip(kinds, starts[:-1].tolist(), strict=True)
    )
    first = np.where(translation < 0, address, translation)
    beyond = ends["new_service_port"].where(ends["dnat"], ends["service_port"])
    parts = [
        _part(table, ends, "connects", (process, first), ends["service_port"]),
        _part(table, ends, "translated", (translation, address), beyond),
        _part(table, ends, "via", (first, gateway), ends["service_port"]),
    ]
    for edge in _summed(pd.concat(parts, ignore_index=True)):
        source, target = keys[edge.pop("source")], keys[edge.pop("target")]
        key = service_key(edge)
        yield source, target, f"{edge['direction']} {key}" if edge["kind"] == "via" else key, edge


def service_key(edge: Mapping[str, Any]) -> str:
    """Return what an edge leads to, such as ``tcp/443``; without the port where that is not known."""
    return "/".join(str(edge[name]) for name in ("protocol", "port") if edge[name] is not None)


def _part(
    table: pd.DataFrame, ends: pd.DataFrame, kind: str, between: tuple[Codes, Codes], port: pd.Series[Any]
) -> pd.DataFrame:
    """Return one edge for each connection that has both nodes; incoming ones are turned round."""
    near, far = between
    has = (near >= 0) & (far >= 0)
    incoming = ends["incoming"].to_numpy() & (kind != "via")
    return table.loc[has, ["protocol", "error", *_SUMS, "rtt_ms"]].assign(
        kind=kind,
        direction=ends.loc[has, "direction"],
        source=np.where(incoming, far, near)[has],
        target=np.where(incoming, near, far)[has],
        port=port[has],
    )


def _summed(each: pd.DataFrame) -> Iterable[dict[str, Any]]:
    """Add up the connections of each edge."""
    names = ["source", "target", "kind", "protocol", "port", "direction"]
    each = each.astype({"protocol": "string"})
    code = np.asarray(each.groupby(names, dropna=False, sort=False).ngroup(), np.intp)
    edges = each.loc[~pd.Series(code).duplicated().to_numpy(), names].reset_index(drop=True)
    size = len(edges)
    edges["connections"] = np.bincount(code, minlength=size)
    edges["failures"] = np.bincount(code[each["error"].notna().to_numpy()], minlength=size)
    edges["errors"] = each["error"].astype("string").groupby(code).nunique().reindex(range(size)).array
    edges["error"] = _most_frequent(each["error"].astype("string"), code).reindex(range(size)).array
    for name in _SUMS:
        edges[name] = each[name].groupby(code).sum(min_count=1).reindex(range(size)).array
    edges["rtt_ms"] = each["rtt_ms"].groupby(code).median().reindex(range(size)).array
    return plain(edges)


def _most_frequent(errors: pd.Series[str], code: Codes) -> pd.Series[Any]:
    counts = pd.DataFrame({"code": code, "error": errors}).dropna().value_counts(sort=False)
    ranked = counts.rename("count").reset_index().sort_values(["count", "error"], ascending=[False, True])
    return ranked.drop_duplicates("code").set_index("code")["error"]
