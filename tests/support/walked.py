"""Traces of a simulated internet without a kernel: real probes, walked in this process on a virtual clock."""

from __future__ import annotations

import contextlib
import heapq
import ipaddress
import itertools
from typing import ClassVar

import pandas as pd

from netlab.frames import concat
from netlab.lab.internet import reading
from netlab.lab.internet.forward import Internet
from netlab.lab.internet.journey import Journey
from netlab.lab.internet.routing import Atlas
from netlab.lab.internet.shape import CLIENT
from netlab.path import engine, mtu, pathmtu, rows
from netlab.path.kinds import SynFlow, UdpFlow
from netlab.path.matching import Register
from netlab.path.pace import Pace
from netlab.path.probes import MARKS, Flow, Protocol
from netlab.path.rejections import at_the_target
from netlab.path.rounds import Rounds
from netlab.path.rows import Traced
from netlab.path.state import Answer, Run
from netlab.path.target import Target
from netlab.wire import icmp, ip

START_NS = 1_700_000_000 * 10**9  # some wall-clock time
_KIND = {Protocol.UDP: UdpFlow, Protocol.TCP: SynFlow}


class WalkedChannel:
    """UDP or TCP probes into a graph, as `netlab.path.engine.Channel`; waiting takes no time."""

    dropped = unreadable = held = 0
    strangers: ClassVar[dict[str, int]] = {}

    def __init__(
        self,
        graph: reading.Graph,
        target: str = "web",
        *,
        seed: int = 0,
        protocol: Protocol = Protocol.UDP,
        family: int = 4,
    ) -> None:
        atlas = Atlas(reading.epochs(graph))
        nodes = atlas.at(0).shape.nodes
        address = str(ipaddress.ip_address(nodes[target].address(family)))
        self.journeys: list[Journey] = []
        self.target = Target(name=target, family=family, address=address, scope=0)
        self.protocol = protocol
        self._source = nodes[CLIENT].address(family)
        self._register = Register()
        self._internet = Internet(atlas, seed)
        self._now = 0
        self._coming: list[tuple[int, int, bytes]] = []

    @property
    def ports(self) -> dict[int, tuple[int | None, int | None]]:
        return {number: flow.ports for number, flow in self._register.flows.items()}

    def now_ns(self) -> int:
        return self._now

    def wait(self, duration_s: float) -> None:
        self._now += round(duration_s * 10**9)

    def flow(self, number: int) -> Flow:
        if number not in self._register.flows:
            self._register.add(
                _KIND[self.protocol](
                    number=number,
                    source=self._source,
                    target=self.target.packed,
                    salt=1,
                    source_port=40000 + number,
                    port=33434,
                )
            )
        return self._register.flows[number]

    def send(self, flow: int, ttl: int, mark: int, *, size_bytes: int = 0) -> int:
        packet = self.flow(flow).packet(ttl, mark, size_bytes=size_bytes)
        self._register.sent(flow, mark)
        journey = self._internet.carry(packet, self._now)
        self.journeys.append(journey)
        if journey.answer is not None:
            heapq.heappush(self._coming, (self._now + journey.delay_ns, journey.number, journey.answer))
        return START_NS + self._now

    def receive(self, wait_ns: int) -> list[Answer]:
        until = self._now + wait_ns
        if self._coming and self._coming[0][0] <= until:
            until = max(self._now, self._coming[0][0])
        self._now = until
        answers = []
        while self._coming and self._coming[0][0] <= until:
            answers.append(self._read(*heapq.heappop(self._coming)))
        return answers

    def _read(self, at_ns: int, _: int, packet: bytes) -> Answer:
        header, transport = ip.decode(packet)
        if header.protocol in {ip.ICMP, ip.ICMPV6}:
            message = icmp.decode(header.family, transport)
            match = self._register.error(message.error, icmp.quote(message))
        else:
            (match,) = self._register.answers(transport)
        return Answer(
            flow=match.flow,
            mark=match.mark,
            address=str(ipaddress.ip_address(header.source)),
            reply=match.reply,
            ttl=header.ttl,
            identification=header.identification if isinstance(header, ip.IPv4) else None,
            stamp_ns=START_NS + at_ns,
            received_ns=at_ns,
        )


def trace(
    channel: WalkedChannel,
    *,
    runs: int = 1,
    queries: int = 3,
    every_s: float = 0.0,
    max_ttl: int = 30,
    timeout_s: float = 1.0,
    flows: int = 1,
) -> pd.DataFrame:
    """Return what `netlab.traceroute` would have, runs beginning *every_s* after each other or at once."""
    plan = engine.Plan(first_ttl=1, max_ttl=max_ttl, queries=queries, timeout_ns=round(timeout_s * 10**9))
    marks = (1 + number % MARKS for number in itertools.count())
    done = []
    for number in range(runs):
        for flow in range(flows):
            done.append(Run(number, flow))
            engine.probe_path(plan, channel, done[-1], pace=Pace(), marks=marks)
        late_ns = round((number + 1) * every_s * 10**9) - channel.now_ns()
        channel.wait(max(0, late_ns) / 10**9)
    return rows.frame(done, channel.target, channel.protocol.value, channel.ports)


def watch(
    channel: WalkedChannel,
    *,
    duration_s: float,
    every_s: float = 1.0,
    timeout_s: float = 1.0,
    max_ttl: int = 30,
    flows: int = 1,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return what `netlab.path.monitor` would have: the probes to the hops and those to the end."""
    rounds = Rounds(
        channel,
        every_ns=round(every_s * 10**9),
        timeout_ns=round(timeout_s * 10**9),
        max_ttl=max_ttl,
        flows=flows,
    )
    while channel.now_ns() < duration_s * 10**9 or rounds.under_way:
        if channel.now_ns() >= duration_s * 10**9:
            rounds.end()
        rounds.send_due()
        rounds.take(channel.receive(rounds.wait_ns()))

    def framed(runs: list[Run]) -> pd.DataFrame:
        return rows.frame(runs, channel.target, channel.protocol.value, channel.ports)

    return framed([each.hops for each in rounds.settled]), framed([each.end for each in rounds.settled])


def watched(channel: WalkedChannel, **how: float) -> pd.DataFrame:
    """Return what a monitor explains: end-to-end probes count for the end."""
    hops, ends = watch(channel, **how)
    return concat([hops, at_the_target(ends, hops)])


def path_mtu(channel: WalkedChannel, *, most_bytes: int = 1500) -> pd.DataFrame:
    """Return what `netlab.path.path_mtu` would have."""
    run = Run(0)
    plan = engine.Plan(first_ttl=1, max_ttl=30, queries=2, timeout_ns=10**9)
    marks = (1 + number % MARKS for number in itertools.count())
    engine.probe_path(plan, channel, run, pace=Pace(), marks=marks)
    answered = [(probe, answer) for probe, answer in run.reported() if answer]
    way = mtu.way_of(answered)
    search = mtu.Search(channel, way, plan.timeout_ns)
    with contextlib.suppress(mtu.Gone):
        search.run(most_bytes)
    traced = Traced(name=channel.target.name, target=channel.target)
    own = mtu.Limit(mtu_bytes=most_bytes, ttl=0, address=None, told=mtu.INTERFACE)
    return pathmtu.frame_of(traced, channel.protocol, [own, *search.limits], [])
