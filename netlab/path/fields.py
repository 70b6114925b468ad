"""The fields of the NetworkPath payload, and what a payload is held against before it is believed."""

from __future__ import annotations

import ipaddress
import math
import tomllib
from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import cache
from importlib import resources
from typing import Any

from netlab.errors import BadInput

_FIX = "Give a NetworkPath payload: netlab/path/network_path.toml lists its fields"


class Layout(StrEnum):
    """Which year's agent writes a payload so."""

    HOPS = "2024"
    ORIGIN = "2025"
    RUNS = "2026"


def layout_of(payload: Mapping[str, Any]) -> Layout:
    """Return the layout that *payload* can only be of."""
    if "traceroute" in payload:
        return Layout.RUNS
    if "hops" not in payload:
        raise BadInput("this is no NetworkPath payload: it has neither `traceroute` nor `hops`", fix=_FIX)
    hops = payload["hops"] if isinstance(payload["hops"], list) else []
    older = "path_id" in payload or any(isinstance(hop, Mapping) and "success" in hop for hop in hops)
    return Layout.HOPS if older else Layout.ORIGIN


@cache
def _fields() -> dict[str, Any]:
    text = resources.files("netlab.path").joinpath("network_path.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def check(payload: Mapping[str, Any], layout: Layout) -> None:
    """Refuse *payload* if a field of *layout* is missing or cannot be right, naming it.

    Fields that the layout does not have pass: newer agents write more.
    """
    _check_table(payload, _fields()[layout], "")


def known(layout: Layout, *table: str) -> list[str]:
    """Return the names of the fields in a table of *layout*."""
    fields = _fields()[layout]
    for name in table:
        fields = fields[name]
    return list(fields)


def _check_table(found: Any, fields: Mapping[str, Any], where: str) -> None:
    if not isinstance(found, Mapping):
        raise _wrong(where, found, "a table")
    for name, kind in fields.items():
        _check_field(found.get(name), kind, f"{where}.{name}" if where else name)


def _check_field(found: Any, kind: Any, where: str) -> None:
    if isinstance(kind, str):
        _check_value(found, kind, where)
    elif found is None:
        if isinstance(kind, Mapping) and _is_needed(kind):
            _check_table({}, kind, where)
    elif isinstance(kind, Mapping):
        _check_table(found, kind, where)
    elif not isinstance(found, list):
        raise _wrong(where, found, "a list")
    else:
        for number, element in enumerate(found):
            _check_field(element, kind[0], f"{where}[{number}]")


def _check_value(found: Any, kind: str, where: str) -> None:
    if found is None and kind.endswith("?"):
        return
    name = kind.rstrip("?")
    if not _KINDS[name](found):
        raise _wrong(where, found, _WORDS[name])


def _is_needed(fields: Mapping[str, Any]) -> bool:
    return any(isinstance(kind, str) and not kind.endswith("?") for kind in fields.values())


def _wrong(where: str, found: object, wanted: str) -> BadInput:
    what = "is missing" if found is None else f"is {str(found)[:60]!r}, which is not {wanted}"
    return BadInput(f"{where or 'the payload'} {what}", fix=_FIX)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and not any("\ud800" <= letter <= "\udfff" for letter in value)


def _is_whole(low: int, high: float) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_real(value: Any) -> bool:
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
    )


def is_address(value: Any) -> bool:
    """Tell whether *value* is the text of an IP address."""
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return False
    return isinstance(value, str)


def _is_hop(value: Any) -> bool:
    return isinstance(value, str) and (not value or value.startswith(_UNKNOWN) or is_address(value))


_LAST_MS = (2**63 - 1) // 10**6
_UNKNOWN = "unknown_hop_"  # the layout of 2024 has a word where nobody answered, the others nothing
PROTOCOLS = ("UDP", "TCP", "ICMP")
_KINDS: dict[str, Callable[[Any], bool]] = {
    "text": _is_text,
    "whole": _is_whole(0, 2**63 - 1),
    "time": _is_whole(0, _LAST_MS),
    "real": _is_real,
    "flag": lambda value: isinstance(value, bool),
    "port": _is_whole(0, 65535),
    "ttl": _is_whole(1, 255),
    "address": is_address,
    "hop_address": _is_hop,
    "protocol": lambda value: isinstance(value, str) and value in PROTOCOLS,
}
_WORDS = {
    "text": "text",
    "whole": "a whole number from 0",
    "time": "a whole number of milliseconds before the year 2262",
    "real": "a number from 0",
    "flag": "true or false",
    "port": "a port",
    "ttl": "a TTL from 1 to 255",
    "address": "an IP address",
    "hop_address": "an IP address",
    "protocol": f"one of {', '.join(PROTOCOLS)}",
}
