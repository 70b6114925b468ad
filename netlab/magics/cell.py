"""`%%bpf`: a cell of C, run as an eBPF probe, its rows shown as they come and kept as frames."""

from __future__ import annotations

import argparse
import keyword
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, NoReturn

import pandas as pd

from netlab import checks
from netlab.errors import BadInput
from netlab.frames import Gap, Missing
from netlab.magics.tail import ROWS, Shown, Tail
from netlab.magics.words import brief, split
from netlab.probes.probe import Probe, probe

_EVERY_S = 0.25  # nobody reads faster
_REST = 3  # a look that takes long is followed by this many times as long without one


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise BadInput(f"%%bpf: {message}", fix=self.format_usage().strip())


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="%%bpf", add_help=False, allow_abbrev=False)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--binary", action="append", default=[], metavar="NAME=PATH")
    parser.add_argument("--max-rows", type=int, default=1_000_000)
    parser.add_argument("names", nargs="*", metavar="NAME[=OUTPUT]")
    return parser


def bpf_magic(shell: Any) -> Callable[[str, str], pd.DataFrame | None]:
    """Return `%%bpf` for *shell*, whose variables it sets."""

    def bpf(line: str, cell: str) -> pd.DataFrame | None:
        """%%bpf [--seconds N] [--binary NAME=PATH] [--max-rows N] [NAME[=OUTPUT] ...]

        Runs the cell, C for BCC, as an eBPF probe for N seconds, or until it is interrupted, and shows its
        latest rows meanwhile. Functions run where their names say, as in `netlab.probe()`. NAME becomes the
        frame of the cell's only ring buffer or map; where there are several, NAME=OUTPUT says which. Without
        a NAME the frame is the value of the cell.
        """  # noqa: D400 - it is what %%bpf? shows
        with brief():
            options = _parser().parse_args(split(line))
            if options.seconds is not None:
                checks.positive("--seconds", options.seconds, unit="seconds", most=threading.TIMEOUT_MAX)
            wanted = _wanted(options.names)
            found = probe(cell, binaries=_paths(options.binary), max_rows=options.max_rows)
            with found:
                outputs = _outputs(wanted, found.rings, found.names)
                cut_short = _watched(found, list(outputs.values()), options.seconds, Tail(shell))
            frames = {name: found[output] for name, output in outputs.items()}
            for frame in frames.values():
                frame.attrs["coverage"] += [asdict(gap) for gap in cut_short]
            shell.push({name: frame for name, frame in frames.items() if name})
            return frames.get("")

    return bpf


def _wanted(words: Sequence[str]) -> dict[str, str]:
    """Return the output for each name, which is empty where the line does not say."""
    pairs = [word.partition("=") for word in words]
    for name, _, _ in pairs:
        if not name.isidentifier() or keyword.iskeyword(name):
            raise BadInput(
                f"%%bpf: {name!r} is no name for a variable", fix="%%bpf NAME or %%bpf NAME=OUTPUT"
            )
    return {name: output for name, _, output in pairs} or {"": ""}


def _paths(words: Sequence[str]) -> dict[str, str]:
    pairs = {name: path for name, _, path in (word.partition("=") for word in words)}
    for name, path in pairs.items():
        if not path:
            raise BadInput(f"%%bpf: --binary {name} has no path", fix="--binary app=/usr/bin/app")
    return pairs


def _outputs(wanted: Mapping[str, str], rings: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """Return which output each name stands for: the only ring buffer, or the only map, where none is said."""
    for output in wanted.values():
        if output:
            checks.choice("output", output, names)
    choice = rings or names
    unsaid = [name for name, output in wanted.items() if not output]
    if unsaid and not choice:
        raise BadInput("nothing comes out of this probe", fix="Add BPF_RINGBUF_OUTPUT(events, 64);")
    if unsaid and len(choice) > 1:
        raise BadInput(
            f"this probe has several outputs: {', '.join(names)}",
            fix=f"Say which: %%bpf {unsaid[0] or 'name'}={choice[0]}",
        )
    return {name: output or choice[0] for name, output in wanted.items()}


def _watched(found: Probe, outputs: Sequence[str], seconds: float | None, tail: Tail) -> list[Missing]:
    """Show the latest rows until the time is up; return what is missing if it was cut short."""
    began_s = time.monotonic()
    end_s = began_s + (float("inf") if seconds is None else seconds)
    cut_short = []

    def shown(state: str) -> Shown:
        of = f" of {seconds:g}" if seconds is not None else ""
        after = f"{state} after {time.monotonic() - began_s:.1f}{of} s"
        return Shown(after, {name: found.glance(name, ROWS) for name in outputs})

    state = "ended"
    try:
        while (look_s := time.monotonic()) < end_s:
            tail.show(shown("running"))
            rest_s = max(_EVERY_S, _REST * (time.monotonic() - look_s))
            time.sleep(max(0.0, min(rest_s, end_s - time.monotonic())))
    except KeyboardInterrupt:
        if seconds is not None:
            state = "interrupted"
            after_s = time.monotonic() - began_s
            cut_short.append(
                Missing("rows", Gap.INCOMPLETE, None, f"interrupted after {after_s:.1f} of {seconds:g} s")
            )
    tail.end(shown(state))
    return cut_short
