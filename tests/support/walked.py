"""Traces of a simulated internet without a kernel: real probes, walked in this process on a virtual clock."""

from __future__ import annotations

import heapq
import ipaddress
import itertools

import pandas as pd

from netlab.lab.internet import reading
from netlab.lab.internet.forward import Internet
from netlab.lab.internet.journey import Journey
from netlab.lab.internet.routing import Atlas
from netlab.lab.internet.shape import CLIENT
from netlab.path import engine, rows
from netlab.path.pace import Pace
from netlab.path.probes import MARKS, Flow, Protocol
from netlab.path.state import UDP_REPLY, Answer
from netlab.path.target import Target
from netlab.wire import icmp, ip, udp

START_NS = 1_700_000_000 * 10**9  # some wall-clock time


class WalkedChannel:
    """One flow of UDP or TCP probes into a graph, as `netlab.path.engine.Channel`; waiting takes no time."""

    def __init__(
        self,
        graph: reading.Graph,
        target: str = "web",
        *,
        seed: int = 0,
        protocol: Protocol = Protocol.UDP,
        family: int = 4,
        source_port: int = 40000,
    ) -> None:
        atlas = Atlas(reading.epochs(graph))
        nodes = atlas.at(0).shape.nodes
        self.journeys: list[Journey] = []
        self.target = Target(
            name=target,
            family=family,
            address=str(ipaddress.ip_address(nodes[target].address(family))),
            scope=0,
        )
        self.flow = Flow(
            protocol=protocol,
            source=nodes[CLIENT].address(family),
            target=self.target.packed,
            source_port=source_port,
            port=33434,
            salt=seed & 0xFFFF,
        )
        self._internet = Internet(atlas, seed)
        self._now = 0
        self._coming: list[tuple[int, int, bytes]] = []
        self.identifications: dict[int, int] = {}  # of answers, by the time of sending

    def now_ns(self) -> int:
        return self._now

    def wait(self, duration_s: float) -> None:
        self._now += round(duration_s * 10**9)

    def send(self, ttl: int, mark: int) -> int:
        journey = self._internet.carry(self.flow.packet(ttl, mark), self._now)
        self.journeys.append(journey)
        if journey.answer is not None:
            heapq.heappush(self._coming, (self._now + journey.delay_ns, journey.number, journey.answer))
            self.identifications[mark] = int.from_bytes(journey.answer[4:6], "big")
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
            reply, marks = message.error.value, self.flow.quoted(icmp.quote(message))
        elif header.protocol == ip.UDP:
            reply, marks = UDP_REPLY, udp.mark(udp.decode(transport)[1])
        else:
            reply, marks = self.flow.segment(transport)
        return Answer(
            marks=marks,
            address=str(ipaddress.ip_address(header.source)),
            reply=reply,
            ttl=header.ttl,
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
) -> pd.DataFrame:
    """Return what `netlab.traceroute` would have, runs beginning *every_s* after each other or at once."""
    plan = engine.Plan(first_ttl=1, max_ttl=max_ttl, queries=queries, timeout_ns=round(timeout_s * 10**9))
    marks = (1 + number % MARKS for number in itertools.count())
    done = []
    for number in range(runs):
        done.append(engine.probe_path(plan, channel, number=number, pace=Pace(), marks=marks))
        late_ns = round((number + 1) * every_s * 10**9) - channel.now_ns()
        channel.wait(max(0, late_ns) / 10**9)
    return rows.frame(done, channel.target, channel.flow)
