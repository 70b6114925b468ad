"""How to probe: with raw sockets, or with what any process may have."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from enum import StrEnum
from typing import TypeAlias

from netlab.kernel import capabilities
from netlab.kernel.netns import NetNs, entered
from netlab.path import alone, engine
from netlab.path.connecting import LONGEST_NS, ConnectChannel
from netlab.path.pace import Pace
from netlab.path.probes import Protocol
from netlab.path.sockets import RawChannel
from netlab.path.state import Run
from netlab.path.target import FAMILIES, Target
from netlab.path.unprivileged import DatagramChannel

AnyChannel: TypeAlias = RawChannel | DatagramChannel | ConnectChannel


class Method(StrEnum):
    """How to probe."""

    AUTO = "auto"
    RAW = "raw"
    UNPRIVILEGED = "unprivileged"


def chosen(method: Method, family: int, netns: NetNs) -> Method:
    """Return *method*, or in place of "auto" the best one that this process can use."""
    if method is not Method.AUTO:
        return method
    with entered(netns):
        return Method.RAW if capabilities.raw_socket(FAMILIES[family]) is None else Method.UNPRIVILEGED


def channel(
    method: Method,
    protocol: Protocol,
    target: Target,
    source: bytes,
    *,
    port: int,
    source_port: int | None,
    netns: NetNs,
) -> AnyChannel:
    """Return a channel to *target*; raises what the three kinds raise."""
    if method is Method.RAW:
        return RawChannel(protocol, target, source, port=port, source_port=source_port, netns=netns)
    if protocol is Protocol.TCP:
        return ConnectChannel(target, source, port=port, source_port=source_port, netns=netns)
    return DatagramChannel(protocol, target, source, port=port, source_port=source_port, netns=netns)


def probe_path(plan: engine.Plan, channel: AnyChannel, run: Run, *, pace: Pace, marks: Iterator[int]) -> None:
    """Fill *run* in the way that suits the channel."""
    if isinstance(channel, ConnectChannel):
        plan = replace(plan, timeout_ns=min(plan.timeout_ns, LONGEST_NS))
        alone.probe_path(plan, channel, run, pace=pace, marks=marks)
        return
    engine.probe_path(plan, channel, run, pace=pace, marks=marks)
    if isinstance(channel, DatagramChannel) and run.unplaced:
        alone.ask_again(plan, channel, run, pace=pace, marks=marks)
