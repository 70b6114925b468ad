"""Route look-ups: which way the kernel would send a packet, asked for many destinations over one socket.

RTM_GETROUTE without a dump asks the routing code itself (inet_rtm_getroute, net/ipv4/route.c;
inet6_rtm_getroute, net/ipv6/route.c), policy rules, learned exceptions and the choice among several next
hops included. Each request has one answer, in order: a route, or an error message.
"""

from __future__ import annotations

import errno
import os
import secrets
import socket
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from netlab.kernel import netlink, routemessages
from netlab.kernel.rtnetlink import FAMILIES

_GET_ROUTE, _ERROR = 26, 2
_LOOKUP_TABLE, _FIB_MATCH = 0x1000, 0x2000  # RTM_F_*: name the table; the route itself instead of its result
_ANSWER = struct.Struct("=IHHIIi")  # a header, and the errno that an error message carries
_LARGEST = 1 << 16
_BATCH = 64  # requests in flight: the answers of one batch fit into any receive buffer
_DOING = "look up routes"

# Errors that stand for a route that leads nowhere, and for none.
_MEANINGS = {
    errno.EINVAL: ("blackhole", "a blackhole route or rule: packets are thrown away without a word"),
    errno.EHOSTUNREACH: ("unreachable", "an unreachable route"),
    errno.EACCES: ("prohibit", "a prohibit route or rule"),
    errno.ENETUNREACH: ("none", "no route matches, or an unreachable rule"),
}
_KINDS = {code: kind for code, (kind, _) in _MEANINGS.items()}
_REASONS = {code: os.strerror(code) for code in errno.errorcode} | {
    code: words for code, (_, words) in _MEANINGS.items()
}
FOREIGN = "the source is no address of this network namespace"
_LEADS_NOWHERE = ["blackhole", "unreachable", "prohibit", "none"]


class Question(NamedTuple):
    """What a packet looks like to the routing code; 0 and empty stand for what is not known."""

    family: int  # 4 or 6
    destination: bytes
    source: bytes = b""
    interface: int = 0
    mark: int = 0
    uid: int | None = None  # None: this process's own
    protocol: int = 0  # TCP or UDP; without it the ports do not count
    source_port: int = 0
    port: int = 0


def answers(kernel: socket.socket, questions: Sequence[Question]) -> pd.DataFrame:
    """Return the kernel's answer to each question, in order.

    Columns `type`, `gateway`, `index` (of the interface), `address`, `table`, `mtu`, `error`, `reason`, and
    of the route that matched: `route`, `metric`, `nexthops`.
    """
    if not questions:
        return _ANSWERS
    parts = []
    families = np.array([question.family for question in questions])
    for family in FAMILIES:
        places = np.flatnonzero(families == family)
        if len(places):
            some = [questions[place] for place in places]
            parts.append(_of_family(kernel, some, family).set_axis(places))
    return pd.concat(parts).sort_index().reset_index(drop=True)


def _of_family(kernel: socket.socket, questions: list[Question], family: int) -> pd.DataFrame:
    found = _asked(kernel, questions, family, 0)
    matched = _asked(kernel, questions, family, _FIB_MATCH)
    refused = found["refusal"].fillna(found["error"])
    refused = refused.fillna(found["type"].map(routemessages.ERRORS).astype("Int64"))
    kind = _named(found["type"], routemessages.TYPES).fillna(_named(refused, _KINDS))
    reason = _named(refused, _REASONS)
    foreign = _foreign(kernel, questions, found["refusal"], family)
    dead = kind.isin(_LEADS_NOWHERE).to_numpy(bool) | foreign
    sources = pd.Series([text(question.source) for question in questions], dtype="string")
    return pd.DataFrame(
        {
            "type": kind.mask(foreign),
            "gateway": found["gateway"].mask(dead),
            "index": found["index"].mask(dead),
            "address": sources.fillna(found["address"]).mask(dead | found["index"].isna()),
            "table": found["table"].mask(found["table"] == 0),
            "mtu": found["mtu"].mask(dead),
            "error": _named(refused, errno.errorcode),
            "reason": reason.mask(foreign, FOREIGN),
            "route": matched["destination"],
            "metric": matched["metric"],
            "nexthops": matched["nexthops"],
        }
    )


def _named(numbers: pd.Series[int], words: dict[int, str]) -> pd.Series[str]:
    return numbers.map(words).astype("string")


def _foreign(
    kernel: socket.socket, questions: list[Question], refusal: pd.Series, family: int
) -> npt.NDArray[np.bool_]:
    """Tell which refusals are about the source, which IPv4 wants to be this host's.

    The errno is that of a blackhole (older kernels) or that of no route.
    """
    foreign = np.zeros(len(questions), bool)
    refused = np.flatnonzero(refusal.isin([errno.EINVAL, errno.ENETUNREACH]))
    doubtful = [place for place in refused if questions[place].source]
    if family == 4 and doubtful:
        sources = [Question(family, questions[place].source) for place in doubtful]
        own = _asked(kernel, sources, family, 0)["type"].map(routemessages.TYPES).eq("local")
        foreign[doubtful] = ~own.fillna(value=False).to_numpy(bool)
    return foreign


def text(address: bytes) -> str | None:
    """Return an address as text, None for the empty one."""
    if not address:
        return None
    return socket.inet_ntop(socket.AF_INET if len(address) == 4 else socket.AF_INET6, address)


