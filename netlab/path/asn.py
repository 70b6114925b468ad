"""AS numbers and names of hops, from a file that the user has: nothing is asked of the network."""

from __future__ import annotations

import contextlib
import lzma
import os
import socket
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from netlab import checks
from netlab.errors import BadInput

Owner: TypeAlias = tuple[int, str | None]  # AS number and name

_FORMATS = "Give a MaxMind DB with AS numbers (*.mmdb), or a table of iptoasn.com (ip2asn-*.tsv, also .gz)"
_COLUMNS = ["start", "end", "asn", "country", "name"]
_DAMAGE = (zlib.error, lzma.LZMAError, zipfile.BadZipFile)  # of what pandas unpacks by the file's name
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
_LAST_ASN = 2**32 - 1  # RFC 6793
_LAST = b"\xff"  # behind each packed address: numpy cuts zeros off the end of byte strings
_KEYS = {  # what makers of MaxMind DBs call them
    "asn": ("autonomous_system_number", "asn"),
    "name": ("autonomous_system_organization", "as_name", "name"),
}


class Owners(Protocol):
    """Something that knows whose an address is."""

    def owner(self, address: str) -> Owner | None:
        """Return the AS that announces *address*, or None where none is known."""


@checks.options
def with_asn(hops: pd.DataFrame, database: str | os.PathLike[str]) -> pd.DataFrame:
    r"""Fill in which AS each hop's address belongs to, from a local file.

    Parameters
    ----------
    hops
        What `netlab.traceroute` returned.
    database
        A MaxMind DB with AS numbers, such as GeoLite2-ASN.mmdb (needs the package maxminddb), or a table of
        iptoasn.com, such as ip2asn-combined.tsv.gz. Of ranges within ranges the narrowest counts.

    Returns
    -------
    DataFrame
        The same rows with `asn` and `as_name`; both are missing where the file has no AS for the address, as
        for private ones. An address says who announced it and not always whose router it is: borders often
        answer from a neighbour's network.

    Raises
    ------
    BadInput
        If *hops* has no addresses, or the file cannot be read or has no AS numbers.
    CapabilityError
        If a MaxMind DB is given and the package that reads it is not installed.

    Examples
    --------
    >>> import netlab, tempfile
    >>> with tempfile.NamedTemporaryFile("w", suffix=".tsv") as file:
    ...     _ = file.write("127.0.0.0\t127.255.255.255\t64496\tNone\tEXAMPLE")
    ...     file.flush()
    ...     hops = netlab.path.with_asn(netlab.traceroute("127.0.0.1"), file.name)
    >>> hops[["asn", "as_name"]].drop_duplicates().values.tolist()
    [[64496, 'EXAMPLE']]
    """
    checks.columns("with_asn()", hops, ["address"], fix="Pass what netlab.traceroute returned")
    with opened(database) as owners:
        known = {address: owners.owner(address) for address in hops["address"].dropna().unique()}
    found = [known.get(address) or (None, None) for address in hops["address"]]
    return hops.assign(
        asn=pd.array([number for number, _ in found], dtype="Int64"),
        as_name=pd.array([name for _, name in found], dtype="string"),
    )


@contextlib.contextmanager
def opened(database: str | os.PathLike[str]) -> Iterator[Owners]:
    """Open *database* for the block; refuse it at once if it cannot be what it should."""
    try:
        path = Path(database)
        stat = path.stat()
    except (OSError, TypeError, ValueError) as error:
        raise BadInput(f"cannot read the AS database {database!r}: {error}", fix=_FORMATS) from error
    if path.suffix == ".mmdb":
        with _maxmind(path) as reader:
            yield reader
    else:
        yield _ranges(path, stat.st_mtime_ns, stat.st_size)


@dataclass(frozen=True, slots=True)
class _Ranges:
    """Sorted ranges of addresses by family: where they start and end, as packed bytes, and whose they are."""

    starts: Mapping[int, npt.NDArray[np.bytes_]]
    ends: Mapping[int, npt.NDArray[np.bytes_]]
    owners: Mapping[int, list[tuple[int, str]]]

    def owner(self, address: str) -> Owner | None:
        family = 6 if ":" in address else 4
        wanted = np.bytes_(socket.inet_pton(_FAMILIES[family], address.partition("%")[0]) + _LAST)
        before = int(np.searchsorted(self.starts[family], wanted, side="right"))
        place = before - 1
        if before and wanted > self.ends[family][place]:  # a wider range may go on behind this one
            place = int(np.flatnonzero(self.ends[family][:before] >= wanted).max(initial=-1))
        if place < 0:
            return None
        number, name = self.owners[family][place]
        return (number, name or None) if number else None  # 0 stands for addresses that nobody announces


