"""`netlab.fleet.joined()`: the two ends of each connection, from two hosts, as one row.

Both ends are brought to the tuple that is on the wire between their hosts, with the client's end first. The
same tuple names the same connection if both ends were there at the same time.
"""

from __future__ import annotations

from dataclasses import asdict

import pandas as pd

from netlab import checks
from netlab.errors import BadInput
from netlab.frames import Gap, Missing, known_gaps
from netlab.schemas import CONNECTIONS, DELTAS, JOINED

_TUPLE = ["protocol", "address_a", "port_a", "address_b", "port_b"]  # a is the client's end
_KEY = [*_TUPLE, "scope"]
_LOOPBACK = r"(?:127\.|::1$)"
_TOLD = [
    "netns", "pid", "process", "container", "opened_at", "closed_at", "error", "bytes_sent",
    "bytes_received", "retransmits", "rtt_ms", "cookie",
]  # fmt: skip
_PLACES = {  # of each end's addresses in the joined frame
    "client": ("client_address", "client_port", "service_address", "service_port"),
    "server": ("server_address", "server_port", "peer_address", "peer_port"),
}
_ENDS = ["local_address", "local_port", "remote_address", "remote_port"]
_ENTRY = {
    **dict(zip(["src", "sport", "dst", "dport"], _TUPLE[1:], strict=True)),
    **dict(
        zip(
            ["reply_dst", "reply_dport", "reply_src", "reply_sport"],
            [f"new_{name}" for name in _TUPLE[1:]],
            strict=True,
        )
    ),
}
_MOST_GATEWAYS = 8


@checks.options
def joined(
    connections: pd.DataFrame, *, nat: pd.DataFrame | None = None, clock_skew_s: float = 1.0
) -> pd.DataFrame:
    """Put the two ends of each connection into one row.

    Parameters
    ----------
    connections
        What `Fleet.connections`, `FleetCapture.connections` or `netlab.merge` has: connections with `host`.
        Made with `nat=True`, they are joined through what their own hosts translate.
    nat
        What `Fleet.nat` returned: they are then joined through what the fleet's gateways translate, too.
    clock_skew_s
        How much the hosts' clocks may differ, in seconds: that long before it opens and after it closes, an
        end may still belong to another with its tuple.

    Returns
    -------
    DataFrame
        As `netlab.schemas.JOINED`: connections with both ends, then clients and servers without the other.
        The coverage counts the ends that fitted several others, or others at another time only, which stay
        alone, and those that are left out because nothing tells who opened the connection. It has the gaps of
        *nat*, too.

    Raises
    ------
    BadInput
        If the frame has no connections, or no column `host`.

    Examples
    --------
    >>> import netlab
    >>> from netlab.fleet import joined
    >>> joined(netlab.connections().assign(host="here"))["client_host"].isin(["here"]).dtype
    dtype('bool')
    """
    _check(connections, nat)
    skew = pd.Timedelta(seconds=checks.positive("clock_skew_s", clock_skew_s, unit="seconds"))
    clients, servers = (_ends(connections, role) for role in _PLACES)
    unclear = 0
    if nat is not None:
        clients, unclear = _beyond(clients, nat)
    whole = [ends.dropna(subset=_TUPLE) for ends in (clients, servers)]
    pairs = whole[0].merge(whole[1], on=_KEY, suffixes=("_c", "_s"))
    apart = (pairs["opened_at_c"] > pairs["closed_at_s"] + skew) | (
        pairs["opened_at_s"] > pairs["closed_at_c"] + skew
    )  # what is not known is no reason
    parted, pairs = pairs[apart], pairs[~apart]
    doubtful = pairs["row_c"].duplicated(keep=False) | pairs["row_s"].duplicated(keep=False)
    sure = pairs.loc[~doubtful, ["row_c", "row_s"]]
    both = pd.concat(
        [
            _columns(connections, "client").loc[sure["row_c"]].reset_index(drop=True),
            _columns(connections, "server").loc[sure["row_s"]].reset_index(drop=True),
        ],
        axis="columns",
    )
    alone = [
        _columns(connections, role).loc[ends.loc[~ends["row"].isin(sure[row]), "row"]]
        for role, ends, row in (("client", clients, "row_c"), ("server", servers, "row_s"))
    ]
    found = pd.concat([both.loc[:, ~both.columns.duplicated()], *alone], ignore_index=True)
    found["ends"] = ["both"] * len(both) + ["client"] * len(alone[0]) + ["server"] * len(alone[1])
    for near, far in (("client", "server"), ("server", "client")):
        found[f"to_{far}_bytes_difference"] = found[f"{near}_bytes_sent"] - found[f"{far}_bytes_received"]
    frame = JOINED.frame({str(name): found[name] for name in found})
    frame.attrs["coverage"] = [
        *known_gaps(connections),
        *_lacking(nat),
        *map(asdict, _missing(connections, pairs[doubtful], _ends_of(parted, but=pairs), skew, unclear)),
    ]
    return frame


