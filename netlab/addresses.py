"""IP addresses as columns: network-order bytes in numpy, canonical text in Arrow, no per-row Python.

IPv4 text is assembled from a table of the 256 octets. Text is made once per distinct address: of
many rows most are about the same few hosts. An IPv4-mapped IPv6 address is shown as IPv4 (IPv6: RFC 5952).
"""

from __future__ import annotations

import ipaddress
import socket

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

Bytes = npt.NDArray[np.uint8]

_MAPPED = bytes(10) + b"\xff\xff"
# Four characters each, NUL where it has fewer; as numbers, which numpy gathers faster than characters.
_OCTETS = np.array([f"{octet}." for octet in range(256)], "S4").view(np.uint32)
_LAST_OCTETS = np.array([f"{octet}" for octet in range(256)], "S4").view(np.uint32)
_DIGITS = np.array([len(f"{octet}") for octet in range(256)])
_DOTS = 3
_FEW = 200  # of so few each is written sooner than the distinct ones are found


def ipv4_text(addresses: Bytes) -> pa.Array:
    """Return the dotted text of an (n, 4) array of network-order bytes."""
    if len(addresses) < _FEW:
        return _dotted(addresses)
    encoded = pa.array(np.ascontiguousarray(addresses).view(np.uint32).ravel()).dictionary_encode()
    distinct = encoded.dictionary.to_numpy()
    if len(distinct) > len(addresses) // 2:
        return _dotted(addresses)
    return _dotted(distinct.view(np.uint8).reshape(-1, 4)).take(encoded.indices)


def _dotted(addresses: Bytes) -> pa.Array:
    rows = len(addresses)
    text = _OCTETS[addresses]
    text[:, -1] = _LAST_OCTETS[addresses[:, -1]]
    characters = text.tobytes().translate(None, delete=b"\0")
    offsets = np.zeros(rows + 1, np.int64)
    np.cumsum(sum(_DIGITS[octets] for octets in addresses.T) + _DOTS, out=offsets[1:])
    return pa.LargeStringArray.from_buffers(rows, pa.py_buffer(offsets), pa.py_buffer(characters))


def ipv6_text(addresses: Bytes) -> pa.Array:
    """Return the canonical text of an (n, 16) array of network-order bytes, mapped addresses as IPv4."""
    whole = np.ascontiguousarray(addresses)
    column = pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(whole), [None, pa.py_buffer(whole)])
    encoded = column.dictionary_encode()
    text = [_canonical(address) for address in encoded.dictionary.to_pylist()]
    return pa.array(text, pa.large_string()).take(encoded.indices)


def text(family: int, addresses: Bytes) -> pa.Array:
    """Return the text of addresses of one family (4 or 6): an (n, 4) or (n, 16) array."""
    return ipv4_text(addresses) if family == 4 else ipv6_text(addresses)


def mixed(is_ipv4: npt.NDArray[np.bool_], addresses: Bytes) -> pd.api.extensions.ExtensionArray:
    """Return an (n, 16) array of both families as a column; an IPv4 address is in the first four bytes."""
    if is_ipv4.all():
        return column([ipv4_text(addresses[:, :4])])
    parts = [ipv4_text(addresses[is_ipv4, :4]), ipv6_text(addresses[~is_ipv4])]
    back = np.argsort(np.concatenate([np.flatnonzero(is_ipv4), np.flatnonzero(~is_ipv4)]))
    return column(parts).take(back)


def column(parts: list[pa.Array]) -> pd.api.extensions.ExtensionArray:
    """Join Arrow text arrays into one pandas string column with `pd.NA` for missing values."""
    joined = pa.chunked_array(parts, type=pa.large_string()).combine_chunks()
    return pd.arrays.ArrowStringArray(joined)


def canonical(address: str) -> str:
    """Return *address* in canonical form, a mapped address as IPv4, a scope id kept.

    Raises ValueError if it is no address.
    """
    parsed = ipaddress.ip_address(address)
    mapped = getattr(parsed, "ipv4_mapped", None)
    return str(mapped or parsed)


def _canonical(address: bytes) -> str:
    if address.startswith(_MAPPED):
        return socket.inet_ntop(socket.AF_INET, address[12:])
    return socket.inet_ntop(socket.AF_INET6, address)
