"""netlab: what is connected, what failed, through which NAT, along which path.

Names are imported when first used (PEP 562), so that `import netlab` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from netlab import fleet as fleet, lab as lab, panels as panels, path as path, schemas as schemas
    from netlab.agent.client import connect as connect
    from netlab.bundle.exporting import export as export
    from netlab.bundle.loading import load as load
    from netlab.bundle.merging import merge as merge
    from netlab.bundle.packets import annotate_pcap as annotate_pcap
    from netlab.bundle.recording import record as record
    from netlab.bundle.replaying import replay as replay
    from netlab.bundle.saving import save as save
    from netlab.checkup import doctor as doctor
    from netlab.errors import (
        BadInput as BadInput,
        BundleError as BundleError,
        CapabilityError as CapabilityError,
        CaptureError as CaptureError,
        DecodeError as DecodeError,
        KernelError as KernelError,
        LabError as LabError,
        NetlabError as NetlabError,
        ProbeError as ProbeError,
        ProgramError as ProgramError,
    )
    from netlab.frames import concat as concat, coverage as coverage
    from netlab.kernel.conntrack import conntrack as conntrack
    from netlab.kernel.ctevents import conntrack_events as conntrack_events
    from netlab.kernel.ctstats import conntrack_stats as conntrack_stats
    from netlab.kernel.gateway import gateway as gateway
    from netlab.kernel.nat import nat as nat
    from netlab.kernel.routes import routes as routes
    from netlab.kernel.translation import translate as translate
    from netlab.path.graph import path_graph as path_graph
    from netlab.path.multipath import multipath as multipath
    from netlab.path.trace import traceroute as traceroute
    from netlab.probes.probe import probe as probe
    from netlab.protocols.dns.stats import dns_stats as dns_stats
    from netlab.protocols.overview import protocol_stats as protocol_stats
    from netlab.protocols.stats import request_stats as request_stats
    from netlab.tracer.capture import capture as capture
    from netlab.tracer.explain import explain as explain
    from netlab.tracer.gateways import route_cache as route_cache, with_gateway as with_gateway
    from netlab.tracer.graph import connection_graph as connection_graph
    from netlab.tracer.listeners import listeners as listeners
    from netlab.tracer.nat import with_nat as with_nat
    from netlab.tracer.sockets import connections as connections
    from netlab.views.connections import plot_connections as plot_connections
    from netlab.views.dns import plot_dns as plot_dns
    from netlab.views.hops import plot_hops as plot_hops
    from netlab.views.path import plot_path as plot_path
    from netlab.views.requests import plot_requests as plot_requests
    from netlab.views.timeline import plot_timeline as plot_timeline

_HOME = {
    "annotate_pcap": "netlab.bundle.packets",
    "capture": "netlab.tracer.capture",
    "concat": "netlab.frames",
    "connect": "netlab.agent.client",
    "connection_graph": "netlab.tracer.graph",
    "connections": "netlab.tracer.sockets",
    "conntrack": "netlab.kernel.conntrack",
    "conntrack_events": "netlab.kernel.ctevents",
    "conntrack_stats": "netlab.kernel.ctstats",
    "coverage": "netlab.frames",
    "dns_stats": "netlab.protocols.dns.stats",
    "doctor": "netlab.checkup",
    "explain": "netlab.tracer.explain",
    "export": "netlab.bundle.exporting",
    "gateway": "netlab.kernel.gateway",
    "listeners": "netlab.tracer.listeners",
    "load": "netlab.bundle.loading",
    "merge": "netlab.bundle.merging",
    "multipath": "netlab.path.multipath",
    "nat": "netlab.kernel.nat",
    "path_graph": "netlab.path.graph",
    "plot_connections": "netlab.views.connections",
    "plot_dns": "netlab.views.dns",
    "plot_hops": "netlab.views.hops",
    "plot_path": "netlab.views.path",
    "plot_requests": "netlab.views.requests",
    "plot_timeline": "netlab.views.timeline",
    "probe": "netlab.probes.probe",
    "protocol_stats": "netlab.protocols.overview",
    "record": "netlab.bundle.recording",
    "replay": "netlab.bundle.replaying",
    "request_stats": "netlab.protocols.stats",
    "route_cache": "netlab.tracer.gateways",
    "routes": "netlab.kernel.routes",
    "save": "netlab.bundle.saving",
    "traceroute": "netlab.path.trace",
    "translate": "netlab.kernel.translation",
    "with_gateway": "netlab.tracer.gateways",
    "with_nat": "netlab.tracer.nat",
    **dict.fromkeys(
        (
            "BadInput",
            "BundleError",
            "CapabilityError",
            "CaptureError",
            "DecodeError",
            "KernelError",
            "LabError",
            "NetlabError",
            "ProbeError",
            "ProgramError",
        ),
        "netlab.errors",
    ),
}
_DELEGATED = {
    "capture",
    "conntrack",
    "conntrack_events",
    "conntrack_stats",
    "multipath",
    "nat",
    "translate",
}  # to an agent, where this process lacks a capability
_PARTS = {"fleet", "lab", "panels", "path", "schemas"}

__version__ = "0.1.0"
__all__ = sorted([*_HOME, *_PARTS])  # noqa: PLE0605 - the table above is the one list of names


def __getattr__(name: str) -> Any:
    if name in _PARTS:
        return importlib.import_module(f"netlab.{name}")
    if name in _DELEGATED:
        found = getattr(importlib.import_module(_HOME[name]), name)
        return importlib.import_module("netlab.agent.delegation").delegated(found)
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'netlab' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]


def load_ipython_extension(shell: Any) -> None:
    """Add `%netlab` and `%%bpf` to the notebook: what `%load_ext netlab` calls."""
    importlib.import_module("netlab.magics").load(shell)


def unload_ipython_extension(shell: Any) -> None:
    """Take them away again: what `%unload_ext netlab` calls."""
    importlib.import_module("netlab.magics").unload(shell)
