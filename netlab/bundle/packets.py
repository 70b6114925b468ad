"""`netlab.annotate_pcap()`: say in a packet capture which process each packet belongs to."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pandas as pd

from netlab import bars, checks
from netlab.bundle import archive
from netlab.bundle.owners import Owners
from netlab.bundle.saving import normalised
from netlab.errors import BadInput, BundleError, DecodeError
from netlab.schemas import CONNECTIONS
from netlab.wire import fivetuple, pcapng

_BAR_FROM_BYTES = 20_000_000  # smaller captures need no progress bar


@dataclass(frozen=True, slots=True)
class Annotated:
    """What became of the packets of a capture."""

    path: Path
    packets: int
    named: int  # belong to a connection that was given
    other: int  # TCP and UDP of no connection that was given
    unreadable: int  # neither TCP nor UDP, later fragments, or cut before their ports
    cut: bool  # the capture ends in the middle of a packet, which is left out


@checks.options
def annotate_pcap(
    pcap: str | os.PathLike[str],
    connections: pd.DataFrame,
    pcapng_out: str | os.PathLike[str],
    /,
    *,
    overwrite: bool = False,
) -> Annotated:
    """Copy a packet capture to pcapng, with the process and fate of its connection as each packet's comment.

    A comment is such as ``curl[1234] attempt 3, ECONNREFUSED: refused``, where 3 is the row's label in
    *connections*. Wireshark shows it, and finds it by ``frame.comment contains "curl"``.

    Parameters
    ----------
    pcap
        What tcpdump or another sniffer wrote on this host: pcap or pcapng.
    connections
        What a capture of netlab saw at the same time, or a recording of it.
    pcapng_out
        The file to make.
    overwrite
        Replace a file that is there already.

    Returns
    -------
    Annotated
        How many packets there are, and of how many the connection is known.

    Raises
    ------
    BadInput
        If *connections* is another frame.
    DecodeError
        If the capture is none.
    BundleError
        If a file cannot be read or written.

    Notes
    -----
    Packets are matched by tuple, as the socket sees it or as it is after translation, and by time: up to 3
    seconds before an accepted connection is known, and 60 after its end. Where both ends are on this host, or
    several network namespaces have the tuple, there are several comments. Of tunnels the outer packet counts.
    Blocks of a pcapng file are kept as they are.

    Examples
    --------
    >>> import netlab, struct, pathlib
    >>> head = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)  # a capture of no packets
    >>> _ = pathlib.Path("/tmp/empty.pcap").write_bytes(head)
    >>> netlab.annotate_pcap("/tmp/empty.pcap", netlab.connections(), "/tmp/o.pcapng", overwrite=True).packets
    0
    """
    source, target = checks.path(pcap), checks.path(pcapng_out)
    checks.flag("overwrite", overwrite)
    typed = normalised(connections)
    if typed.attrs["schema"] != CONNECTIONS.name:
        raise BadInput(
            f"a frame of {typed.attrs['schema']} tells no owners",
            fix="Pass what Capture.connections() returned",
        )
    if target.exists() and not overwrite:
        raise BundleError(f"{target} exists already", fix="Choose another name, or pass overwrite=True")
    owners = Owners(typed.set_axis(connections.index))
    try:
        with _opened(source) as file, archive.replacing(target) as temporary:
            return _annotate(file, owners, temporary, target)
    except DecodeError as error:
        raise DecodeError(
            f"cannot read {source}: {error.problem}", fix="Give what tcpdump -w wrote"
        ) from error


def _opened(source: Path) -> BinaryIO:
    try:
        return source.open("rb")
    except OSError as error:
        raise BundleError(f"cannot read {source}: {error.strerror}", fix="Check the path") from error


def _annotate(file: BinaryIO, owners: Owners, temporary: Path, target: Path) -> Annotated:
    packets = named = unreadable = 0
    cut = False
    size = os.fstat(file.fileno()).st_size
    counted = bars.bar(total=size, unit="B", unit_scale=True, leave=False, disable=size < _BAR_FROM_BYTES)
    with temporary.open("wb") as out, counted as bar:
        try:
            for block in pcapng.blocks(file.read):
                if isinstance(block, bytes):
                    out.write(block)
                    continue
                found = fivetuple.of_packet(block.linktype, block.data)
                said = owners.of(found, block.at_ns) if found else []
                out.write(block.block(said))
                packets, named, unreadable = packets + 1, named + bool(said), unreadable + (found is None)
                bar.update(len(block.body))
        except EOFError:
            cut = True
    return Annotated(target, packets, named, packets - named - unreadable, unreadable, cut)
