"""The schemas of netlab's frames: every column, its dtype, unit and meaning."""

from __future__ import annotations

from netlab.schemas.connections import (
    CONNECTIONS as CONNECTIONS,
    COST as COST,
    DELTAS as DELTAS,
    DROPS as DROPS,
    EVENTS as EVENTS,
    LISTENERS as LISTENERS,
)
from netlab.schemas.conntrack import (
    CONNTRACK as CONNTRACK,
    CONNTRACK_EVENTS as CONNTRACK_EVENTS,
    CONNTRACK_STATS as CONNTRACK_STATS,
    NAT as NAT,
)
from netlab.schemas.fleet import FLEET_DELTAS as FLEET_DELTAS, JOINED as JOINED
from netlab.schemas.host import DOCTOR as DOCTOR
from netlab.schemas.paths import (
    COMPARISON as COMPARISON,
    HOP_STATS as HOP_STATS,
    HOPS as HOPS,
    PATH_CHANGES as PATH_CHANGES,
    PATH_METRICS as PATH_METRICS,
    PATH_MTU as PATH_MTU,
    PATH_RUNS as PATH_RUNS,
    VERDICTS as VERDICTS,
)
from netlab.schemas.requests import (
    DNS as DNS,
    DNS_STATS as DNS_STATS,
    NAMES as NAMES,
    PROTOCOL_STATS as PROTOCOL_STATS,
    REQUEST_STATS as REQUEST_STATS,
    REQUESTS as REQUESTS,
    TLS as TLS,
)
from netlab.schemas.routing import EXPLANATION as EXPLANATION, GATEWAY as GATEWAY, ROUTES as ROUTES

ALL = {
    schema.name: schema
    for schema in (
        CONNECTIONS,
        DELTAS,
        EVENTS,
        LISTENERS,
        REQUESTS,
        REQUEST_STATS,
        PROTOCOL_STATS,
        TLS,
        DNS,
        DNS_STATS,
        NAMES,
        CONNTRACK,
        NAT,
        CONNTRACK_EVENTS,
        CONNTRACK_STATS,
        ROUTES,
        GATEWAY,
        EXPLANATION,
        HOPS,
        PATH_MTU,
        PATH_METRICS,
        HOP_STATS,
        PATH_RUNS,
        PATH_CHANGES,
        VERDICTS,
        COMPARISON,
        DROPS,
        COST,
        JOINED,
        FLEET_DELTAS,
        DOCTOR,
    )
}


def as_markdown() -> str:
    """Return every schema as a Markdown document: `docs/schemas.md`."""
    parts = ["# Columns\n", "Made by `python -m netlab.schemas`. Missing values are `NA` in every column."]
    for schema in ALL.values():
        parts += [f"\n## {schema.name}\n", "| column | dtype | unit | meaning |", "|---|---|---|---|"]
        for column in schema.columns:
            meaning = column.meaning.replace("|", "\\|")
            parts.append(f"| `{column.name}` | {column.kind.value} | {column.unit} | {meaning} |")
    return "\n".join(parts) + "\n"
