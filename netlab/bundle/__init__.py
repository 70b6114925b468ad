"""Recordings: the frames of an investigation in one file, to open elsewhere, later, without privileges.

`saving` and `loading` are the file as a whole: a zip `archive` of a `manifest` and Parquet files that plain
`pandas.read_parquet` opens as well; `contents` is what is in memory of it. `recording` writes while a capture
runs: `sources` are what it can follow, `tracks` tells what changed since the last look, `history` is those
changes read back. `merging` puts the recordings of several hosts together. `replaying` plays one like a
capture, by the clock of `playing`, and its `accounts` say what changed; `pasts` is what is known of frames
that were saved once. `exporting`, with `tabular` and `graphml`, and `packets`, with `owners`, are the ways
out, to other tools.

What is read is judged as foreign: names, sizes and types are checked, and nothing is unpacked to disk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from netlab import lazy

if TYPE_CHECKING:
    from netlab.bundle.contents import Bundle as Bundle, Item as Item, Segment as Segment
    from netlab.bundle.loading import load as load
    from netlab.bundle.manifest import Metadata as Metadata
    from netlab.bundle.recording import Recording as Recording
    from netlab.bundle.replaying import Replay as Replay
    from netlab.bundle.saving import save as save

_HOME = {
    "Bundle": "netlab.bundle.contents",
    "Item": "netlab.bundle.contents",
    "Metadata": "netlab.bundle.manifest",
    "Recording": "netlab.bundle.recording",
    "Replay": "netlab.bundle.replaying",
    "Segment": "netlab.bundle.contents",
    "load": "netlab.bundle.loading",
    "save": "netlab.bundle.saving",
}

__all__ = sorted(_HOME)  # noqa: PLE0605 - the table above is the one list of names

__getattr__, __dir__ = lazy.names(__name__, _HOME)
