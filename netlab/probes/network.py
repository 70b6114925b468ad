"""Which numbers of a probe are in network order: `__be16`, `__be32` and `__be64`, wherever the text has them.

BCC tells numbers by their width alone, so that this is read from the text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from netlab.errors import BadInput

ITSELF = ""  # the path of a number that is in no struct

_TYPEDEF = re.compile(r"\btypedef\s+((?:struct\s+)?\w+)\s+(\w+)\s*;")
_MACRO = re.compile(r"^[ \t]*#[ \t]*define\b(?:\\\n|[^\n])*?\b(__be(?:16|32|64))\b(?!\s*\))", re.MULTILINE)
_MEMBER = re.compile(
    r"\s*(?:(?:const|volatile)\s+)*((?:(?:struct|union)\s+)?\w+)\s+(?:(?:const|volatile)\s+)*(.+)", re.DOTALL
)
_BY_VALUE = re.compile(r"\b(struct|union)\s+(\w+)\s+\w")
_ATTRIBUTE = re.compile(r"__attribute__\s*\(\(.*?\)\)")
_MAP = re.compile(r"\bBPF_(\w+)\s*\(([^;{}]*)\)\s*;")
_PLACES = {"HASH": (0, 1, 2), "ARRAY": (0, None, 1), "HISTOGRAM": (0, 1, None), "TABLE": (3, 1, 2)}

Paths = frozenset[str]


def refuse_macros(code: str) -> None:
    """Refuse a macro that stands for such a type: what it becomes is not in the text."""
    if found := _MACRO.search(code):
        line = code.count("\n", 0, found.start(1)) + 1
        raise BadInput(
            f"line {line}: netlab does not see where this macro puts a {found[1]}",
            fix=f"Write {found[1]} where it is meant, or use a typedef",
        )


def types(code: str) -> dict[str, Paths]:
    """Return the types that are in network order, or for which the text has another name."""
    found = dict.fromkeys(("__be16", "__be32", "__be64"), frozenset({ITSELF}))
    for old, new in _TYPEDEF.findall(code):
        if old in found:
            found[new] = found[old]
    return found


def learn(body: str, known: dict[str, Paths], kernel: Callable[[str], str]) -> None:
    """Add to *known* the kernel's structs that *body* has by value, whose text *kernel* returns."""
    for words in _BY_VALUE.findall(body):
        name = " ".join(words)
        if name not in known:
            known[name] = frozenset()
            inner = kernel(name).partition("{")[2]
            learn(inner, known, kernel)
            known[name] = members(inner, known)


def members(body: str, known: Mapping[str, Paths]) -> Paths:
    """Return the paths of those members of a struct that are in network order, such as `peer.port`."""
    return frozenset(path for statement in _statements(body) for path in _paths(statement, known))


def maps(code: str, known: Mapping[str, Paths]) -> frozenset[tuple[str, str]]:
    """Return the maps, each with "key" or "leaf", whose keys or values are such numbers themselves."""
    found = set()
    for kind, text in _MAP.findall(code):
        arguments = [" ".join(argument.split()) for argument in text.split(",")]
        ending = next((ending for ending in _PLACES if re.search(rf"(?:^|_){ending}(?:$|_)", kind)), None)
        if ending is None:
            continue
        name, *sides = _PLACES[ending]
        for side, place in zip(("key", "leaf"), sides, strict=True):
            if place is None or max(name, place) >= len(arguments):
                continue
            if ITSELF in known.get(arguments[place], ()):
                found.add((arguments[name], side))
    return frozenset(found)


def of_member(name: str, paths: Paths) -> Paths:
    """Return the paths within one member of those that are in it."""
    return frozenset(path.removeprefix(f"{name}.") for path in paths if path.startswith(f"{name}."))


def _statements(body: str) -> Iterator[str]:
    """Yield each member of a struct, an inner struct with all of its own."""
    start = depth = 0
    for found in re.finditer(r"[{};]", body):
        depth += {"{": 1, "}": -1}.get(found[0], 0)
        if found[0] == ";" and depth == 0:
            yield body[start : found.start()]
            start = found.end()


def _paths(statement: str, known: Mapping[str, Paths]) -> Iterator[str]:
    head, brace, rest = statement.partition("{")
    if brace:
        inner, _, declared = rest.rpartition("}")
        within = members(inner, known)
    elif found := _MEMBER.fullmatch(_ATTRIBUTE.sub(" ", head)):
        declared, within = found[2], known.get(" ".join(found[1].split()), frozenset())
    else:
        return
    for name in _names(declared) or ([""] if brace else []):  # nameless: as if its own
        yield from (".".join(filter(None, (name, path))) for path in within)


def _names(declared: str) -> list[str]:
    plain = re.sub(r"\[[^\]]*\]", " ", _ATTRIBUTE.sub(" ", declared))
    return [words[-1] for part in plain.split(",") if (words := re.findall(r"\w+", part))]