def _check(connections: object, nat: object) -> None:
    needed = {"host", "direction", "protocol", *_ENDS, *_TOLD}
    if not isinstance(connections, pd.DataFrame) or not needed <= {*connections.columns}:
        raise BadInput(
            "joined() takes connections with a column 'host'",
            fix="Pass what Fleet.connections(nat=True) returned, or netlab.merge(...)['connections']",
        )
    checks.kind(
        "joined()",
        connections,
        (CONNECTIONS.name, DELTAS.name),
        fix="Pass what Fleet.connections(nat=True) returned",
    )
    if nat is not None and not (isinstance(nat, pd.DataFrame) and {*_ENTRY, "protocol"} <= {*nat.columns}):
        raise BadInput("nat is no frame of translations", fix="Pass what Fleet.nat() returned")


def _side(role: str) -> str:
    return "outgoing" if role == "client" else "incoming"


def _ends(connections: pd.DataFrame, role: str) -> pd.DataFrame:
    """Return the ends of one role: which `row` each is, and its tuple on the wire, the client's end first."""
    chosen = connections.reset_index(drop=True)
    chosen = chosen[chosen["direction"] == _side(role)]
    wire = pd.DataFrame(
        {name: chosen.get(f"nat_{name}", chosen[name]).fillna(chosen[name]) for name in _ENDS}
    )
    first, second = ("local", "remote") if role == "client" else ("remote", "local")
    found = pd.DataFrame(
        {
            "protocol": chosen["protocol"].astype("string"),
            "address_a": wire[f"{first}_address"],
            "port_a": wire[f"{first}_port"],
            "address_b": wire[f"{second}_address"],
            "port_b": wire[f"{second}_port"],
            "row": chosen.index,
            "opened_at": chosen["opened_at"],
            "closed_at": chosen["closed_at"],
        }
    )
    own = chosen["host"] + " " + chosen["netns"].astype("string").fillna("")
    loops = found["address_a"].str.match(_LOOPBACK) & found["address_b"].str.match(_LOOPBACK)
    found["scope"] = own.where(loops.fillna(value=False), "")
    return found


def _beyond(clients: pd.DataFrame, nat: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Return the clients' ends with the tuples that they have beyond the gateways that translate them.

    The number is how many of them several entries translate in different ways, which are left as they are.
    """
    entries = nat.rename(columns=_ENTRY)[["protocol", *_ENTRY.values()]].astype({"protocol": "string"})
    entries = entries.dropna().drop_duplicates()
    contested = entries.duplicated(subset=_TUPLE, keep=False)  # whose it is, is open
    unclear = entries.loc[contested, _TUPLE].drop_duplicates()
    entries = entries[~contested]
    for _ in range(_MOST_GATEWAYS):
        after = clients.merge(entries, on=_TUPLE, how="left").set_index(clients.index)
        changed = {
            name: after[f"new_{name}"].where(after["new_address_a"].notna(), clients[name])
            for name in _TUPLE[1:]
        }
        if after["new_address_a"].isna().all():
            break
        clients = clients.assign(**changed)
    return clients, len(clients.merge(unclear, on=_TUPLE))


def _lacking(nat: pd.DataFrame | None) -> list[dict[str, object]]:
    """Return the gaps of the translations: what a gateway that gave no answer translates is not followed."""
    gaps = [] if nat is None else known_gaps(nat)
    return [gap | {"what": f"nat: {gap['what']}"} for gap in gaps]


def _ends_of(pairs: pd.DataFrame, *, but: pd.DataFrame) -> int:
    """Return how many ends are in *pairs*, those left out that are in other pairs, too."""
    return sum(pairs.loc[~pairs[row].isin(but[row]), row].nunique() for row in ("row_c", "row_s"))


def _columns(connections: pd.DataFrame, role: str) -> pd.DataFrame:
    """Return the columns of one end in the joined frame, for every row."""
    told = connections.reset_index(drop=True)
    places = dict(zip(_ENDS, _PLACES[role], strict=True))
    names = {"protocol": "protocol", "host": f"{role}_host", **places}
    return told.rename(columns={**names, **{name: f"{role}_{name}" for name in _TOLD}})[
        [*names.values(), *(f"{role}_{name}" for name in _TOLD)]
    ]


def _missing(
    connections: pd.DataFrame, doubtful: pd.DataFrame, parted: int, skew: pd.Timedelta, unclear: int
) -> list[Missing]:
    ends = doubtful["row_c"].nunique() + doubtful["row_s"].nunique()
    sides = connections["direction"].isin([_side(role) for role in _PLACES])
    unknown = int((~sides & connections["remote_address"].notna()).sum())
    several = "their tuple and time fit several ends, for example where two workers list one host's sockets"
    neither = "nothing tells which end opened the connection"
    elsewhen = (
        f"another end has their tuple, more than {skew.total_seconds():g} s before or after: where the "
        "hosts' clocks differ by more, pass clock_skew_s="
    )
    ways = "gateways translate their tuple in different ways, so that it is not followed"
    return [
        Missing(what, kind, count, detail)
        for what, kind, count, detail in (
            ("the other end", Gap.UNAVAILABLE, ends, several),
            ("the other end", Gap.UNAVAILABLE, parted, elsewhen),
            ("the other end", Gap.UNAVAILABLE, unclear, ways),
            ("connections of unknown direction", Gap.UNAVAILABLE, unknown, neither),
        )
        if count
    ]
