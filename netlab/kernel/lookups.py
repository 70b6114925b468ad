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
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from netlab.errors import KernelError
from netlab.kernel import netlink, nexthops, routemessages
from netlab.kernel.nlattr import attribute
from netlab.kernel.rtnetlink import FAMILIES, attributes, text

_GET_ROUTE, _REQUEST, _ERROR = 26, 1, 2
_LOOKUP_TABLE, _FIB_MATCH = 0x1000, 0x2000  # RTM_F_*: name the table; the route itself instead of its result
_HEADER, _BODY = struct.Struct("=IHHII"), struct.Struct("=8BI")  # struct nlmsghdr; struct rtmsg
_NUMBER = struct.Struct("=I")
_DESTINATION, _SOURCE, _ARRIVED, _INTERFACE, _PRIORITY = 1, 2, 3, 4, 6  # RTA_*, as those below
_PREFERRED, _METRICS, _MULTIPATH, _TABLE = 7, 8, 9, 15
_MARK, _UID, _PROTOCOL, _SOURCE_PORT, _PORT, _NEXTHOP_ID = 16, 25, 27, 28, 29, 30
_ANSWER = struct.Struct("=IHHIIi")  # a header, and the errno that an error message carries
_LARGEST = 1 << 16
_BATCH = 64  # requests in flight: the answers of one batch fit into any receive buffer
_DOING = "look up routes"

# What leads nowhere: as a type of route IPv6 tells it, as an errno IPv4 does (fib_props, fib_semantics.c).
_ERRORS = {"blackhole": errno.EINVAL, "unreachable": errno.EHOSTUNREACH, "prohibit": errno.EACCES}
_KINDS = {code: kind for kind, code in _ERRORS.items()} | {errno.ENETUNREACH: "none"}
_REASONS = {
    "blackhole": "a blackhole route or rule: packets are thrown away without a word",
    "unreachable": "an unreachable route",
    "prohibit": "a prohibit route or rule",
    "none": "no route matches, or an unreachable rule",
}
_NOT_TAKEN = {
    errno.EINVAL: "thrown away: by a blackhole route, as martian, or by the reverse path filter (rp_filter)",
    errno.EHOSTUNREACH: "no route, or not forwarded: net.ipv4.ip_forward is 0 here",
    errno.EXDEV: "thrown away: by the reverse path filter (rp_filter)",  # before Linux 6.15
}  # ip_route_input_slow(), net/ipv4/route.c
FOREIGN = "the source is no address of this network namespace"


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
    arrived: int = 0  # the interface that it came by, of a packet that is not this namespace's own


@dataclass(frozen=True, slots=True)
class Answer:
    """What the kernel said; *index* is the interface's, 0 where the packet does not leave."""

    type: str | None = None
    gateway: str | None = None
    index: int = 0
    address: str | None = None
    table: int | None = None
    mtu: int | None = None
    error: str | None = None
    reason: str | None = None
    route: str | None = None  # the network of the route that matched, and what else that route has
    metric: int | None = None
    nexthops: int | None = None
    object: int | None = None  # the next hop object that stands for the next hops


def answers(kernel: socket.socket, questions: Sequence[Question]) -> list[Answer]:
    """Return the kernel's answer to each question, in order."""
    found, matched = _found(kernel, questions)
    strayed = [
        place for place, question in enumerate(questions) if _may_stray(question, _index(found[place]))
    ]
    again = [questions[place]._replace(source=b"") for place in strayed]
    for place, told, route in zip(strayed, *_found(kernel, again), strict=True):
        if _index(told) in {0, questions[place].interface}:  # else it is a VRF, whose routes lead elsewhere
            found[place], matched[place] = told, route
    foreign = _foreign(kernel, questions, found)
    answered = [
        Answer(error=errno.errorcode.get(told), reason=FOREIGN)
        if isinstance(told, int) and question.source in foreign
        else answer(question, told, route)
        for question, told, route in zip(questions, found, matched, strict=True)
    ]
    return _counted(kernel, answered)


def _counted(kernel: socket.socket, answered: list[Answer]) -> list[Answer]:
    """Return the answers with the number of next hops of routes that only name an object."""
    if not any(one.object for one in answered):
        return answered
    known = nexthops.objects(kernel)
    return [replace(one, nexthops=len(known[one.object])) if one.object in known else one for one in answered]


def _found(
    kernel: socket.socket, questions: Sequence[Question]
) -> tuple[list[bytes | int], list[bytes | int]]:
    """Return the way of each question, and the route that matched."""
    count = len(questions)
    told = _asked(kernel, [*questions, *questions], [0] * count + [_FIB_MATCH] * count)
    return told[:count], told[count:]


def _may_stray(question: Question, index: int) -> bool:
    """Tell whether IPv6 has taken the interface as a mere wish, as it does where a source is given.

    A socket that is bound to it gets no other (RT6_LOOKUP_F_IFACE, ip6_route_output_flags()); nor does a
    question without a source.
    """
    bound = question.family == 6 and question.interface and question.source and not question.arrived
    return bool(bound) and index != question.interface


def _index(told: bytes | int) -> int:
    """Return by which interface an answer says that packets leave; 0 if it says none."""
    return (
        0 if isinstance(told, int) else _whole(attributes(told[_HEADER.size + _BODY.size :]), _INTERFACE) or 0
    )


def answer(question: Question, told: bytes | int, matched: bytes | int) -> Answer:
    """Return what two messages say: the way, and the route that matched; a number is an errno instead."""
    try:
        return _answer(question, told, matched)
    except (struct.error, ValueError) as error:
        raise KernelError(f"the kernel's answer to a route look-up cannot be read: {error}") from error