@lru_cache(maxsize=2)  # of the hundred thousands of lines, only a few are looked at in each call
def _ranges(path: Path, _changed_ns: int, _size_bytes: int) -> _Ranges:
    try:
        table = pd.read_csv(
            path, sep="\t", names=_COLUMNS, usecols=range(5), quoting=3, keep_default_na=False, dtype=str
        )
        table["asn"] = table["asn"].astype("int64")
    except (OSError, ValueError, EOFError, ImportError, *_DAMAGE) as error:  # pandas' own are ValueErrors
        raise BadInput(f"{path} is no table of iptoasn.com: {error}", fix=_FORMATS) from error
    if table.empty:
        raise BadInput(f"{path} is empty", fix=_FORMATS)
    if not (beyond := table[~table["asn"].between(0, _LAST_ASN)]).empty:
        line = beyond.index[0] + 1
        raise BadInput(f"{path}, line {line}: {beyond['asn'].iloc[0]} is no AS number", fix=_FORMATS)
    is_v6 = table["start"].str.contains(":", regex=False)
    starts, ends, owners = {}, {}, {}
    for family, part in ((4, table[~is_v6]), (6, table[is_v6])):
        first, last = (_packed(path, part[column], family) for column in ("start", "end"))
        if (backwards := first > last).any():
            line = part.index[backwards][0] + 1
            raise BadInput(f"{path}, line {line}: the range ends before it starts", fix=_FORMATS)
        wider_first = np.argsort(last, kind="stable")[::-1]
        order = wider_first[np.argsort(first[wider_first], kind="stable")]
        starts[family], ends[family] = first[order], last[order]
        names = part[["asn", "name"]].iloc[order]
        owners[family] = list(names.itertuples(index=False, name=None))
    return _Ranges(starts, ends, owners)


def _packed(path: Path, column: pd.Series[str], family: int) -> npt.NDArray[np.bytes_]:
    packed = bytearray()
    for line, text in column.items():
        try:
            packed += socket.inet_pton(_FAMILIES[family], text) + _LAST
        except OSError as error:
            raise BadInput(
                f"{path}, line {int(str(line)) + 1}: {text[:60]!r} is no IPv{family} address", fix=_FORMATS
            ) from error
    return np.frombuffer(bytes(packed), "S5" if family == 4 else "S17")


class _Maxmind:
    """A MaxMind DB, whose records different makers name differently."""

    def __init__(self, path: Path, reader: Any, damage: type[Exception]) -> None:
        self._path = path
        self._reader = reader
        self._damage = damage
        self._numbered = self._unnumbered = 0

    def owner(self, address: str) -> Owner | None:
        try:
            record = self._reader.get(address.partition("%")[0])
        except ValueError:  # an IPv6 address, and the file has only IPv4
            return None
        except self._damage as error:
            raise BadInput(f"{self._path} is damaged: {error}", fix=_FORMATS) from error
        if record is None:
            return None
        number = self._field(record, "asn")
        if number is None:  # as of some providers among others in GeoIP2-ISP
            self._unnumbered += 1
            return None
        self._numbered += 1
        digits = str(number).upper().removeprefix("AS")
        name = self._field(record, "name")
        return (int(digits), str(name) if name else None) if digits.isdecimal() else None

    def check(self) -> None:
        """Refuse a database of something else: it knew addresses and had no AS number for any of them."""
        if self._unnumbered and not self._numbered:
            kind = self._reader.metadata().database_type
            raise BadInput(f"{self._path} has no AS numbers: it is a {kind}", fix=_FORMATS)

    @staticmethod
    def _field(record: Any, what: str) -> Any:
        if not isinstance(record, Mapping):
            return None
        return next((record[key] for key in _KEYS[what] if key in record), None)


@contextlib.contextmanager
def _maxmind(path: Path) -> Iterator[_Maxmind]:
    with checks.needing("asn", f"cannot read {path}: the package maxminddb is not installed"):
        import maxminddb
    try:
        reader = maxminddb.open_database(path)
    except (OSError, ValueError, maxminddb.InvalidDatabaseError) as error:
        raise BadInput(f"{path} is no MaxMind DB: {error}", fix=_FORMATS) from error
    with reader:
        owners = _Maxmind(path, reader, maxminddb.InvalidDatabaseError)
        yield owners
        owners.check()
