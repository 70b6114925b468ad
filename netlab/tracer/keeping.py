"""The network namespaces that a capture is asked for stay as long as it runs.

The kernel gives the inode of a namespace that is gone to the next one, and the programs know no more of one
than that: without this another container's connections could be shown for those of the first.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

from netlab.errors import BadInput
from netlab.kernel import netns as namespaces
from netlab.tracer.filters import Filter


class Kept:
    """Keeps namespaces by open descriptors, which the kernel counts as users of them."""

    def __init__(self) -> None:
        self._held = ExitStack()

    def keep(self, wanted: Filter) -> None:
        """Keep the namespaces that *wanted* names.

        Raises
        ------
        BadInput
            If one of them is gone since the filter was made.
        """
        given = dict(zip(wanted.netns, wanted.netns_files, strict=True))
        there = namespaces.everywhere() if None in given.values() else {}
        for inode, file in given.items():
            self._keep(inode, file or there.get(inode))

    def _keep(self, inode: int, file: Path | None) -> None:
        if file is None or not os.path.lexists(file):
            raise _gone(inode)
        descriptor = namespaces.opened(file)
        self._held.callback(os.close, descriptor)
        if os.fstat(descriptor).st_ino != inode:  # another one has taken its name
            raise _gone(inode)

    def close(self) -> None:
        """Let them go; safe to call again."""
        self._held.close()


def _gone(inode: int) -> BadInput:
    return BadInput(
        f"network namespace {inode} has no file here, or is gone",
        fix="Make a capture with one that is there: a name, a path or a process id",
    )