def _answer(question: Question, told: bytes | int, matched: bytes | int) -> Answer:
    if isinstance(told, int):
        answer = _refused(told, _KINDS.get(told), matched)
        if question.arrived and question.family == 4 and told in _NOT_TAKEN:
            return replace(answer, type=None, reason=_NOT_TAKEN[told])
        return answer
    *_, table, _, _, number, _ = _BODY.unpack_from(told, _HEADER.size)
    inside = attributes(told[_HEADER.size + _BODY.size :])
    kind = routemessages.TYPES.get(number)
    if kind in _ERRORS:
        return _refused(_ERRORS[kind], kind, matched)
    return Answer(
        type=kind,
        gateway=routemessages.gateway(inside),
        index=_whole(inside, _INTERFACE) or 0,
        address=text(address) if (address := question.source or inside.get(_PREFERRED)) else None,
        table=_whole(inside, _TABLE) or table or None,
        mtu=routemessages.mtu(inside.get(_METRICS, b"")),
        **_route(matched),
    )


def _refused(code: int, kind: str | None, matched: bytes | int) -> Answer:
    reason = _REASONS.get(kind or "", os.strerror(code))
    return Answer(type=kind, error=errno.errorcode.get(code, str(code)), reason=reason, **_route(matched))


def _route(matched: bytes | int) -> dict[str, Any]:
    """Return what is told of the route itself; where no table was needed there is none."""
    if isinstance(matched, int):
        return {}
    family, length, *_ = _BODY.unpack_from(matched, _HEADER.size)
    inside = attributes(matched[_HEADER.size + _BODY.size :])
    network = inside.get(_DESTINATION, bytes(4 if family == socket.AF_INET else 16))
    hops, named = inside.get(_MULTIPATH), _whole(inside, _NEXTHOP_ID)
    if hops is None and named and _INTERFACE not in inside:
        return {
            "route": f"{text(network)}/{length}",
            "metric": _whole(inside, _PRIORITY) or 0,
            "object": named,
        }
    return {
        "route": f"{text(network)}/{length}",
        "metric": _whole(inside, _PRIORITY) or 0,
        "nexthops": 1 if hops is None else len(routemessages.next_hops(hops)),
    }


def _whole(inside: dict[int, bytes], kind: int) -> int | None:
    return int.from_bytes(inside[kind], sys.byteorder) if kind in inside else None


def _foreign(kernel: socket.socket, questions: Sequence[Question], found: list[bytes | int]) -> set[bytes]:
    """Return the sources of refused questions that are not this host's, which IPv4 wants them to be.

    The errno is that of a blackhole (older kernels) or that of no route.
    """
    doubtful = {
        question.source
        for question, told in zip(questions, found, strict=True)
        if told in {errno.EINVAL, errno.ENETUNREACH} and question.family == 4
        if question.source and not question.arrived
    }
    told = _asked(kernel, [Question(4, source) for source in doubtful], [0] * len(doubtful))
    return {source for source, answer in zip(doubtful, told, strict=True) if not _is_local(answer)}


def _is_local(answer: bytes | int) -> bool:
    if isinstance(answer, int):
        return False
    *_, number, _ = _BODY.unpack_from(answer, _HEADER.size)
    return routemessages.TYPES.get(number) == "local"


def _asked(kernel: socket.socket, questions: Sequence[Question], flags: Sequence[int]) -> list[bytes | int]:
    """Return the message that answers each question, asked with its *flags*, or the errno of the refusal."""
    told: list[bytes | int] = []
    try:
        for first in range(0, len(questions), _BATCH):
            batch = slice(first, first + _BATCH)
            told += _exchange(kernel, questions[batch], flags[batch])
    except TimeoutError as error:
        raise KernelError(f"the kernel stopped answering while netlab tried to {_DOING}") from error
    except OSError as error:
        raise netlink.refusal(error.errno, _DOING) from error
    return told


def _exchange(
    kernel: socket.socket, questions: Sequence[Question], flags: Sequence[int]
) -> list[bytes | int]:
    """Send requests in one block, and receive their answers."""
    first = secrets.randbits(31)
    asked = enumerate(zip(questions, flags, strict=True), first)
    kernel.send(b"".join(_request(question, flag, sequence) for sequence, (question, flag) in asked))
    told: list[bytes | int] = []
    while len(told) < len(questions):
        block = kernel.recv(_LARGEST)
        _, kind, _, sequence, _, code = _ANSWER.unpack_from(block)
        if sequence == first + len(told):  # any other answers a request that was given up
            told.append(-code if kind == _ERROR else block)
    return told


def _request(question: Question, flags: int, sequence: int) -> bytes:
    """Return a netlink message that says what is known."""
    source, destination = question.source, question.destination
    family, *lengths = FAMILIES[question.family], 8 * len(destination), 8 * len(source)
    parts = [
        _BODY.pack(family, *lengths, 0, 0, 0, 0, 0, flags | _LOOKUP_TABLE),
        attribute(_DESTINATION, destination),
    ]
    if source:
        parts.append(attribute(_SOURCE, source))
    numbers = (_ARRIVED, question.arrived), (_INTERFACE, question.interface), (_MARK, question.mark)
    parts += [attribute(kind, _NUMBER.pack(value)) for kind, value in numbers if value]
    if question.uid is not None:  # else the kernel takes this process's, or nobody's for what has arrived
        parts.append(attribute(_UID, _NUMBER.pack(question.uid)))
    if question.protocol:
        parts.append(attribute(_PROTOCOL, bytes([question.protocol])))
        parts.append(attribute(_SOURCE_PORT, question.source_port.to_bytes(2, "big")))
        parts.append(attribute(_PORT, question.port.to_bytes(2, "big")))
    content = b"".join(parts)
    return _HEADER.pack(_HEADER.size + len(content), _GET_ROUTE, _REQUEST, sequence, 0) + content
