"""A NetworkPath payload as a frame of hops."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from netlab import addresses
from netlab.errors import BadInput
from netlab.frames import Gap, Missing
from netlab.path import fields
from netlab.path.fields import Layout
from netlab.path.payload import ATTRIBUTE, ID, RUN, Table
from netlab.schemas import HOPS

_OURS = re.compile(r"-(\d{1,9})-(\d{1,9})-(\d{1,9})", re.ASCII)  # what `to_network_path` puts behind the id
_JUDGED = "judged by the answering address: the payload does not tell the kind of answer"
_ONE_TIME = "the payload has one time for the whole test"


def from_network_path(payload: Mapping[str, Any] | str | bytes) -> pd.DataFrame:
    """Read a NetworkPath payload of any layout as a frame of hops, for `path_graph` and all the rest.

    Parameters
    ----------
    payload
        The payload, parsed or as JSON.

    Returns
    -------
    DataFrame
        One row per hop of each run, as in `netlab.schemas.HOPS`. A round-trip time of 0 and an empty address
        are missing, because the agent writes them where nothing answered. The payload tells neither when each
        probe was sent nor how it was answered: `sent_at` is the time of the test, `reached` goes by the
        address, and the coverage says so. `to_network_path` gives back what there is no column for.

    Raises
    ------
    BadInput
        Naming the field that is missing or cannot be right.

    Examples
    --------
    >>> import netlab
    >>> path = netlab.path.to_network_path(netlab.traceroute("127.0.0.1"))
    >>> netlab.path.from_network_path(path)["address"].unique().tolist()
    ['127.0.0.1']
    """
    found = _parsed(payload)
    layout = fields.layout_of(found)
    fields.check(found, layout)
    trace = found.get(ID[layout]) or found.get("test_result_id") or secrets.token_hex(8)
    runs = _runs(found) if layout is Layout.RUNS else [_list_as_run(found)]
    rows = [row for number, run in enumerate(runs) for row in _rows(run, number, trace)]
    target = found["destination"]
    constant = {
        "trace": trace,
        "host": found["source"]["hostname"],
        "target": target["hostname"],
        "protocol": found["protocol"].lower(),
        "sent_at": pd.Timestamp(found["timestamp"], unit="ms", tz="UTC"),
    }
    columns = {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}
    columns |= {name: [value] * len(rows) for name, value in constant.items()}
    answered = sum(row["address"] is not None for row in rows)
    frame = HOPS.frame(
        columns,
        [
            Missing("sent_at", Gap.APPROXIMATE, len(rows), _ONE_TIME),
            Missing("reached", Gap.APPROXIMATE, answered, _JUDGED),
        ],
    )
    rest = {name: value for name, value in found.items() if name not in {"hops", "traceroute", "timestamp"}}
    if "traceroute" in found:
        # What was not known stays so: the hops do not tell of interruptions.
        rest["traceroute"] = {"hop_count": found["traceroute"].get("hop_count")}
        rest.setdefault("e2e_probe", None)
    frame.attrs[ATTRIBUTE] = {"trace": trace, "fields": rest}
    return frame


def _parsed(payload: object) -> Table:
    if isinstance(payload, str | bytes):
        try:
            payload = json.loads(payload)
        except (ValueError, RecursionError) as error:
            raise BadInput(f"the payload is no JSON: {error}", fix="Pass one payload, whole") from error
    if not isinstance(payload, Mapping):
        raise BadInput(f"a {type(payload).__name__} is no NetworkPath payload", fix="Pass a dict, or JSON")
    return dict(payload)


def _runs(found: Table) -> list[Table]:
    return found["traceroute"].get("runs") or []


def _list_as_run(found: Table) -> Table:
    hops = [
        {
            **hop,
            "reverse_dns": [name] if (name := hop.get("hostname")) and name != hop.get("ip_address") else [],
        }
        for hop in found["hops"] or []
    ]
    return {"hops": hops, "destination": found["destination"]}


def _rows(run: Table, number: int, trace: str) -> Iterator[Table]:
    name = run.get("run_id") or ""
    ours = _OURS.fullmatch(name, len(trace)) if name.startswith(trace) else None
    place = dict(zip(RUN, map(int, ours.groups()) if ours else (number, 0, 0), strict=True))
    source, target = run.get("source") or {}, run["destination"]
    destination = addresses.canonical(target["ip_address"])
    for hop in run["hops"] or []:
        text = hop.get("ip_address")
        address = addresses.canonical(text) if fields.is_address(text) else None
        yield {
            **place,
            "source_address": source.get("ip_address") or None,
            "source_port": source.get("port") or None,
            "target_address": destination,
            "port": target.get("port") or None,
            "family": 6 if ":" in destination else 4,
            "ttl": hop["ttl"],
            "address": address,
            "name": next(iter(hop.get("reverse_dns") or []), None) if address else None,
            "rtt_ms": (hop.get("rtt") or None) if address else None,
            "reached": address == destination if address else None,
        }
