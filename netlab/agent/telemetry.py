"""The agent's own counters and those of its captures, for Prometheus."""

from __future__ import annotations

import collections
import re
import resource
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pandas as pd
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from netlab import __version__
from netlab.agent import budget
from netlab.agent.captures import Captures
from netlab.agent.holding import Held
from netlab.agent.listeners import Listeners
from netlab.frames import Missing
from netlab.tracer.session import Capture

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Telemetry:
    """The registry of one agent."""

    def __init__(self, captures: Captures, listeners: Listeners) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "netlab_requests", "Requests answered", ["endpoint", "status"], registry=self._registry
        )
        self.seconds = Histogram(
            "netlab_request_seconds", "Time to answer a request", ["endpoint"], registry=self._registry
        )
        self._registry.register(_Captures(captures, listeners))

    def text(self) -> bytes:
        """Return all of it in the text format."""
        return generate_latest(self._registry)

    def samples(self) -> dict[str, list[dict[str, Any]]]:
        """Return all of it by name: of each sample its labels and value."""
        return {
            metric.name: [
                {"name": sample.name, **sample.labels, "value": sample.value} for sample in metric.samples
            ]
            for metric in self._registry.collect()
        }


class Counted:
    """Counts and times the requests to *app*."""

    def __init__(self, app: ASGIApp, telemetry: Telemetry) -> None:
        self._app, self._telemetry = app, telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        began_s, status = time.monotonic(), 0

        async def noting(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:  # by route: what was asked for may be anything
            endpoint = getattr(scope.get("route"), "path", "none")
            self._telemetry.requests.labels(endpoint, str(status)).inc()
            self._telemetry.seconds.labels(endpoint).observe(time.monotonic() - began_s)


class _Captures(Collector):
    """Reads the captures when it is asked, and takes nothing from any client."""

    def __init__(self, captures: Captures, listeners: Listeners) -> None:
        self._captures, self._listeners, self._started_s = captures, listeners, time.monotonic()

    def describe(self) -> Iterator[Metric]:
        yield from ()

    def collect(self) -> Iterator[Metric]:
        """Yield every metric once."""
        held, holding = self._captures.all(), self._captures.holding
        about = GaugeMetricFamily("netlab_agent_info", "This agent", labels=["version"])
        about.add_metric([__version__], 1)
        yield about
        yield GaugeMetricFamily(
            "netlab_agent_uptime_seconds", "Since the agent started", value=time.monotonic() - self._started_s
        )
        usage = resource.getrusage(resource.RUSAGE_SELF)
        yield CounterMetricFamily(
            "netlab_agent_cpu_seconds", "CPU time of the agent", value=usage.ru_utime + usage.ru_stime
        )
        yield GaugeMetricFamily("netlab_captures", "Captures that run", value=_running(held))
        yield GaugeMetricFamily(
            "netlab_listeners", "Listeners for conntrack entries", value=_running(self._listeners.all())
        )
        yield CounterMetricFamily(
            "netlab_captures_expired",
            "Captures and listeners that ended because nobody read them",
            value=holding.expired,
        )
        yield CounterMetricFamily(
            "netlab_captures_shed", "Captures and listeners that ended for want of memory", value=holding.shed
        )
        yield GaugeMetricFamily(
            "netlab_agent_memory_bytes", "Resident memory of the agent", value=budget.resident_bytes()
        )
        yield GaugeMetricFamily(
            "netlab_agent_memory_budget_bytes", "What it may use", value=holding.most_bytes
        )
        captures = [(one.name, one.capture) for one in held]
        yield from _of_captures(captures)
        yield from _of_speech(captures)


def _running(held: Sequence[Held]) -> int:
    return sum(not one.has_ended() for one in held)


def _of_captures(held: list[tuple[str, Capture]]) -> Iterator[Metric]:
    missing = CounterMetricFamily(
        "netlab_missing",
        "What captures could not keep or see",
        labels=["capture", "what", "kind", "detail"],
    )
    connections = GaugeMetricFamily("netlab_connections_open", "Connections open now", labels=["capture"])
    closed = CounterMetricFamily("netlab_connections_closed", "Connections that ended", labels=["capture"])
    clients = GaugeMetricFamily("netlab_clients", "Clients that ask for deltas", labels=["capture"])
    backwards = CounterMetricFamily(
        "netlab_underflows", "Counters of connections that were seen to go back", labels=["capture"]
    )
    runs = CounterMetricFamily("netlab_program_runs", "Runs of eBPF programs", labels=["capture", "program"])
    spent = CounterMetricFamily(
        "netlab_program_seconds", "CPU time of eBPF programs", labels=["capture", "program"]
    )
    memory = GaugeMetricFamily(
        "netlab_bpf_memory_bytes", "Memory of eBPF programs and maps", labels=["capture", "kind", "name"]
    )
    for name, capture in held:
        for (what, kind, detail), count in _lost(capture.losses()).items():
            missing.add_metric([name, what, kind, detail], count)
        counts = capture.counts()
        connections.add_metric([name], counts["open"])
        closed.add_metric([name], counts["closed"])
        clients.add_metric([name], counts["clients"])
        backwards.add_metric([name], counts["underflows"])
        for cost in capture.cost().to_dict("records"):
            memory.add_metric([name, cost["kind"], cost["program"]], cost["memory_bytes"])
            if cost["kind"] == "program" and pd.notna(cost["runs"]):
                runs.add_metric([name, cost["program"]], cost["runs"])
                spent.add_metric([name, cost["program"]], cost["run_ms"] / 1e3)
    yield from (missing, connections, closed, clients, backwards, runs, spent, memory)


def _lost(gaps: Iterable[Missing]) -> collections.Counter[tuple[str, str, str]]:
    """Return what is missing by what it is, of which kind and why: once each, as a series of samples must be.

    The numbers within a reason are left out: one that grows would begin a new series at every reading.
    """
    counts: collections.Counter[tuple[str, str, str]] = collections.Counter()
    for gap in gaps:
        if gap.count is not None:
            counts[gap.what, gap.kind.value, re.sub(r"\d+", "N", gap.detail)] += gap.count
    return counts


def _of_speech(held: list[tuple[str, Capture]]) -> Iterator[Metric]:
    """Yield what connections said, by protocol: no label comes from the network, or their number would."""
    requests = CounterMetricFamily(
        "netlab_protocol_requests", "Requests that are over", labels=["capture", "protocol", "outcome"]
    )
    errors = CounterMetricFamily(
        "netlab_protocol_errors", "Requests that were answered by a failure", labels=["capture", "protocol"]
    )
    queries = CounterMetricFamily(
        "netlab_dns_queries", "Queries to one server each that are over", labels=["capture", "rcode"]
    )
    missed = CounterMetricFamily(
        "netlab_payload_missed", "What was said and not understood or kept", labels=["capture", "what"]
    )
    for name, capture in held:
        totals = capture.totals()
        if totals is None:
            continue
        outcomes: collections.Counter[tuple[str, str]] = collections.Counter()
        failures: collections.Counter[str] = collections.Counter()
        for (protocol, outcome, failed), count in totals.requests.items():
            outcomes[protocol, outcome.value] += count
            failures[protocol] += count * failed
        for labels, count in outcomes.items():
            requests.add_metric([name, *labels], count)
        for protocol, count in failures.items():
            errors.add_metric([name, protocol], count)
        for rcode, count in totals.queries.items():
            queries.add_metric([name, rcode], count)
        for what, count in totals.missed.items():
            missed.add_metric([name, what], count)
    yield from (requests, errors, queries, missed)
