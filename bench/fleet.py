"""Ten million recorded rows of a fleet, added up with less memory than they take.

The reading process may have 2 GiB of data and no more (RLIMIT_DATA, setrlimit(2)): beyond that an allocation
fails, and the measurement with it.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from netlab.fleet.recording import write
from netlab.schemas import DELTAS

HOSTS, HOURS, ROWS = 8, 5, 250_000  # rows are of one file, an hour of one host
LIMIT_BYTES = 2 << 30


def deltas(chance: np.random.Generator) -> pd.DataFrame:
    """Return made-up rows with every column that a capture fills."""
    names = pd.array([f"worker-{number}" for number in range(200)], dtype="string")
    addresses = pd.array([f"10.0.{n // 256}.{n % 256}" for n in range(20_000)], dtype="string")
    numbers = {
        column.name: chance.integers(0, 1 << 20, ROWS) for column in DELTAS.columns if column.kind == "Int64"
    }
    reals = {column.name: chance.random(ROWS) for column in DELTAS.columns if column.kind == "Float64"}
    words = {
        "protocol": np.array(["tcp", "udp"])[chance.integers(0, 2, ROWS)],
        "direction": np.array(["incoming", "outgoing"])[chance.integers(0, 2, ROWS)],
        "process": names.take(chance.integers(0, len(names), ROWS)),
        "cmdline": names.take(chance.integers(0, len(names), ROWS)),
        "local_address": addresses.take(chance.integers(0, len(addresses), ROWS)),
        "remote_address": addresses.take(chance.integers(0, len(addresses), ROWS)),
    }
    times = {"opened_at": chance.integers(1 << 60, 1 << 61, ROWS)}
    return DELTAS.frame({**numbers, **reals, **words, **times})


def fill(directory: Path) -> int:
    """Write the dataset; return what it truly adds up to."""
    chance = np.random.default_rng(7)
    first, total = datetime(2026, 11, 21, tzinfo=UTC), 0
    for hour in range(HOURS):
        rows = deltas(chance)
        total += HOSTS * int(rows["delta_bytes_sent"].sum())
        for host in range(HOSTS):
            at = first + timedelta(hours=hour)
            place = directory / f"host=h{host}" / f"hour={at:%Y-%m-%dT%H}"
            place.mkdir(parents=True)
            write(rows, at, place / "bench.parquet")
    return total


def read(directory: str, *, whole: bool) -> None:
    """Add up, by dask or as one frame, within the limit; print what it took."""
    resource.setrlimit(resource.RLIMIT_DATA, (LIMIT_BYTES, LIMIT_BYTES))
    from netlab.fleet import dataset

    begun = time.monotonic()
    by = ["host", "process"]
    if whole:
        table = pd.read_parquet(directory, dtype_backend="numpy_nullable")
        sums = table.groupby(by, observed=True)["delta_bytes_sent"].sum()
    else:
        sums = dataset(directory).groupby(by, observed=True)["delta_bytes_sent"].sum().compute()
    taken = {
        "total": int(sums.sum()),
        "groups": len(sums),
        "seconds": time.monotonic() - begun,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    print(json.dumps(taken))


def measure() -> Iterator[tuple[str, float, str]]:
    with tempfile.TemporaryDirectory() as name:
        total = fill(Path(name))
        rows = HOSTS * HOURS * ROWS
        runs = {
            how: subprocess.run(
                [sys.executable, "-W", "ignore", "-m", "bench.fleet", name, how],
                capture_output=True,
                text=True,
                check=False,
            )
            for how in ("dask", "whole")
        }
    assert runs["dask"].returncode == 0, runs["dask"].stderr
    told = json.loads(runs["dask"].stdout)
    assert (told["total"], told["groups"]) == (total, HOSTS * 200)
    refused = any(word in runs["whole"].stderr for word in ("MemoryError", "malloc", "Cannot allocate"))
    assert refused or not runs["whole"].returncode, runs["whole"].stderr
    failed = "is refused memory" if refused else "works, too"
    used_mib = told["peak_bytes"] >> 20
    yield (
        "fleet: peak memory of adding up 10 million rows with dask / 2 GiB",
        told["peak_bytes"] / LIMIT_BYTES,
        f"{rows:,} rows, {used_mib} MiB, {told['seconds']:.1f} s; as one frame it {failed}",
    )


if __name__ == "__main__":
    read(sys.argv[1], whole=sys.argv[2] == "whole")
