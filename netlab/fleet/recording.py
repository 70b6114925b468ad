"""`Fleet.record()`: what a capture on many hosts sees, as a growing Parquet dataset on this one.

::

    directory/_coverage.jsonl                        what was missing, whenever that changed
    directory/host=db1/hour=2026-11-21T18/*.parquet  one file a look, whole as soon as it is there
"""

from __future__ import annotations

import json
import os
import secrets
import threading
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from netlab import checks, parquet
from netlab.columns import Kind
from netlab.errors import BadInput, BundleError, NetlabError
from netlab.fleet.captures import FleetCapture
from netlab.frames import COVERAGE_DTYPES, HOST, Gap, Missing
from netlab.schemas import FLEET_DELTAS

if TYPE_CHECKING:
    from dask.dataframe import DataFrame

COVERAGE = "_coverage.jsonl"  # readers of datasets leave out what begins like this
_FILES = "host=*/hour=*/*.parquet"
_CLIENT = "recording"
_BETWEEN = "nobody recorded between two recordings: what connections did then is in no delta"
# Without it a host called 007 would become the number 7.
_PLACES = ds.partitioning(pa.schema([("host", pa.string()), ("hour", pa.string())]), flavor="hive")


class FleetRecording:
    """A capture whose deltas are written as they come; made by `Fleet.record()`.

    `failure` is what kept the last look from being written; it is tried again, and until then the hosts are
    not asked for more.
    """

    def __init__(self, capture: FleetCapture, directory: Path, *, every_s: float) -> None:
        self._capture, self._directory, self._every_s = capture, directory, every_s
        self._name = secrets.token_hex(4)
        self._looks = 0
        self._unwritten: list[tuple[datetime, pd.DataFrame]] = []  # the last look, if that is so
        self._gaps: Any = None  # as they were last written
        self._over = threading.Event()
        self.failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="netlab-fleet-recording", daemon=True)

    def __repr__(self) -> str:
        failing = "" if self.failure is None else f", failing: {self.failure}"
        return f"<netlab recording of a fleet in {self._directory}, {self._looks} looks{failing}>"

    def start(self) -> Self:
        """Start the capture on all hosts and the writing here.

        Raises
        ------
        BadInput
            If the directory cannot be made.
        NetlabError
            If the capture could be started on no host.
        """
        try:
            self._directory.mkdir(exist_ok=True)
        except OSError as error:
            raise BadInput(
                f"cannot write to {self._directory}: {error.strerror}",
                fix="Name a directory, new or of an earlier recording, where this user may write",
            ) from error
        self._capture.start()
        try:
            self._capture.register(_CLIENT)
            self._begin()
        except BaseException:
            self._capture.close()
            raise
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop the capture, write what it saw last, and end; safe to call again.

        Raises
        ------
        BundleError
            If something could not be written; the files that are there are whole.
        """
        if self._over.is_set() or self._thread.ident is None:
            return
        self._over.set()
        self._thread.join()
        try:
            self._write()
            self._capture.stop()
            self._look()
        except OSError as error:
            raise BundleError(
                f"the last look is not in {self._directory}: {error}", fix="Make room before you stop"
            ) from error
        finally:
            self._capture.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _run(self) -> None:
        while not self._over.wait(self._every_s):
            try:
                self._look()
            except Exception as error:  # noqa: BLE001 - it is tried again, and stop() raises what then fails
                self.failure = error
            else:
                self.failure = None

    def _begin(self) -> None:
        """Say when this recording began, and since when nobody had recorded if there was one before."""
        file = self._directory / COVERAGE
        if file.exists():
            until = datetime.fromtimestamp(file.stat().st_mtime, UTC)
            os.truncate(file, file.read_bytes().rfind(b"\n") + 1)  # the rest is of a writer that was killed
            self._note(until, [asdict(Missing("all rows", Gap.UNSEEN, None, _BETWEEN))])
        self._note(datetime.now(UTC), [])

    def _look(self) -> None:
        """Write what is new since the last look; what no host tells now, it tells at the next one."""
        self._write()
        at = datetime.now(UTC)
        try:
            frame = self._capture.delta(_CLIENT)
        except NetlabError as error:
            self._note(at, [{"what": "all rows", "kind": "incomplete", "count": None, "detail": str(error)}])
            return
        self._unwritten = [(at, frame)]
        self._write()

    def _write(self) -> None:
        """Write the last look, if that has not been done; done again, it is the same files."""
        for at, frame in self._unwritten:
            for host, rows in frame.groupby(HOST.name, sort=False):
                place = self._directory / f"host={quote(str(host), safe='')}" / f"hour={at:%Y-%m-%dT%H}"
                place.mkdir(parents=True, exist_ok=True)
                write(rows.drop(columns=HOST.name), at, place / f"{self._name}-{self._looks:06}.parquet")
            self._note(at, frame.attrs["coverage"])
            self._looks += 1
        self._unwritten = []

    def _note(self, at: datetime, gaps: list[dict[str, Any]]) -> None:
        """Write what is missing if that has changed; the time of the file is that of the last look."""
        file = self._directory / COVERAGE
        if gaps != self._gaps:
            line = memoryview(json.dumps({"at": at.isoformat(), "coverage": gaps}).encode() + b"\n")
            with file.open("ab", buffering=0) as out:
                end = out.tell()
                try:
                    while line:
                        line = line[out.write(line) :]
                except BaseException:
                    out.truncate(end)
                    raise  # a line is there as a whole or not at all
            self._gaps = gaps
        os.utime(file, (at.timestamp(), at.timestamp()))


def write(deltas: pd.DataFrame, at: datetime, file: Path) -> None:
    """Write the deltas of one host at one moment; the file is there as a whole or not at all."""
    words = [column.name for column in FLEET_DELTAS.columns if column.kind is Kind.CATEGORY]
    # Words are plain text in the file: categories that differ from file to file fit into no one table.
    rows = deltas.astype(dict.fromkeys(words, "string"))
    rows.insert(0, "at", pd.Series(at, index=rows.index, dtype=Kind.TIME.value))
    fields = parquet.layout(FLEET_DELTAS, list(rows.columns))
    plain = pa.schema(
        field.with_type(pa.large_string()) if field.name in words else field for field in fields
    )
    rows.attrs = {}  # what is missing is said once, in COVERAGE
    table = pa.Table.from_pandas(rows, schema=plain, preserve_index=False)
    unfinished = file.with_name(f".{file.name}.part")
    try:
        pq.write_table(table, unfinished, compression="zstd")
        os.replace(unfinished, file)  # noqa: PTH105 - the name that the system call has
    finally:
        unfinished.unlink(missing_ok=True)


def dataset(directory: str | os.PathLike[str]) -> DataFrame:
    """Open what `Fleet.record` has written, which may be larger than memory, and may still grow.

    Parameters
    ----------
    directory
        As it was given to `Fleet.record`.

    Returns
    -------
    dask.dataframe.DataFrame
        Columns as in `netlab.schemas.FLEET_DELTAS`, then `host` and `hour` (UTC). Nothing is read before
        `compute()`. Add up the `delta_*` columns: the others are of a connection's whole life, as it was at
        each look. Make the fleet's client with `Client(..., set_as_default=False)`: dask else has its workers
        read the files, which are on this host.

    Raises
    ------
    BadInput
        If there is no such dataset.
    CapabilityError
        Without the package `dask`.

    Examples
    --------
    >>> from netlab.fleet import dataset
    >>> dataset("/nowhere")
    Traceback (most recent call last):
      ...
    netlab.errors.BadInput: /nowhere has no recording of a fleet. Give the directory of Fleet.record()
    """
    with checks.needing("fleet", "a dataset needs the package dask"):
        import dask.dataframe as dd
    files = Path(directory, _FILES)
    if next(Path(directory).glob(_FILES), None) is None:
        raise _unrecorded(directory)
    return dd.read_parquet(str(files), dtype_backend="numpy_nullable", dataset={"partitioning": _PLACES})


def gaps(directory: str | os.PathLike[str]) -> pd.DataFrame:
    """Say what a dataset does not contain, and why.

    Parameters
    ----------
    directory
        As it was given to `Fleet.record`.

    Returns
    -------
    DataFrame
        As `netlab.coverage`, with `at`, the look from which on it was so, and `until`, the look at which that
        had changed; missing of what was so at the last one.

    Raises
    ------
    BadInput
        If there is no recording.

    Examples
    --------
    >>> from netlab.fleet import gaps
    >>> gaps("/nowhere")
    Traceback (most recent call last):
      ...
    netlab.errors.BadInput: /nowhere has no recording of a fleet. Give the directory of Fleet.record()
    """
    file = Path(directory, COVERAGE)
    try:
        lines = file.read_text(encoding="utf-8").split("\n")[:-1]  # what comes after is not whole
    except OSError as error:
        raise _unrecorded(directory) from error
    looks = [json.loads(line) for line in lines]
    ends = [look["at"] for look in looks[1:]] + [None]
    rows = [
        {"at": look["at"], "until": until, **gap}
        for look, until in zip(looks, ends, strict=True)
        for gap in look["coverage"]
    ]
    times = {
        name: pd.to_datetime([row[name] for row in rows], utc=True, format="ISO8601")
        for name in ("at", "until")
    }
    found = pd.DataFrame(rows, columns=["at", "until", *COVERAGE_DTYPES]).assign(**times)
    return found.astype({**dict.fromkeys(times, Kind.TIME.value), **COVERAGE_DTYPES})


def _unrecorded(directory: str | os.PathLike[str]) -> BadInput:
    return BadInput(f"{directory} has no recording of a fleet", fix="Give the directory of Fleet.record()")
