"""Runs as the frame of hops, with an account of what it lacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from netlab.frames import Gap, Missing
from netlab.path.origin import Origin
from netlab.path.state import DESTINATION, Run, timing
from netlab.path.target import Target
from netlab.schemas import HOPS


def frame(
    runs: Sequence[Run],
    target: Target,
    protocol: str,
    ports: Mapping[int, tuple[int | None, int | None]],
    origin: Origin,
    *,
    method: str = "raw",
    missing: Sequence[Missing] = (),
    names: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Return one row per probe up to the end of the path, by run, TTL and attempt.

    *ports* has the source and the destination port of each flow.
    """
    rows = [(run.number, probe, answer) for run in runs for probe, answer in run.reported()]
    probes = [probe for _, probe, _ in rows]
    answers = [answer for *_, answer in rows]
    times = [timing(p, a) if a else None for p, a in zip(probes, answers, strict=True)]
    constant = origin.columns() | {
        "target": target.name,
        "target_address": target.address,
        "protocol": protocol,
        "family": target.family,
        "method": method,
    }
    data = {name: [value] * len(rows) for name, value in constant.items()} | {
        "run": [number for number, *_ in rows],
        "flow": [probe.flow for probe in probes],
        "source_port": [ports[probe.flow][0] for probe in probes],
        "port": [ports[probe.flow][1] for probe in probes],
        "ttl": [probe.ttl for probe in probes],
        "attempt": [probe.attempt for probe in probes],
        "address": [a.address if a else None for a in answers],
        "name": [(names or {}).get(a.address) if a else None for a in answers],
        "rtt_ms": [t[0] / 10**6 if t else None for t in times],
        "reply": [a.reply if a else None for a in answers],
        "reached": [a.reply in DESTINATION if a else None for a in answers],
        "sent_at": np.array([probe.wall_ns for probe in probes], np.int64),
        "reply_ttl": [a.ttl if a else None for a in answers],
        "reply_id": [a.identification if a else None for a in answers],
        "clock": [t[1].value if t else None for t in times],
    }
    return HOPS.frame(data, missing=[*gaps(runs), *origin.missing(), *missing])


def gaps(runs: Sequence[Run]) -> list[Missing]:
    """Return what the runs do not tell although the network might have."""
    early = sum(run.given_up_early for run in runs)
    unplaced = sum(run.unplaced for run in runs)
    found = []
    if early:
        found.append(
            Missing(
                "late answers",
                Gap.INCOMPLETE,
                early,
                "silent probes waited for less than timeout_s, because later hops had answered long before",
            )
        )
    if unplaced:
        found.append(
            Missing(
                "answers",
                Gap.UNSEEN,
                unplaced,
                "they do not say which probe they are for, so their hop is not known",
            )
        )
    return found
