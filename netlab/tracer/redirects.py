"""Where packets go whose destination their own network namespace translates, as that of a service is (DNAT).

The kernel looks for a way again then, by the new destination: ip_route_me_harder(), net/ipv4/netfilter.c,
which nf_nat_ipv4_local_fn() calls.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from netlab.errors import NetlabError
from netlab.kernel import netns as namespaces, spaces
from netlab.kernel.translation import translate

_TUPLE = ["protocol", "local_address", "local_port", "remote_address", "remote_port"]
# Connections that agree in these are translated alike, and in the same places.
_ALIKE = ["netns", "protocol", "remote_address", "remote_port", "nat_remote_address", "nat_remote_port"]
_MOST_ASKED = 4  # of those that are alike: the entries of some are gone
_Tuples: TypeAlias = list[tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Sent:
    """Where packets of connections leave their namespace for."""

    to: pd.Series[str]
    elsewhere: npt.NDArray[np.bool_]  # not to the address that the socket uses
    unknown: npt.NDArray[np.bool_]  # whether elsewhere


def destinations(connections: pd.DataFrame) -> Sent:
    """Return the address that packets of each leave its namespace for, as its conntrack says."""
    used, unknown = connections["remote_address"].astype("string"), np.zeros(len(connections), bool)
    translated = connections["nat_remote_address"].astype("string").fillna(used) != used
    places = np.flatnonzero(translated.to_numpy(bool, na_value=False))
    if not len(places):
        return Sent(used, unknown, unknown)
    rows = connections[[*dict.fromkeys([*_ALIKE, *_TUPLE, "closed_at"])]].iloc[places].reset_index(drop=True)
    codes = rows.groupby(_ALIKE, dropna=False, sort=False, observed=True).ngroup().to_numpy()
    newest = rows.assign(code=codes, over=rows["closed_at"].notna())[::-1].dropna(subset=_TUPLE)
    some = newest.sort_values("over", kind="stable").groupby("code").head(_MOST_ASKED)
    asked: dict[int, dict[int, _Tuples]] = defaultdict(lambda: defaultdict(list))
    for inode, code, *one in zip(some["netns"], some["code"], *(some[name] for name in _TUPLE), strict=True):
        asked[inode][code].append(tuple(one))
    told = _answers(asked)
    found = np.array([told.get(code) for code in range(codes.max() + 1)], object)[codes]
    known = np.array([one is not None for one in found])
    sent_to = used.copy()
    sent_to.iloc[places[known]] = found[known]
    unknown[places[~known]] = True
    return Sent(sent_to, (sent_to != used).to_numpy(bool), unknown)


def _answers(asked: dict[int, dict[int, _Tuples]]) -> dict[int, str]:
    """Ask each namespace for its own; one that does not answer is passed over."""

    def question() -> dict[int, str]:
        here = asked.get(namespaces.inode(), {})
        told = {code: _sent_to(tuples) for code, tuples in here.items()}
        return {code: address for code, address in told.items() if address is not None}

    found: dict[int, str] = {}
    own = namespaces.inode()
    with contextlib.suppress(NetlabError):
        found |= question()
    if others := set(asked) - {own}:
        for one in spaces.ask(spaces.ALL, question, only=others).by_inode.values():
            found |= one
    return found


def _sent_to(tuples: Sequence[tuple[Any, ...]]) -> str | None:
    """Return what becomes of the destination of the first that the calling thread's namespace tracks."""
    for one in tuples:
        with contextlib.suppress(NetlabError):
            if found := translate(*one):
                return found.dst
    return None
