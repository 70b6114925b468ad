"""What conntrack(8) prints with `-o extended,id,labels`, by the names of netlab's columns."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ctxml
import pandas as pd

LINE = re.compile(
    r"ipv(?P<family>\d) +\d+ (?P<name>\w+) +(?P<number>\d+) (?P<timeout_s>\d+) "
    r"(?P<state>[A-Z]\w+ )?(?P<rest>.*)"
)


def listed(space: str, etc: Path) -> dict[int, dict[str, Any]]:
    """Return the entries of a namespace by id."""
    text = ctxml.listing(space, etc, "extended,id,labels")
    return {int(entry["id"]): entry for entry in map(parsed, text.splitlines())}


def parsed(line: str) -> dict[str, Any]:
    found = LINE.match(line)
    assert found, line
    entry: dict[str, Any] = found.groupdict() | {"line": line}
    entry["flags"] = set(re.findall(r"\[(\w+)\]", found["rest"]))
    for key, value in re.findall(r"([\w-]+)=(\S+)", found["rest"]):
        name = {"srckey": "sport", "dstkey": "dport"}.get(key, key)
        entry[f"reply_{name}" if name in entry else name] = value
    if "type" in entry:  # an ICMP identifier is printed like the entry's own id
        ids = re.findall(r"\bid=(\d+)", found["rest"])
        entry |= {"sport": ids[0], "reply_sport": ids[1], "id": ids[2]}
    else:
        entry["id"] = re.findall(r"\bid=(\d+)", found["rest"])[-1]
    if entry["name"] == "dccp" and not entry["state"]:
        entry = {name: value for name, value in entry.items() if "port" not in name}  # it prints 0 for absent
    return entry


def number(entry: dict[str, Any], name: str) -> int | None:
    return int(entry[name], 0) if entry.get(name) is not None else None


def text(entry: dict[str, Any], name: str) -> str | None:
    value = entry.get(name)
    return value.strip() if value else None


def zone_direction(entry: dict[str, Any]) -> str | None:
    return "original" if "zone-orig" in entry else "reply" if "zone-reply" in entry else None


def labels(entry: dict[str, Any]) -> str | None:
    names = {name: str(bit) for bit, name in ctxml.LABELS.items()}
    return "|".join(names[name] for name in entry["labels"].split(",")) if entry.get("labels") else None


COLUMNS: dict[str, Callable[[dict[str, Any]], object]] = {
    **{
        name: lambda entry, name=name: number(entry, name)
        for name in (
            "family", "sport", "dport", "reply_sport", "reply_dport", "packets", "bytes", "reply_packets",
            "reply_bytes", "mark", "use", "id",
        )
    },
    **{
        name: lambda entry, name=name: text(entry, name)
        for name in ("src", "dst", "reply_src", "reply_dst", "state", "helper")
    },
    "protocol": lambda entry: entry["name"] if entry["name"] != "unknown" else entry["number"],
    "zone": lambda entry: int(entry.get("zone", entry.get("zone-orig", entry.get("zone-reply", 0)))),
    "zone_direction": zone_direction,
    "icmp_type": lambda entry: number(entry, "type"),
    "icmp_code": lambda entry: number(entry, "code"),
    "labels": labels,
}  # fmt: skip


def differences(
    frame: pd.DataFrame, truth: dict[int, dict[str, Any]], column: str
) -> dict[int, tuple[object, object]]:
    """Return the entries, by id, of which a column of netlab's frame is not what *truth* says."""
    assert set(frame["id"]) == set(truth)
    pairs = {
        key: (None if pd.isna(value) else value, COLUMNS[column](truth[key]))
        for key, value in zip(frame["id"], frame[column], strict=True)
    }
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}
