"""`netlab.merge()`: the recordings of several hosts as one, every row with its host."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from netlab.bundle.contents import Bundle, Item, schema_of
from netlab.bundle.loading import load
from netlab.bundle.manifest import missing_of
from netlab.bundle.pasts import end_ns
from netlab.bundle.repeats import together
from netlab.errors import BadInput


def merge(*recordings: Bundle | str | os.PathLike[str]) -> Bundle:
    """Put recordings of several hosts together: frames of one name under each other, with a `host` column.

    Of requests, whose `host` is the server that they name, that column is `on_host`.

    Parameters
    ----------
    recordings
        What `netlab.load` returned, or paths of files; two or more.

    Returns
    -------
    Bundle
        All frames. Each gap in their coverage says of which host it is. Of a row that several recordings of
        one host have, the one looked at last stays; where two captures may have told the same, the coverage
        counts it. `netlab.save` writes it to a file; `netlab.connection_graph` tells the hosts apart.

    Raises
    ------
    BadInput
        If frames of one name are of different kinds, or one recording is given twice.
    BundleError
        If a file cannot be read.

    Notes
    -----
    Times are those of each host's own clock. The changes that `netlab.record` wrote are not merged: `replay`
    the recordings one by one to see them.

    Examples
    --------
    >>> import netlab
    >>> one = netlab.save("/tmp/one.netlab", netlab.connections(), overwrite=True)
    >>> two = netlab.save("/tmp/two.netlab", netlab.connections(), overwrite=True)
    >>> netlab.merge(one, two)["connections"].columns[0]
    'host'
    """
    if len(recordings) < 2:
        raise BadInput("there is nothing to merge", fix="Give two recordings or more, or their paths")
    bundles = [given if isinstance(given, Bundle) else load(given) for given in recordings]
    _refuse_repeated(bundles)
    found: dict[str, list[Item]] = {}
    for bundle in bundles:
        for name, item in bundle.items_by_name.items():
            found.setdefault(name, []).append(item)
    return Bundle({name: _merged(name, items) for name, items in found.items()})


def _refuse_repeated(bundles: Sequence[Bundle]) -> None:
    seen: dict[Any, int] = {}
    for place, bundle in enumerate(bundles, start=1):
        for origin in bundle.origins:
            identity = origin.host, origin.created_at
            if seen.setdefault(identity, place) != place:
                raise BadInput(
                    f"recordings {seen[identity]} and {place} are both what {origin.host} recorded at "
                    f"{origin.created_at:%Y-%m-%d %H:%M:%S} UTC",
                    fix="Give each recording once",
                )


def _merged(name: str, items: Sequence[Item]) -> Item:
    kinds = list(dict.fromkeys(item.frame.attrs["schema"] for item in items))
    if len(kinds) > 1:
        raise BadInput(
            f"{name!r} is {kinds[0]} in one recording and {kinds[1]} in another",
            fix="Save one of them under another name: netlab.save(path, other=recording[name])",
        )
    origins = dict.fromkeys(origin for item in items for origin in item.origins)
    frames = [_with_host(item) for item in items]
    return Item(together(frames, [end_ns(item) for item in items]), tuple(origins))


def _with_host(item: Item) -> pd.DataFrame:
    """Return a frame whose rows and gaps say of which host they are."""
    frame, host = item.frame, item.origins[0].host
    column = schema_of(frame).host_column
    known = frame[column].fillna(host) if column in frame else [host] * len(frame)
    single = len({origin.host for origin in item.origins}) == 1  # else its gaps say so already
    return hosted(frame, known, of=host if single else None)


def hosted(frame: pd.DataFrame, hosts: Any, *, of: str | None) -> pd.DataFrame:
    """Return *frame* with the host of each row, and with gaps that say *of* which host they are, if given."""
    gaps = [missing_of(gap) for gap in frame.attrs["coverage"]]
    if of is not None:
        gaps = [replace(gap, detail=f"{of}: {gap.detail}") for gap in gaps]
    columns, schema = {str(name): frame[name] for name in frame}, schema_of(frame).with_host()
    found = schema.frame({**columns, schema.host_column: hosts}, gaps)
    found.attrs = {**frame.attrs, **found.attrs}
    return found
