"""Frames worth drawing, and eyes for what is drawn."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox, BboxBase

from netlab.frames import Missing
from netlab.schemas import CONNECTIONS, HOPS

START_NS = 1_763_688_632_123_456_789
Hop = Sequence[str] | None  # the addresses that answer at a TTL, in turn; None is silence


def trace(
    path: Sequence[Hop],
    *,
    target: str = "db.example",
    runs: int = 3,
    lost: Sequence[tuple[int, int]] = (),
    names: dict[str, str] | None = None,
    reached: bool = True,
    rtt_ms: Callable[[int], float] = lambda ttl: 3.0 * ttl,
    missing: Sequence[Missing] = (),
) -> pd.DataFrame:
    """Return the hops of *runs* traces along *path*; *lost* has the (run, ttl) that got no answer."""
    rows = []
    for run, (ttl, who) in itertools.product(range(runs), enumerate(path, start=1)):
        address = None if who is None or (run, ttl) in lost else who[run % len(who)]
        rows.append(
            {
                "target": target,
                "target_address": (path[-1] or ["192.0.2.99"])[0],
                "run": run,
                "flow": 0,
                "ttl": ttl,
                "attempt": 0,
                "address": address,
                "name": (names or {}).get(address or ""),
                "rtt_ms": None if address is None else rtt_ms(ttl) * (1 + run / 10),
                "reply": None if address is None else "time-exceeded",
                "reached": None if address is None else reached and ttl == len(path),
                "sent_at": pd.Timestamp(START_NS + run, tz="UTC"),
                "protocol": "udp",
                "port": 33434,
            }
        )
    columns = list(rows[0]) if rows else []
    return HOPS.frame({name: [row[name] for row in rows] for name in columns}, missing)


def attempts(rows: Sequence[dict[str, Any]], missing: Sequence[Missing] = ()) -> pd.DataFrame:
    """Return connections; `at_s` and `end_s` are when a row opened and closed, `age_s` its age if open."""
    whole = [
        {
            "protocol": "tcp",
            "direction": "outgoing",
            "process": "curl",
            "remote_address": "192.0.2.1",
            "remote_port": 443,
        }
        | {key: value for key, value in row.items() if not key.endswith("_s")}
        | {
            "opened_at": _time(row.get("at_s")),
            "closed_at": _time(row.get("end_s")),
            "duration_s": row["end_s"] - row["at_s"] if {"at_s", "end_s"} <= set(row) else row.get("age_s"),
        }
        for row in rows
    ]
    names = {name for row in whole for name in row}
    return CONNECTIONS.frame({name: [row.get(name) for row in whole] for name in names}, missing)


def _time(after_s: float | None) -> Any:
    return pd.NaT if after_s is None else pd.Timestamp(START_NS + round(after_s * 1e9), tz="UTC")


def texts(picture: Figure) -> list[Text]:
    """Return every text that can be seen, laid out by the Agg renderer."""
    picture.canvas.draw()  # ticks are made when drawing
    found = [*picture.texts]
    for axes in picture.axes:
        found += axes.texts
        if axes.axison:
            found += [axes.xaxis.label, *axes.get_xticklabels()]
    return [text for text in found if text.get_visible() and text.get_text().strip()]


def words(picture: Figure) -> list[str]:
    """Return what is written in the picture."""
    return [text.get_text() for text in texts(picture)]


def place(text: Text) -> Bbox:
    """Return where *text* is, in pixels."""
    return text.get_window_extent()


def assert_legible(picture: Figure) -> None:
    """Fail when two texts overlap, one leaves the picture, or one beside a plot runs into it."""
    found = [(text.get_text(), place(text)) for text in texts(picture)]
    for (one, here), (other, there) in itertools.combinations(found, 2):
        assert not _overlap(here, there), f"{one!r} overlaps {other!r}"
    for text, box in found:
        inside = box.x0 >= 0 and box.y0 >= 0 and box.x1 <= picture.bbox.x1 and box.y1 <= picture.bbox.y1
        assert inside, f"{text!r} leaves the picture"
    for axes in picture.axes:
        for label in picture.texts if axes.axison else []:
            assert not _overlap(place(label), axes.bbox), f"{label.get_text()!r} runs into the plot"


def _overlap(one: BboxBase, other: BboxBase) -> bool:
    wide = min(one.x1, other.x1) - max(one.x0, other.x0)
    high = min(one.y1, other.y1) - max(one.y0, other.y0)
    return wide > 1 and high > 1  # of 144 dots per inch
