"""What conntrack(8) says in XML, which has what its text drops: nanoseconds, and each direction's zone."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pandas as pd

LABELS = {5: "five", 127: "last"}

# What can be compared exactly. The timeout runs down between two listings; ICMP types are not in the XML.
COLUMNS = (
    "protocol", "family", "src", "sport", "dst", "dport", "reply_src", "reply_sport", "reply_dst",
    "reply_dport", "state", "packets", "bytes", "reply_packets", "reply_bytes", "mark", "zone",
    "zone_direction", "labels", "helper", "secctx", "started_at", "use", "id",
)  # fmt: skip

# What conntrack-tools 1.4.7 leaves out for a protocol, or says wrongly: it names an SCTP state as if it were
# one of TCP, and prints ports of 0 where the kernel does not look into DCCP.
_UNSAID = {
    "icmp": ("sport", "reply_sport"),
    "icmpv6": ("sport", "reply_sport"),
    "sctp": ("state",),
    "dccp": ("sport", "dport", "reply_sport", "reply_dport"),
}


def label_names(etc: Path) -> Path:
    """Make *etc* the directory from which conntrack(8) takes the names of labels."""
    (etc / "xtables").mkdir(parents=True)
    names = "".join(f"{bit} {name}\n" for bit, name in LABELS.items())
    (etc / "xtables" / "connlabel.conf").write_text(names)
    return etc


def listing(space: str, etc: Path, output: str) -> str:
    """Return what conntrack(8) prints of a namespace, with /etc replaced by *etc*."""
    command = f"mount --bind {etc} /etc && nsenter --net=/run/netns/{space} conntrack -L -o {output}"
    run = subprocess.run(["unshare", "-m", "sh", "-c", command], text=True, check=True, capture_output=True)
    return run.stdout


def listed(space: str, etc: Path) -> dict[int, dict[str, Any]]:
    """Return the entries of a namespace by id: values by the names of columns, and what else is said."""
    text = listing(space, etc, "xml,id,labels,ktimestamp")
    entries = [_entry(flow) for flow in ET.fromstring(text).findall("flow")]  # noqa: S314 - our own
    return {entry["id"]: entry for entry in entries}


def _entry(flow: ET.Element) -> dict[str, Any]:
    parts = {part.get("direction"): part for part in flow.findall("meta")}
    both = parts["independent"]
    layer = parts["original"].find("layer4")
    assert layer is not None
    name = layer.get("protoname")
    entry: dict[str, Any] = {
        "protocol": layer.get("protonum") if name == "unknown" else name,
        "family": {"ipv4": 4, "ipv6": 6}[str(parts["original"].find("layer3").get("protoname"))],  # type: ignore[union-attr]
        "state": both.findtext("state"),
        "labels": _labels(both),
        "helper": flow.findtext("helper"),
        "secctx": both.findtext("secctx"),
        "started_at": _number(both, "timestamp/start"),
        "assured": both.find("assured") is not None,
        "unreplied": both.find("unreplied") is not None,
        **{name: _number(both, name) for name in ("mark", "use", "id", "timeout")},
    }
    for direction, prefix in (("original", ""), ("reply", "reply_")):
        part = parts[direction]
        entry |= {f"{prefix}{end}": part.findtext(f"layer3/{end}") for end in ("src", "dst")}
        entry |= {f"{prefix}{what}": _number(part, f"counters/{what}") for what in ("packets", "bytes")}
        for port, key in (("sport", "srckey"), ("dport", "dstkey")):
            found = _number(part, f"layer4/{port}")
            entry[prefix + port] = _number(part, f"layer4/{key}") if found is None else found
    entry |= _zone(parts)
    return {column: value for column, value in entry.items() if column not in _UNSAID.get(str(name), ())}


def _zone(parts: dict[str | None, ET.Element]) -> dict[str, Any]:
    found = {direction: _number(part, "zone") for direction, part in parts.items()}
    for direction in ("original", "reply"):
        if found[direction] is not None:
            return {"zone": found[direction], "zone_direction": direction}
    return {"zone": found["independent"] or 0, "zone_direction": None}


def _labels(part: ET.Element) -> str | None:
    bits = {name: bit for bit, name in LABELS.items()}
    found = [bits[str(label.text)] for label in part.findall("labels/label")]
    return "|".join(map(str, sorted(found))) or None


def _number(part: ET.Element, place: str) -> int | None:
    text = part.findtext(place)
    return None if text is None else int(text, 0)


def differences(frame: pd.DataFrame, space: str, etc: Path, column: str) -> dict[int, tuple[object, object]]:
    """Return the entries, by id, of which a column of netlab's frame is not what the XML says."""
    truth = listed(space, etc)
    assert set(frame["id"]) == set(truth)
    pairs = {
        key: (_plain(value), truth[key][column])
        for key, value in zip(frame["id"], frame[column], strict=True)
        if column in truth[key]
    }
    assert len(pairs) >= 10
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def _plain(value: Any) -> object:
    """Return a time as nanoseconds since 1970, and None for what is missing."""
    if pd.isna(value):
        return None
    return value.value if isinstance(value, pd.Timestamp) else value
