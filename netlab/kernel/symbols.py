"""Names of kernel functions by address, from /proc/kallsyms."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

_KALLSYMS = Path("/proc/kallsyms")  # kernel/kallsyms.c: address, type, name, and a module's name in brackets
_CODE = b"tTwW"
# What compilers add to the names of copies and parts that they make of a function: it depends on the build.
_COPY = re.compile(r"\.(cold|constprop|isra|llvm|part)\b.*")


class Symbols:
    """Names of the functions that code addresses lie in; each address is looked up once."""

    def __init__(self) -> None:
        self._known: dict[int, str | None] = {0: None}

    def names(self, addresses: npt.NDArray[np.uint64]) -> pd.Series:
        """Return the function of each address, missing where it is not known.

        Parameters
        ----------
        addresses
            Return addresses, or beginnings of functions.

        Returns
        -------
        Series
            Text, as the kernel's source has it. All is missing where kernel.kptr_restrict hides the
            addresses from this process.
        """
        places, distinct = pd.factorize(addresses)
        new = np.array([address for address in distinct.tolist() if address not in self._known], np.uint64)
        if len(new):
            self._known |= dict(zip(new.tolist(), _named(new), strict=True))
        found = pd.array([self._known[address] for address in distinct.tolist()], dtype="string")
        return pd.Series(found.take(places))


def spans(*functions: str) -> list[tuple[int, int]]:
    """Return where each kernel function begins and how many bytes it has; 0 where that is not known."""
    starts, names = _table()
    ends = np.append(starts[1:], starts[-1:])
    found = dict.fromkeys(functions, (0, 0))
    for start, end, name in zip(starts.tolist(), ends.tolist(), names, strict=True):
        whole = _COPY.sub("", name)
        if whole in found and ".cold" not in name:
            found[whole] = start, end - start
    return list(found.values())


def _named(addresses: npt.NDArray[np.uint64]) -> list[str | None]:
    starts, names = _table()
    if not len(starts):
        return [None] * len(addresses)
    # A call that never returns leaves a return address that belongs to the next function: look before it,
    # unless it is the beginning of one, which is how net/core/dev.c names itself.
    begins = np.isin(addresses, starts)
    at = np.searchsorted(starts, np.where(begins, addresses, addresses - np.uint64(1)), side="right") - 1
    return [_COPY.sub("", names[place]) if place >= 0 else None for place in at.tolist()]


def _table() -> tuple[npt.NDArray[np.uint64], list[str]]:
    """Return the functions' first addresses in order, and their names."""
    try:
        lines = _KALLSYMS.read_bytes().splitlines()
    except OSError:
        return np.empty(0, np.uint64), []
    code = [line.split(maxsplit=3) for line in lines if line[17:18] in _CODE]
    starts = np.array([int(part[0], 16) for part in code], np.uint64)
    if not starts.any():  # all hidden
        return np.empty(0, np.uint64), []
    order = np.argsort(starts, kind="stable")
    return starts[order], [code[place][2].decode(errors="replace") for place in order.tolist()]
