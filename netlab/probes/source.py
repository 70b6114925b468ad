"""The C of an ad-hoc probe: what it declares, and the same C with what netlab needs in it.

Only what stands outside of comments and strings is looked at, and every line stays where it is, so that the
compiler names the user's own lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from netlab.errors import BadInput
from netlab.kernel import btf
from netlab.probes import network
from netlab.probes.hooks import Hook, hook

NAME = "cell"  # what the compiler calls the user's text
_PAGES = 256  # 1 MiB hold some ten thousand records
_Edit: TypeAlias = tuple[int, int, str]  # from, to, what comes there instead

_NOT_CODE = re.compile(r"//[^\n]*|/\*.*?\*/|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'", re.DOTALL)
_DIRECTIVE = re.compile(r"^[ \t]*#(?:\\\n|[^\n])*", re.MULTILINE)
_KERNEL_HEADER = re.compile(r"^[ \t]*#[ \t]*include[ \t]*<(?!bcc/)[^>\n]*>", re.MULTILINE)
_OUTPUT = re.compile(r"\bBPF_(PERF|RINGBUF)_OUTPUT\s*\(\s*(\w+)")
_SEND = re.compile(r"\b(\w+)\s*\.\s*(perf_submit|ringbuf_output|ringbuf_reserve)\s*\(")
_HISTOGRAM = re.compile(r"\bBPF_HISTOGRAM\s*\(\s*(\w+)")
_LOGARITHM = re.compile(r"\bbpf_log2l?\s*\(")
_UNREAD = re.compile(r"\b(perf_submit_skb|bpf_trace_printk|KFUNC_PROBE|KRETFUNC_PROBE|LSM_PROBE)\s*\(")
_STRUCT = re.compile(r"(\btypedef\s+)?\bstruct\b(?:\s*__attribute__\s*\(\(.*?\)\))?\s*(\w+)?\s*$")
_ALIAS = re.compile(r"\s*(?:__attribute__\s*\(\(.*?\)\)\s*)?(\w+)?")
_FUNCTION = re.compile(r"\b\w+\s+(\w+)\s*\(([^{}]*)\)\s*$")
_MACRO = re.compile(r"\b(RAW_TRACEPOINT|TRACEPOINT)_PROBE\s*\(([^{}]*)\)\s*$")


@dataclass(frozen=True, slots=True)
class Struct:
    """A struct that the text defines: its type in C, and the paths of what is in network order."""

    type: str
    network_order: frozenset[str]


@dataclass(frozen=True, slots=True)
class Source:
    """What the text declares, and what is compiled for it."""

    compiled: str
    rings: tuple[str, ...]
    histograms: frozenset[str]
    logarithmic: bool  # the histograms' slots are powers of two
    structs: tuple[Struct, ...]
    swapped_maps: frozenset[tuple[str, str]]  # and "key" or "leaf", where that is a number in network order
    hooks: tuple[Hook, ...]


@dataclass(frozen=True, slots=True)
class _Function:
    hook: Hook
    start: int  # of its definition
    parameters: str


def read(text: str) -> Source:
    """Return what *text* declares.

    Raises
    ------
    BadInput
        If nothing of it runs anywhere, or it uses what netlab does not read.
    CapabilityError
        If this kernel has no place of the kind that a function is named for.
    """
    code = _blanked(_NOT_CODE, text)
    _refuse_unread(code)
    outputs = list(_OUTPUT.finditer(code))
    rings = tuple(found[2] for found in outputs)
    blocks = list(_blocks(_blanked(_DIRECTIVE, code)))
    network.refuse_macros(code)
    known = network.types(code)
    structs = tuple(struct for block in blocks if (struct := _struct(code, *block, known)))
    functions = [function for block in blocks if (function := _function(code, *block))]
    if not functions:
        raise BadInput(
            "no function of this probe runs anywhere", fix="Write int raw_tracepoint__EVENT(…) {…}"
        )
    edits = [*_without_headers(code), *_as_rings(outputs), *_counted(code, rings), *_bystanding(functions)]
    added = f"{_layouts(structs)}{_wrappers(functions)}"
    return Source(
        f'#line 1 "{NAME}"\n{_edited(text, edits)}\n#line 1 "netlab"\n{added}',
        rings,
        frozenset(_HISTOGRAM.findall(code)),
        _LOGARITHM.search(code) is not None,
        structs,
        network.maps(code, known),
        tuple(function.hook for function in functions),
    )


def layout_of(place: int) -> str:
    """Return the name of the map that BCC tells the layout of a struct by."""
    return f"netlab_layout_{place}"


def _blanked(pattern: re.Pattern[str], text: str) -> str:
    """Return *text* with blanks where *pattern* matches, and every line as long as it was."""
    return pattern.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)


def _refuse_unread(code: str) -> None:
    if unread := _UNREAD.search(code):
        line = code.count("\n", 0, unread.start()) + 1
        raise BadInput(
            f"line {line}: netlab does not read {unread[1]}",
            fix="Send structs: NAME.ringbuf_output(&event, sizeof(event), 0) or NAME.perf_submit(ctx, …)",
        )


def _blocks(code: str) -> Iterator[tuple[int, int, int]]:
    """Yield each outermost block: where what precedes it begins, where it opens, where it closes."""
    head = opened = depth = 0
    for found in re.finditer(r"[{};]", code):
        if found[0] == "{":
            opened = found.start() if depth == 0 else opened
            depth += 1
        elif found[0] == "}" and depth:
            depth -= 1
            if depth == 0:
                yield head, opened, found.start()
        if depth == 0:
            head = found.end()


def _struct(code: str, head: int, opened: int, closed: int, known: dict[str, network.Paths]) -> Struct | None:
    """Return the struct that a block is the body of, if it has a name; it is *known* from there on."""
    found = _STRUCT.search(code[head:opened])
    if found is None:
        return None
    alias = _ALIAS.match(code, closed + 1)
    name = (alias and alias[1]) if found[1] else found[2] and f"struct {found[2]}"
    body = code[opened + 1 : closed]
    network.learn(body, known, btf.definition)
    order = network.members(body, known)
    known.update(dict.fromkeys(filter(None, (name, found[2] and f"struct {found[2]}")), order))
    return Struct(name, order) if name else None


def _function(code: str, head: int, opened: int, _: int) -> _Function | None:
    """Return the function that a block is the body of, unless it is one that others call."""
    before = _blanked(_DIRECTIVE, code)[head:opened]
    if re.search(r"\b(static|inline|__always_inline)\b", before):
        return None
    if macro := _MACRO.search(before):
        parts = [macro[1].lower(), *(part.strip() for part in macro[2].split(","))]
        return _Function(hook("__".join(parts)), head + macro.start(), "")
    found = _FUNCTION.search(before)
    return found and _Function(hook(found[1]), head + found.start(), found[2])


def _without_headers(code: str) -> list[_Edit]:
    """Take the kernel's headers out: the tree to compile against has all of their types."""
    return [(*found.span(), "") for found in _KERNEL_HEADER.finditer(code)]


