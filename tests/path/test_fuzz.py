"""Mutated answers: no crash, and no probe but the one that the bytes speak of.

NETLAB_FUZZ=1000000 says how many; a normal run takes fewer.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from flows import KINDS, flow

from netlab.errors import DecodeError
from netlab.path.matching import Match, Register
from netlab.path.probes import Flow, Protocol
from netlab.wire import icmp, ip

COUNT = int(os.environ.get("NETLAB_FUZZ", "30000"))
FLOWS, MARKS = range(3), range(1000, 1060)
ECHO = {4: icmp.ECHO_REPLY[4], 6: icmp.ECHO_REPLY[6]}
SHORT, LONG = 8, 1000


@dataclass(frozen=True)
class Mutant:
    """A damaged answer to the probe *mark* of *flow*, once as it came and once with a checksum that fits."""

    flow: int
    mark: int
    data: bytes


def register(protocol: Protocol, family: int) -> Register:
    found = Register()
    for number in FLOWS:
        found.add(flow(protocol, family, number=number))
        for mark in MARKS:
            found.sent(number, mark)
    return found


def mutants(protocol: Protocol, family: int, *, answers: bool, count: int, seed: int) -> Iterator[Mutant]:
    draw = random.Random(seed)
    for _ in range(count):
        number, mark = draw.choice(FLOWS), draw.choice(MARKS)
        ours = flow(protocol, family, number=number)
        whole = answer(ours, mark) if answers else error(ours, mark, draw.choice([SHORT, LONG]))
        yield Mutant(number, mark, mutated(whole, draw))


def error(ours: Flow, mark: int, size: int) -> bytes:
    """Return an ICMP error about a probe, sealed."""
    packet = ours.packet(3, mark)[: {4: 20, 6: 40}[ours.family] + size]
    return icmp.error(ours.family, icmp.Error.TIME_EXCEEDED, packet).encode(ours.target, ours.source)


def answer(ours: Flow, mark: int) -> bytes:
    """Return what a target sends back: the probe itself with its ends exchanged, or its echo."""
    _, transport = ip.decode(ours.packet(3, mark))
    if ours.protocol_number in {ip.ICMP, ip.ICMPV6}:
        return bytes([ECHO[ours.family]]) + transport[1:]
    return transport[2:4] + transport[:2] + transport[4:]


def mutated(data: bytes, draw: random.Random) -> bytes:
    """Return *data* with one to four kinds of damage."""
    damaged = bytearray(data)
    for _ in range(draw.randint(1, 4)):
        place = draw.randrange(len(damaged)) if damaged else 0
        match draw.randrange(6):
            case 0 if damaged:
                damaged[place] ^= 1 << draw.randrange(8)
            case 1 if damaged:
                damaged[place] = draw.choice([0, 1, 0x7F, 0x80, 0xFF])
            case 2:
                del damaged[place:]
            case 3:
                damaged[place:place] = draw.randbytes(draw.randint(1, 40))
            case 4:
                del damaged[place : place + draw.randint(1, 8)]
            case 5 if len(damaged) > 4:
                other = draw.randrange(len(damaged) - 1)
                damaged[place : place + 2], damaged[other : other + 2] = (
                    damaged[other : other + 2],
                    damaged[place : place + 2],
                )
    return bytes(damaged)


def read(ours: Register, family: int, data: bytes, *, sealed: bool) -> Match | None:
    try:
        if sealed:
            message = icmp.decode(family, data)
        else:
            if len(data) < 8:
                return None
            message = icmp.Message(family=family, type=data[0], code=data[1], rest=data[4:8], body=data[8:])
        return ours.error(message.error, icmp.quote(message)) if message.error else None
    except DecodeError:
        return None


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("protocol", KINDS)
def test_a_damaged_error_fits_its_own_probe_or_none(protocol: Protocol, family: int) -> None:
    ours, found, wrong = register(protocol, family), 0, []
    for mutant in mutants(protocol, family, answers=False, count=COUNT // 12, seed=family):
        match = read(ours, family, mutant.data, sealed=False)
        found += match is not None
        other = match is not None and (match.flow, match.mark) != (mutant.flow, mutant.mark)
        if match and other and not says(flow(protocol, family, number=match.flow), mutant, match):
            wrong.append((mutant, match))

    assert found > COUNT // 240
    assert not wrong


@pytest.mark.parametrize("protocol", KINDS)
def test_the_checksum_of_icmp_stops_nearly_all_damage(protocol: Protocol) -> None:
    ours, passed, other = register(protocol, 4), 0, 0
    for mutant in mutants(protocol, 4, answers=False, count=COUNT // 12, seed=1):
        match = read(ours, 4, mutant.data, sealed=True)
        passed += match is not None
        other += match is not None and (match.flow, match.mark) != (mutant.flow, mutant.mark)

    assert 0 < passed < COUNT // 120  # damage behind the packet's end, or that cancels out in the sum
    assert other <= 1 + COUNT // 12 // 2**14


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("protocol", KINDS)
def test_a_damaged_answer_fits_its_own_probe_or_none(protocol: Protocol, family: int) -> None:
    ours, wrong = register(protocol, family), []
    for mutant in mutants(protocol, family, answers=True, count=COUNT // 12, seed=2):
        try:
            matches = ours.answers(mutant.data)
        except DecodeError:
            continue
        for match in matches:
            other = match.mark is not None and (match.flow, match.mark) != (mutant.flow, mutant.mark)
            if other and not says(flow(protocol, family, number=match.flow), mutant, match):
                wrong.append((mutant, match))

    assert not wrong


def says(ours: Flow, mutant: Mutant, match: Match) -> bool:
    """Return whether the damage has written another probe's flow or number, so that it cannot be seen."""
    assert match.mark is not None
    number, own = (mark.to_bytes(2, "big") for mark in (match.mark, mutant.mark))
    is_flow = match.flow == mutant.flow or any(
        part in mutant.data for part in (ours.key, ours.back, ours.hidden)
    )
    return is_flow and mutant.data.count(number) >= max(1, mutant.data.count(own))
