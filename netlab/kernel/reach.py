"""The part of the kernel's types that a C source reaches: compiling the rest takes longer than the source."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator

_TAGGED = re.compile(r"((?:struct|union|enum) \w+) \{")
_TYPEDEF = re.compile(r"(\w+)(?=;|\[|\(|\)\()")  # in its last line; a word too many does no harm
_ENUMERATOR = re.compile(r"^\t(\w+) =", re.MULTILINE)
_REFERENCE = re.compile(r"\b(?:(struct|union|enum) (\w+)(?: (\*))?|([A-Za-z_]\w*))")


def reached(types: str, source: str) -> str:
    r"""Return the declarations among *types* that *source* needs to compile, in their order.

    What is only pointed to can stay undeclared. Leaving out too much does not compile: a member's type has to
    be complete, so no offset can change.

    Parameters
    ----------
    types
        C as `bpftool btf dump … format c` prints it: declarations with an empty line between them.
    source
        C that names every struct whose members it uses.

    Examples
    --------
    >>> types = ["struct a {};", "struct b { struct a *to; };", "struct c { struct a within; };"]
    >>> print(reached("\n\n".join(types), "struct b known;"))
    struct b { struct a *to; };
    """
    pieces = types.split("\n\n")
    where: dict[str, list[int]] = defaultdict(list)
    for place, piece in enumerate(pieces):
        for name in _declared(piece):
            where[name].append(place)
    wanted: set[int] = set()
    names = {name for name, _ in _references(source)}
    while names:
        new = {place for name in names for place in where.get(name, ())} - wanted
        wanted |= new
        names = {name for place in new for name, complete in _references(pieces[place]) if complete}
    return "\n\n".join(pieces[place] for place in sorted(wanted))


def _declared(piece: str) -> Iterator[str]:
    """Yield the tag, the typedef and the enumerators that a declaration introduces."""
    if tagged := _TAGGED.match(piece):
        yield tagged[1]
    if piece.startswith("typedef "):
        yield from _TYPEDEF.findall(piece.rpartition("\n")[2])
    if piece.startswith(("enum ", "typedef enum ")):
        yield from _ENUMERATOR.findall(piece)


def _references(text: str) -> Iterator[tuple[str, bool]]:
    """Yield the tags and words in *text*, and whether it needs their declaration to be complete."""
    for kind, tag, pointer, word in _REFERENCE.findall(text):
        yield word or f"{kind} {tag}", kind == "enum" or not pointer