def _as_rings(outputs: Iterable[re.Match[str]]) -> Iterator[_Edit]:
    """Make ring buffers of perf buffers: they keep the order of all CPUs and take one reader."""
    for found in outputs:
        if found[1] == "PERF":
            yield *found.span(1), "RINGBUF"
            yield found.end(), found.end(), f", {_PAGES}"


def _counted(code: str, rings: tuple[str, ...]) -> Iterator[_Edit]:
    """Count every record that does not fit: what the kernel returns then is easily passed over."""
    for found in _SEND.finditer(code):
        name, method = found[1], found[2]
        if name not in rings:
            continue
        ends = _ends(code, found.end())
        if not ends:
            continue  # the compiler will say more
        ring, before, after = rings.index(name), found.start(), ends[-1]
        if method == "ringbuf_reserve":
            yield before, before, f"netlab_reserved({ring}, "
        elif method == "ringbuf_output":
            yield before, before, f"netlab_sent({ring}, "
        else:
            lines = "\n" * code.count("\n", before, ends[0])
            yield before, ends[0] + 1, f"netlab_sent({ring}, {name}.ringbuf_output({lines}"
            yield after, after, ", 0"
        yield after, after, ")"


def _ends(code: str, start: int) -> list[int]:
    """Return where each argument of the call that opens before *start* ends; none if the call does not."""
    depth, ends = 0, []
    for found in re.finditer(r"[(),]", code[start:]):
        at = start + found.start()
        if found[0] == "(":
            depth += 1
        elif found[0] == "," and depth == 0:
            ends.append(at)
        elif found[0] == ")":
            if depth == 0:
                return [*ends, at]
            depth -= 1
    return []


def _bystanding(functions: Iterable[_Function]) -> list[_Edit]:
    """Let the kernel call those that decide something by way of netlab's wrappers."""
    return [(f.start, f.start, "static inline ") for f in functions if f.hook.verdict is not None]


def _wrappers(functions: Iterable[_Function]) -> str:
    """Return functions that ignore what those of the text return: a probe must not cut off its host."""
    return "".join(
        f"int {f.hook.compiled}({' '.join(f.parameters.split())}) "
        f"{{ {f.hook.function}({_first_name(f.parameters)}); return {f.hook.verdict}; }}\n"
        for f in functions
        if f.hook.verdict is not None
    )


def _first_name(parameters: str) -> str:
    names = re.findall(r"\w+", parameters.partition(",")[0])
    return names[-1] if names else ""


def _layouts(structs: Iterable[Struct]) -> str:
    return "".join(f"BPF_ARRAY({layout_of(place)}, {s.type}, 1);\n" for place, s in enumerate(structs))


def _edited(text: str, edits: Iterable[_Edit]) -> str:
    parts, position = [], 0
    for start, end, instead in sorted(edits, key=lambda edit: edit[:2]):
        parts += [text[position:start], instead]
        position = end
    return "".join([*parts, text[position:]])
