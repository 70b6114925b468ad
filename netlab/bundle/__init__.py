"""Recordings: the frames of an investigation in one file, to open elsewhere, later, without privileges.

`saving` and `loading` are the file as a whole: a zip `archive` of a `manifest` and Parquet files that plain
`pandas.read_parquet` opens as well; `contents` is what is in memory of it. `recording` writes while a capture
runs: `tracks` tells what changed since the last look, `history` is those changes read back. `merging` puts
the recordings of several hosts together, `replaying` plays one like a capture. `exporting` and `packets` are
the ways out, to other tools.

What is read is judged as foreign: names, sizes and types are checked, and nothing is unpacked to disk.
"""

from __future__ import annotations

from netlab.bundle.contents import Bundle as Bundle, Item as Item, Segment as Segment
from netlab.bundle.loading import load as load
from netlab.bundle.manifest import Metadata as Metadata
from netlab.bundle.recording import Recording as Recording, record as record
from netlab.bundle.saving import save as save
