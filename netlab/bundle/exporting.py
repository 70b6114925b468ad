"""`netlab.export()`: frames and graphs for tools that know nothing of netlab."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import networkx as nx
import pandas as pd
import pyarrow as pa

from netlab import checks, parquet
from netlab.bundle import archive, tabular
from netlab.bundle.contents import schema_of
from netlab.bundle.graphml import graphml
from netlab.bundle.saving import normalised
from netlab.errors import BadInput, BundleError
from netlab.path.graph import path_graph
from netlab.schemas import CONNECTIONS, DELTAS, HOPS
from netlab.tracer.graph import connection_graph

Files = Mapping[Path, bytes]


@checks.options
def export(
    what: pd.DataFrame | nx.Graph[Any], path: str | os.PathLike[str], /, *, overwrite: bool = False
) -> Path:
    """Write a frame or a graph in the format that the name of the file asks for.

    Parameters
    ----------
    what
        A frame as netlab returned it, or a graph.
    path
        Ends in ``.csv``, ``.arrow`` (Arrow IPC, also known as Feather), ``.parquet`` or ``.graphml``. Of
        frames of connections or hops GraphML has the graph.
    overwrite
        Replace files that are there already.

    Returns
    -------
    Path
        The file. Beside a CSV file there is another, ``NAME.csv-metadata.json``, with the units, types and
        meanings of its columns and the frame's coverage, which the other formats have in themselves.

    Raises
    ------
    BadInput
        If this cannot be written in that format.
    BundleError
        If a file exists, or cannot be written.

    Notes
    -----
    The metadata of CSV is that of the W3C's "CSV on the Web". Text is not changed for spreadsheets, which may
    take a process called ``=1+1`` for a formula.

    Examples
    --------
    >>> import netlab
    >>> netlab.export(netlab.connections(), "/tmp/connections.csv", overwrite=True)
    PosixPath('/tmp/connections.csv')
    """
    target = checks.path(path)
    checks.flag("overwrite", overwrite)
    make = _MAKERS.get(target.suffix)
    if make is None:
        raise BadInput(
            f"{target.name!r} does not end in a format that is known", fix=f"Known: {', '.join(_MAKERS)}"
        )
    files = make(what, target)
    for file in files:
        if file.exists() and not overwrite:
            raise BundleError(f"{file} exists already", fix="Choose another name, or pass overwrite=True")
    for file, data in files.items():
        with archive.replacing(file) as temporary:
            temporary.write_bytes(data)
    return target


def _csv(frame: Any, path: Path) -> Files:
    typed = normalised(frame)
    beside = path.with_name(f"{path.name}-metadata.json")
    return {beside: tabular.metadata(typed, path.name), path: tabular.as_csv(typed)}


def _arrow(frame: Any, path: Path) -> Files:
    typed = normalised(frame)
    table, out = parquet.as_arrow(typed, schema_of(typed)), io.BytesIO()
    with pa.ipc.new_file(out, table.schema) as writer:
        writer.write_table(table)
    return {path: out.getvalue()}


def _parquet(frame: Any, path: Path) -> Files:
    typed = normalised(frame)
    return {path: parquet.write(typed, schema_of(typed))}


def _graphml(what: Any, path: Path) -> Files:
    if isinstance(what, nx.Graph):
        return {path: graphml(what)}
    kind = what.attrs.get("schema") if isinstance(what, pd.DataFrame) else None
    if kind == HOPS.name:
        return {path: graphml(path_graph(what))}
    if kind in {CONNECTIONS.name, DELTAS.name}:
        return {path: graphml(connection_graph(what))}
    raise BadInput("only graphs and frames of connections and hops can be GraphML", fix="Export it as .csv")


_MAKERS: dict[str, Callable[[Any, Path], Files]] = {
    ".csv": _csv,
    ".arrow": _arrow,
    ".parquet": _parquet,
    ".graphml": _graphml,
}
