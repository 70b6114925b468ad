"""The files of TLS libraries: those that processes have mapped, and those that the next ones will.

Programs are among them, which may have a library in them.
Each is opened as its process sees it, so that those of containers are found, too. Source: proc(5), ld.so(8).
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import TypeAlias

_File: TypeAlias = tuple[int, int]  # device, inode

_MAPPED = re.compile(
    rb"^([0-9a-f]+-[0-9a-f]+) \S+ \S+ (\S+ \d+) +(/.*/lib(?:ssl|crypto|gnutls)[^/\n]*?\.so[^/\n]*)$",
    re.MULTILINE,
)
_USUAL = (
    "lib*",
    "lib*/*-linux-*",
    "usr/lib*",
    "usr/lib*/*-linux-*",
    "usr/local/lib*",
)  # ld.so's, by distribution
_DELETED = b" (deleted)"


class Library(Enum):
    """Which library a file is, as its name tells."""

    SSL = "libssl"
    CRYPTO = "libcrypto"
    GNUTLS = "libgnutls"
    PROGRAM = "exe"  # any, to be looked into: Node.js has OpenSSL in it, and offers its functions to add-ons


_NAMED = (Library.SSL, Library.CRYPTO, Library.GNUTLS)


class Libraries:
    """Finds files that were not found before."""

    def __init__(self) -> None:
        self.unreadable = 0  # processes that could not be looked into, the last time
        self._known: set[_File] = set()
        self._mapped: set[tuple[bytes, bytes]] = (
            set()
        )  # device with inode, and path, as /proc/PID/maps has them
        self._roots: set[_File] = set()

    def find(self, found: Callable[[int, Library], None]) -> None:
        """Give each new file, open, to *found*."""
        self.unreadable = 0
        for process in _processes():
            try:
                for path in self._paths(process):
                    self._tell(path, found)
                self._tell(f"{process}/exe", found, Library.PROGRAM)
            except PermissionError:
                self.unreadable += 1
            except OSError:
                continue  # it is gone

    def _paths(self, process: str) -> Iterator[str]:
        """Return where new files may be that *process* has mapped, or that its root has for others."""
        for at, file, path in _MAPPED.findall(Path(process, "maps").read_bytes()):
            if (file, path) not in self._mapped:
                self._mapped.add((file, path))
                yield f"{process}/map_files/{at.decode()}"
                yield f"{process}/root{os.fsdecode(path.removesuffix(_DELETED))}"
        root = Path(process, "root").stat()
        if (root.st_dev, root.st_ino) not in self._roots:
            self._roots.add((root.st_dev, root.st_ino))
            for library in _NAMED:
                for place in _USUAL:
                    yield from map(str, Path(f"{process}/root").glob(f"{place}/{library.value}.so.*"))

    def _tell(self, path: str, found: Callable[[int, Library], None], library: Library | None = None) -> None:
        """Give a file that is new to *found*; the name tells which *library* it is, if nobody does."""
        with suppress(OSError):  # the other path may do
            file = _opened(path)
            try:
                known = os.fstat(file)
                if (known.st_dev, known.st_ino) in self._known:
                    return
                self._known.add((known.st_dev, known.st_ino))
                name = Path(f"/proc/self/fd/{file}").readlink().name
                library = library or next((one for one in _NAMED if name.startswith(one.value)), None)
                if library:
                    found(file, library)
            finally:
                os.close(file)


def _opened(path: str) -> int:
    """Open a regular file, and nothing else: a container may have a link to a device there."""
    seen = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(seen).st_mode):
            raise OSError(f"{path} is no regular file")
        return os.open(f"/proc/self/fd/{seen}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(seen)


def _processes() -> Iterator[str]:
    with os.scandir("/proc") as entries:
        yield from (entry.path for entry in entries if entry.name.isdecimal())
