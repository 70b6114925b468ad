"""The answers of many hosts as one frame, in which every row and every gap says of which host it is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import pandas as pd

from netlab.agent.formats import decoded
from netlab.bundle.merging import hosted
from netlab.errors import CaptureError, DecodeError, NetlabError
from netlab.fleet.asking import Answers
from netlab.fleet.here import CLOCK, PLACE
from netlab.frames import Gap, Missing, concat
from netlab.schemas import HOPS

ROWS = "all rows of a host"
_LEAST_SKEW_NS = 100_000_000  # less moves no row to where somebody would look for another cause
_TWICE = "are workers on one machine: its rows are there for each of them; start one worker on each machine"


def merged(answers: Answers) -> pd.DataFrame:
    """Return the frames of all hosts under each other; a host without one is a gap that says why.

    Raises the error itself where no host has answered.
    """
    frames: dict[str, pd.DataFrame] = {}
    errors: dict[str, Exception] = {}
    for host, answer in answers.items():
        if isinstance(answer, Exception):
            errors[host] = answer
            continue
        try:
            frames[host] = decoded(answer.value)
        except DecodeError as error:
            errors[host] = error
    require(frames, errors)
    skews = [_skew(host, frame.attrs.pop(CLOCK, None), answers[host]) for host, frame in frames.items()]
    repeated = _repeated({host: frame.attrs.pop(PLACE, None) for host, frame in frames.items()})
    whole = concat([hosted(frame, [host] * len(frame), of=host) for host, frame in frames.items()])
    whole.attrs["coverage"] += [asdict(gap_of(host, error, ROWS)) for host, error in errors.items()]
    if whole.attrs["schema"] != HOPS.name:  # each has sent probes of its own
        whole.attrs["coverage"] += map(asdict, repeated)
    whole.attrs["coverage"] += [asdict(skew) for skew in skews if skew]
    return whole


def _skew(host: str, at_ns: int | None, answer: Any) -> Missing | None:
    """Return by how much, at least, a host's clock differs from this one's, if it does.

    Both would agree that it answered between being asked and being heard.
    """
    if at_ns is None:  # by a netlab that does not say
        return None
    behind_ns, ahead_ns = answer.asked_ns - at_ns, at_ns - answer.heard_ns
    most_ns = max(behind_ns, ahead_ns)
    if most_ns < _LEAST_SKEW_NS:
        return None
    # One digit, so that what is missing stays the same from look to look.
    digit = 10 ** math.floor(math.log10(most_ns))
    size_s = most_ns // digit * digit / 1e9
    which = "behind" if behind_ns > ahead_ns else "ahead of"
    detail = f"{host}: its clock is more than {size_s:g} s {which} the one here, and so are its times"
    return Missing("times", Gap.APPROXIMATE, None, detail)


def _repeated(places: Mapping[str, Any]) -> list[Missing]:
    """Return which hosts are workers in one place, each of which has told all that is there."""
    hosts: dict[str, list[str]] = {}
    for host, place in places.items():
        if place is not None:
            hosts.setdefault(str(place), []).append(host)
    return [
        Missing("rows", Gap.APPROXIMATE, None, f"{' and '.join(group)} {_TWICE}")
        for group in hosts.values()
        if len(group) > 1
    ]


def require(answered: object, errors: Mapping[str, Exception]) -> None:
    """Raise if nobody has answered: the one error that all met, or one that tells all of them."""
    if answered or not errors:
        return
    first = next(iter(errors.values()))
    if len({_words(error) for error in errors.values()}) == 1 and isinstance(first, NetlabError):
        raise first
    told = "; ".join(f"{host}: {_words(error)}" for host, error in errors.items())
    raise CaptureError(f"no host has answered: {told}") from first


def gap_of(host: str, error: Exception, what: str) -> Missing:
    """Return what a host's error leaves missing."""
    late = isinstance(error, TimeoutError | ConnectionError)
    kind = Gap.INCOMPLETE if late else Gap.UNAVAILABLE
    return Missing(what, kind, None, f"{host}: {_words(error)}")


def _words(error: Exception) -> str:
    plain = isinstance(error, NetlabError | TimeoutError | ConnectionError)
    return str(error) if plain else f"{type(error).__name__}: {error}"
