"""A trace as the Datadog Agent's NetworkPath payload."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from netlab import __version__, checks
from netlab.errors import BadInput
from netlab.frames import attached
from netlab.path import fields
from netlab.path.extent import ends_path, is_within_path
from netlab.path.fields import Layout
from netlab.path.interruption import was_interrupted

Table: TypeAlias = dict[str, Any]

ATTRIBUTE = "network_path"  # of frames that were a payload: what there is no column for
ID = {Layout.HOPS: "path_id", Layout.ORIGIN: "pathtrace_id", Layout.RUNS: "test_run_id"}
_ANSWERED = {Layout.HOPS: "success", Layout.ORIGIN: "reachable"}
RUN = ["run", "flow", "attempt"]
_NEEDED = [
    "trace", "host", "source_address", "target", "target_address", *RUN, "ttl", "address", "name", "rtt_ms",
    "reached", "sent_at", "protocol", "source_port", "port",
]  # fmt: skip


@checks.options
def to_network_path(
    hops: pd.DataFrame,
    *,
    layout: str = Layout.RUNS,
    namespace: str | None = None,
    tags: Iterable[str] | None = None,
    source: Mapping[str, Any] | None = None,
    destination: Mapping[str, Any] | None = None,
) -> Table:
    """Return one trace as a NetworkPath payload, ready for `json.dumps`.

    Parameters
    ----------
    hops
        What `netlab.traceroute` returned for one target, or `from_network_path`.
    layout
        "2026" (several runs and the probes from end to end), or the single list of hops of "2025" or "2024".
    namespace
        What tells equal private addresses apart, "default" unless given.
    tags
        Tags such as "team:net".
    source, destination
        More of their fields, such as `{"service": "shop"}`; `netlab/path/network_path.toml` lists them.

    Returns
    -------
    dict
        What is not known is absent. A hop is `reachable` if anybody answered there. A run is the answers to
        one query of each TTL, so links between its hops are those of one flow. `packet_loss_percentage` is a
        fraction, 0 to 1, as the agent writes it; lost probes are not in `rtts`.

    Raises
    ------
    BadInput
        If *hops* is no single trace, or an option is none that the payload has room for.

    Notes
    -----
    Fields and types are those of pkg/networkpath/payload in the Datadog Agent. The probes to the TTL of a
    path's end, to the last TTL where it has none, are its probes from end to end, received when the target
    answered them. A run that has sent none, as in an interrupted trace and every other round of a monitor,
    counts neither there nor for `hop_count`.

    Examples
    --------
    >>> import netlab
    >>> path = netlab.path.to_network_path(netlab.traceroute("127.0.0.1"), tags=["team:net"])
    >>> path["destination"]["hostname"], path["traceroute"]["hop_count"]
    ('127.0.0.1', {'avg': 1.0, 'min': 1, 'max': 1})
    """
    kind = Layout(checks.choice("layout", layout, list(Layout)))
    trace = _one_trace(hops)
    first = trace.iloc[0]
    made: Table = {
        "timestamp": _milliseconds(trace["sent_at"].min()),
        "agent_version": f"netlab {__version__}",
        "namespace": "default",
        "origin": "network_path_integration",
        "test_run_type": "triggered",
        "source_product": "network_path",
        "collector_type": "agent",
        "test_result_id": first["trace"],
        ID[kind]: first["trace"],
        "protocol": str(first["protocol"]).upper(),
        "source": {"hostname": first["host"]},
        "destination": {
            "hostname": first["target"],
            "ip_address": first["target_address"],
            "port": first["port"],
        },
    }
    if kind is Layout.RUNS:
        whole = _to_the_end(trace, cut=was_interrupted(hops))
        made |= {
            "traceroute": {
                "runs": [_run(part) for _, part in trace.groupby(RUN, sort=True)],
                "hop_count": _hop_count(whole),
            },
            "e2e_probe": _end_to_end(whole),
        }
    else:
        made["hops"] = _single_list(trace, kind)
    made = _merged(
        _merged(made, _envelope(hops, first["trace"])), _given(kind, namespace, tags, source, destination)
    )
    payload = _known(made, kind)
    fields.check(payload, kind)
    return payload


def _one_trace(hops: pd.DataFrame) -> pd.DataFrame:
    checks.columns("to_network_path()", hops, _NEEDED, fix="Pass what netlab.traceroute returned")
    hops = hops.dropna(subset=["ttl"]).reset_index(drop=True)  # what could not be probed is a row without
    traces = len(hops[["trace", "target", "target_address"]].drop_duplicates())
    if traces != 1:
        raise BadInput(
            f"a payload is one trace, and this frame has {traces}",
            fix="[to_network_path(one) for _, one in hops.groupby(['trace', 'target'])]",
        )
    ordered = hops.reindex(columns=[*_NEEDED, "reply"]).sort_values("sent_at", kind="stable")
    known = {"on_path": is_within_path(ordered), "ends": ends_path(ordered)}
    plain = hops[_NEEDED].astype(object)
    return plain.where(plain.notna(), None).assign(
        **{name: told.reindex(hops.index) for name, told in known.items()}
    )


def _to_the_end(trace: pd.DataFrame, *, cut: bool) -> pd.DataFrame:
    """Return the probes of the runs that went as far as the path's `end` then was, as a column.

    It is where the run itself met it, or else its flow before or since. Where a flow never did, that is as
    far as each run went, unless some were *cut* short.
    """
    ttl = trace["ttl"].astype("float64")
    of_run = [trace["run"], trace["flow"]]
    runs = pd.DataFrame(
        {
            "end": ttl.where(trace["ends"] & trace["on_path"]).groupby(of_run).min(),
            "last": ttl.where(trace["on_path"]).groupby(of_run).max(),
        }
    ).sort_index()
    end = runs["end"].groupby(level="flow").ffill()
    end = end.fillna(runs["end"].groupby(level="flow").bfill())
    runs["end"] = end if cut else end.fillna(runs["last"])
    known = trace.join(runs, on=["run", "flow"])
    return known[known["last"] >= known["end"]]


def _milliseconds(at: pd.Timestamp | None) -> int | None:
    return None if at is None or pd.isna(at) else at.value // 10**6


def _run(probes: pd.DataFrame) -> Table:
    first = probes.iloc[0]
    names = probes.loc[probes["address"] == first["target_address"], "name"].dropna().unique().tolist()
    return {
        "run_id": "-".join(str(first[name]) for name in ["trace", *RUN]),
        "source": {"ip_address": first["source_address"], "port": first["source_port"]},
        "destination": {
            "ip_address": first["target_address"],
            "port": first["port"],
            "reverse_dns": names,
        },
        "hops": [
            {
                "ttl": probe["ttl"],
                "ip_address": probe["address"],
                "reverse_dns": [probe["name"]] if probe["name"] else [],
                "rtt": probe["rtt_ms"],
                "reachable": probe["address"] is not None,
            }
            for probe in probes.sort_values("ttl").to_dict("records")
        ],
    }


def _hop_count(trace: pd.DataFrame) -> Table:
    """Return how far the last answers came from, over the runs that had any."""
    answered = trace[trace["address"].notna()]
    first = trace["ttl"].min()
    if first > 1 and (answered["ends"] & (answered["ttl"] == first)).any():
        return {}  # it answers whatever comes so far, and may be nearer
    counts = answered["ttl"].astype("int64").groupby([answered[name] for name in RUN]).max().tolist()
    if not counts:
        return {}
    return {"avg": float(np.mean(counts)), "min": min(counts), "max": max(counts)}


def _end_to_end(trace: pd.DataFrame) -> Table:
    last = trace[trace["on_path"] & (trace["ttl"] == trace["end"])]  # behind a lost answer it is met again
    if last.empty:
        return {}
    received = last[last["reached"].eq(other=True)].sort_values("sent_at")
    rtts = received["rtt_ms"].dropna().astype(float).tolist()
    return {
        "rtts": rtts,
        "packets_sent": len(last),
        "packets_received": len(received),
        "packet_loss_percentage": 1 - len(received) / len(last),
        "jitter": float(np.abs(np.diff(rtts)).mean()) if len(rtts) > 1 else None,
        "rtt": {"avg": float(np.mean(rtts)), "min": min(rtts), "max": max(rtts)} if rtts else {},
    }


def _single_list(trace: pd.DataFrame, layout: Layout) -> list[Table]:
    """Return the hops of the first flow of the first run: at each TTL the first answer, if there is one."""
    start = trace.iloc[0]
    one = trace[(trace["run"] == start["run"]) & (trace["flow"] == start["flow"])]
    silent_last = one.assign(silent=one["address"].isna()).sort_values(["ttl", "silent", "attempt"])
    return [
        {
            "ttl": probe["ttl"],
            "ip_address": probe["address"] or f"unknown_hop_{probe['ttl']}",
            "hostname": probe["name"],
            "rtt": probe["rtt_ms"],
            _ANSWERED[layout]: probe["address"] is not None,
        }
        for probe in silent_last.drop_duplicates("ttl").to_dict("records")
    ]


def _envelope(hops: pd.DataFrame, trace: str) -> Table:
    """Return what the payload that *hops* came from had besides its hops."""
    return next((kept["fields"] for kept in attached(hops, ATTRIBUTE) if kept["trace"] == trace), {})


def _given(
    layout: Layout,
    namespace: str | None,
    tags: Iterable[str] | None,
    source: Mapping[str, Any] | None,
    destination: Mapping[str, Any] | None,
) -> Table:
    for name, table in (("source", source), ("destination", destination)):
        if not isinstance(table, Mapping | None):
            raise BadInput(f"{name} {table!r} is no dict", fix=f"Give fields of {name}")
        for key in table or {}:
            checks.choice(f"field of {name}", key, fields.known(layout, name))
    given = {"namespace": namespace, "source": source, "destination": destination}
    if tags is not None:
        given["tags"] = checks.several("tags", tags)  # type: ignore[assignment]
    return {name: value for name, value in given.items() if value is not None}


def _merged(made: Mapping[str, Any], more: Mapping[str, Any]) -> Table:
    """Return *made* with *more* over it, tables within tables too."""
    both = dict(made)
    for name, value in more.items():
        inside = both.get(name)
        tables = isinstance(inside, Mapping) and isinstance(value, Mapping)
        both[name] = _merged(inside, value) if tables else value  # type: ignore[arg-type]
    return both


def _known(made: Table, layout: Layout) -> Table:
    """Return the fields that *layout* has, without those whose value is not known."""
    made = made | {"destination": _only(made["destination"], fields.known(layout, "destination"))}
    return _without_missing(_only(made, fields.known(layout)))  # type: ignore[no-any-return]


def _only(table: Table, names: Iterable[str]) -> Table:
    return {name: table[name] for name in names if name in table}


def _without_missing(value: Any) -> Any:
    if isinstance(value, Mapping):
        inside = {name: _without_missing(item) for name, item in value.items()}
        return {name: item for name, item in inside.items() if item is not None and item not in ({}, [])}
    if isinstance(value, list):
        return [_without_missing(item) for item in value]
    return value
