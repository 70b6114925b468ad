"""How BCC describes the types of a map, as numpy dtypes.

The description is JSON: the name of a C type, or [name, members, "struct" | "struct_packed" | "union"] with a
member as [name, type], [name, type, [length]] for an array or [name, type, bits] for a bit-field. A struct's
padding is a member of its own, named `__pad_…`, and the struct then is said to be packed.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from netlab.errors import BadInput

PADDING = "__pad_"
_SCALARS = {
    "_Bool": "?", "bool": "?", "char": "S1", "signed char": "i1", "unsigned char": "u1", "short": "i2",
    "unsigned short": "u2", "int": "i4", "unsigned int": "u4", "long": "i8", "unsigned long": "u8",
    "long long": "i8", "unsigned long long": "u8", "__int128": "(2,)u8", "unsigned __int128": "(2,)u8",
}  # fmt: skip


def layout(description: str, size: int) -> np.dtype[Any]:
    """Return the dtype of a type that takes *size* bytes.

    Raises
    ------
    BadInput
        If it has a member that cannot be a column, such as a bit-field.
    """
    found = _dtype(json.loads(description), "the value")
    if found.itemsize > size:
        raise BadInput(f"BCC describes {found.itemsize} bytes of a type of {size}", fix="Use plain members")
    if found.itemsize == size or not found.names:
        return found
    whole = [found.fields[name] for name in found.names] if found.fields else []
    return _struct(list(found.names), [one[0] for one in whole], [one[1] for one in whole], size)


def members(description: str) -> list[str]:
    """Return the names of a struct's own members; none of another type."""
    found = json.loads(description)
    return [] if isinstance(found, str) else [each[0] for each in found[1] if not each[0].startswith(PADDING)]


def _dtype(description: Any, name: str) -> np.dtype[Any]:
    if isinstance(description, str):
        if description not in _SCALARS:
            raise BadInput(
                f"{name} is a {description}, which netlab cannot show", fix="Send numbers and text"
            )
        return np.dtype(_SCALARS[description])
    _, members, kind = description
    names: list[str] = []
    types: list[np.dtype[Any]] = []
    offsets: list[int] = []
    at = size = 0
    for member in members:
        title, found = member[0], _member(member)
        if kind == "struct":
            at = -(-at // found.alignment) * found.alignment
        inner = found.fields if not title and found.fields else {title: (found, 0)}  # nameless: as if its own
        for part, (its, offset, *_) in inner.items():
            names.append(part)
            types.append(its)
            offsets.append((0 if kind == "union" else at) + offset)
        at += found.itemsize
        size = max(size, found.itemsize) if kind == "union" else at
    return _struct(names, types, offsets, size)


def _member(member: list[Any]) -> np.dtype[Any]:
    name, kind, *more = member
    if more and isinstance(more[0], str):  # a struct without the list around it
        return _dtype(member, name)
    found = _dtype(kind, name)
    if more and isinstance(more[0], int):
        raise BadInput(
            f"{name} is a bit-field, which has no place of its own", fix="Copy it into a whole number"
        )
    if not more:
        return found
    length = int(np.prod(more[0]))
    return np.dtype(f"S{length}") if found == np.dtype("S1") else np.dtype((found, (length,)))


def _struct(names: list[str], types: list[np.dtype[Any]], offsets: list[int], size: int) -> np.dtype[Any]:
    return np.dtype({"names": names, "formats": types, "offsets": offsets, "itemsize": size})