def _asked(kernel: socket.socket, questions: list[Question], family: int, flags: int) -> pd.DataFrame:
    """Return what the messages say, one row for each question; `refusal` is the errno of an error message."""
    refusals = np.zeros(len(questions), np.int64)
    routes: list[bytes] = []
    has_flow = np.array([question.protocol != 0 for question in questions])
    order = np.concatenate([np.flatnonzero(~has_flow), np.flatnonzero(has_flow)])
    try:
        for flow in (False, True):
            places = np.flatnonzero(has_flow == flow)
            requests = _requests([questions[place] for place in places], family, flags, flow=flow)
            for first in range(0, len(requests), _BATCH):
                some = places[first : first + _BATCH]
                refusals[some], told = _exchange(kernel, requests[first : first + _BATCH])
                routes += told
    except TimeoutError as error:
        raise netlink.KernelError(f"the kernel stopped answering while netlab tried to {_DOING}") from error
    except OSError as error:
        raise netlink.refusal(error.errno, _DOING) from error
    dump = netlink.Dump.of(np.frombuffer(b"".join(routes), np.uint32))
    found = routemessages.decoded(dump, family).drop_duplicates("row")
    answered = order[refusals[order] == 0]
    found = found.set_axis(answered[found["row"]]).reindex(range(len(questions)))
    return found.assign(refusal=pd.array(np.where(refusals, refusals, -1), "Int64")).replace({"refusal": {-1: pd.NA}})


def _exchange(
    kernel: socket.socket, requests: npt.NDArray[np.void]
) -> tuple[npt.NDArray[np.int64], list[bytes]]:
    """Send requests in one message and receive their answers: an errno or 0 for each, and the routes."""
    first = int(requests["sequence"][0])
    kernel.send(requests.tobytes())
    refusals, routes = np.zeros(len(requests), np.int64), []
    place = 0
    while place < len(requests):
        block = kernel.recv(_LARGEST)
        _, kind, _, sequence, _, code = _ANSWER.unpack_from(block)
        if sequence != first + place:
            continue  # an answer to a request that was given up
        if kind == _ERROR:
            refusals[place] = -code
        else:
            routes.append(block)
        place += 1
    return refusals, routes


def _requests(
    questions: list[Question], family: int, flags: int, *, flow: bool
) -> npt.NDArray[np.void]:
    """Return netlink messages; what is not known is zero, which the kernel takes for absent."""
    size = 4 if family == 4 else 16
    requests = np.zeros(len(questions), _request(size, flow=flow))
    first = secrets.randbits(31)
    requests["length"], requests["message"], requests["request"] = requests.dtype.itemsize, _GET_ROUTE, 1
    requests["sequence"] = np.arange(first, first + len(questions))
    requests["body"]["family"] = FAMILIES[family]
    requests["body"]["destination_length"] = 8 * size
    requests["body"]["source_length"] = [8 * len(question.source) for question in questions]
    requests["body"]["flags"] = flags | _LOOKUP_TABLE
    own = os.getuid()
    for name, kind, values in (
        ("destination", 1, [question.destination for question in questions]),
        ("source", 2, [question.source for question in questions]),
        ("interface", 4, [question.interface for question in questions]),
        ("mark", 16, [question.mark for question in questions]),
        ("uid", 25, [own if question.uid is None else question.uid for question in questions]),
        ("protocol", 27, [question.protocol for question in questions]),
        ("source_port", 28, [question.source_port for question in questions]),
        ("port", 29, [question.port for question in questions]),
    ):
        if name in requests.dtype.names:
            requests[name]["kind"] = kind
            requests[name]["value"] = values
            requests[name]["length"] = 4 + requests[name]["value"].dtype.itemsize
    return requests


def _request(address_size: int, *, flow: bool) -> np.dtype[np.void]:
    """Return the layout of a request: nlmsghdr, rtmsg, and attributes padded to four bytes."""
    fields: list[Any] = [
        ("length", "u4"),
        ("message", "u2"),
        ("request", "u2"),
        ("sequence", "u4"),
        ("port_id", "u4"),
        ("body", routemessages.BODY),
        ("destination", _attribute(f"S{address_size}")),
        ("source", _attribute(f"S{address_size}")),
        ("interface", _attribute("u4")),
        ("mark", _attribute("u4")),
        ("uid", _attribute("u4")),
    ]
    if flow:
        fields += [
            ("protocol", _attribute("u1", 3)),
            ("source_port", _attribute(">u2", 2)),
            ("port", _attribute(">u2", 2)),
        ]
    return np.dtype(fields)


def _attribute(value: str, padding: int = 0) -> np.dtype[np.void]:
    fields = [("length", "u2"), ("kind", "u2"), ("value", value)]
    return np.dtype([*fields, ("", f"V{padding}")] if padding else fields)


_ANSWERS = pd.DataFrame(
    {
        name: pd.array([], dtype)
        for name, dtype in {
            "type": "string",
            "gateway": "string",
            "index": "Int64",
            "address": "string",
            "table": "Int64",
            "mtu": "Int64",
            "error": "string",
            "reason": "string",
            "route": "string",
            "metric": "Int64",
            "nexthops": "Int64",
        }.items()
    }
)
