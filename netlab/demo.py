"""`netlab demo`: the main job from end to end, on the practice network or on this host."""

from __future__ import annotations

import importlib.resources
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

import netlab
from netlab.checks import needing
from netlab.console import as_text
from netlab.errors import BadInput, NetlabError
from netlab.lab import PracticeNetwork, drive, practice, shop
from netlab.path.target import resolve

_CONNECTION_COLUMNS = [
    "process",
    "direction",
    "remote_address",
    "remote_port",
    "state",
    "error",
    "connect_ms",
    "duration_s",
    "bytes_sent",
    "bytes_received",
    "retransmits",
    "rtt_ms",
]
_FAILURE_COLUMNS = ["process", "remote_address", "remote_port", "error", "reason", "duration_s"]
_NAT_COLUMNS = [
    "local_address",
    "local_port",
    "remote_address",
    "remote_port",
    "nat_local_address",
    "nat_local_port",
]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one run collected, and the claims that were checked against an independent account."""

    connections: pd.DataFrame
    nat: pd.DataFrame
    hops: pd.DataFrame
    claims: dict[str, bool] = field(default_factory=dict)


def on_practice_network() -> Evidence:
    """Build the practice network, let real clients use it, and collect what netlab sees."""
    with _step("building the practice network"), practice() as net:
        with (
            _step("running 14 curls while capturing"),
            netlab.capture() as capture,
            netlab.conntrack_events(netns=net.gateway.netns) as events,
        ):
            said = drive(net, shop(net))
        with _step("joining the gateway's translations"):
            nat = events.entries()
            seen = capture.connections()
            connections = netlab.with_nat(seen[seen["netns"] == net.client.inode].reset_index(drop=True), nat)
        with _step("tracing both servers by UDP and TCP, IPv4 and IPv6"):
            hops = netlab.concat(_traces(net))
        return Evidence(connections, nat, hops, _claims(net, said, connections, hops))


def _traces(net: PracticeNetwork) -> Iterator[pd.DataFrame]:
    for server in (net.web, net.db):
        for address in (server.address4, server.address6):
            yield netlab.traceroute(address, netns=net.client.netns)
            yield netlab.traceroute(address, protocol="tcp", port=net.ports.http, netns=net.client.netns)


def _claims(
    net: PracticeNetwork, said: pd.DataFrame, connections: pd.DataFrame, hops: pd.DataFrame
) -> dict[str, bool]:
    """Hold netlab's tables against what curl said and what the network is built like."""
    ends = ["remote_address", "remote_port"]
    refused, dropped = (connections["remote_port"] == port for port in (net.ports.refuses, net.ports.drops))
    untranslated = connections["nat_local_address"].isna()
    outside = connections["nat_local_address"].isin([net.nat_address4, net.nat_address6])
    return {
        f"each of the {len(said)} attempts that curl made is one row": (
            said[ends].value_counts().sort_index().equals(connections[ends].value_counts().sort_index())
        ),
        f"port {net.ports.refuses} is ECONNREFUSED": bool(
            (connections["error"][refused] == "ECONNREFUSED").all()
        ),
        f"port {net.ports.drops} is ETIMEDOUT": bool((connections["error"][dropped] == "ETIMEDOUT").all()),
        "nothing else failed": bool(connections["error"][~refused & ~dropped].isna().all()),
        "each attempt has its address beyond the gateway": bool((outside & ~untranslated).all()),
        "every trace has each router's address in order": all(
            routers(trace) == _true_path(net, str(target)) for (target, _), trace in by_trace(hops)
        ),
    }


def by_trace(hops: pd.DataFrame) -> Iterator[tuple[tuple[Any, Any], pd.DataFrame]]:
    """Yield each trace with its target and protocol."""
    groups: Any = hops.groupby(["target", "protocol"], sort=False, observed=True)
    yield from groups


def routers(trace: pd.DataFrame) -> list[str]:
    """Return who answered at each TTL, "*" where nobody did."""
    answered: list[str] = trace.groupby("ttl")["address"].first().fillna("*").tolist()
    return answered


def _true_path(net: PracticeNetwork, target: str) -> list[str]:
    paths = [path(server) for server in ("web", "db") for path in (net.path4, net.path6)]
    return next(path for path in paths if path[-1] == target)


def on_this_host(*, duration_s: float, targets: list[str]) -> Evidence:
    """Capture on this host, read its translations, and trace the targets, or the peers seen most.

    Parameters
    ----------
    duration_s
        How long to capture, in seconds.
    targets
        What to trace; none: the two peers that most attempts went to.
    """
    for target in targets:
        resolve(target)  # a name that is none is better known before than after
    with netlab.capture(duration_s=duration_s) as capture:
        pass
    seen = capture.connections()
    nat = netlab.conntrack()
    outgoing = seen[(seen["direction"] == "outgoing") & (seen["netns"] == _own_namespace())]
    chosen = targets or outgoing["remote_address"].value_counts().index[:2].tolist()
    traces = [trace for target in chosen for trace in _traced(target)]
    hops = netlab.concat(traces) if traces else netlab.schemas.HOPS.empty()
    return Evidence(netlab.with_nat(seen, nat), nat, hops)


def _own_namespace() -> int:
    from netlab.kernel import netns

    return netns.inode()


def _traced(target: str) -> Iterator[pd.DataFrame]:
    for protocol in ("udp", "tcp"):
        with _step(f"tracing {target} by {protocol.upper()}"):
            yield netlab.traceroute(target, protocol=protocol)


def report(evidence: Evidence) -> str:
    """Return the four tables, what each lacks, and the claims that were checked."""
    connections = evidence.connections
    failed = connections[connections["error"].notna()]
    translated = connections[connections["nat_local_address"].notna()]
    paths = [
        {"target": target, "protocol": protocol, "path": " → ".join(routers(trace))}
        for (target, protocol), trace in by_trace(evidence.hops)
    ]
    tables = {
        "Connection attempts": connections[_CONNECTION_COLUMNS],
        "Failures": failed[_FAILURE_COLUMNS],
        "Translated on the way": translated[_NAT_COLUMNS],
        "Paths": pd.DataFrame(paths, columns=["target", "protocol", "path"]),
    }
    parts = [
        f"\n{title} ({len(table)})\n{as_text(table) if len(table) else 'none'}"
        for title, table in tables.items()
    ]
    frames = {"connections": connections, "nat": evidence.nat, "hops": evidence.hops}
    gaps = pd.concat(
        [netlab.coverage(netlab.concat([frame])).assign(table=name) for name, frame in frames.items()]
    )[["table", "what", "kind", "count", "detail"]]
    parts.append(
        f"\nNot in these tables ({len(gaps)})\n{as_text(gaps) if len(gaps) else 'nothing is missing'}"
    )
    parts += [f"{'ok ' if holds else 'NOT'}  {claim}" for claim, holds in evidence.claims.items()]
    return "\n".join(parts)


def prepare(directory: Path) -> None:
    """Make the *directory* that `write` fills, or refuse it before anything is captured."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=directory).close()
    except OSError as error:
        raise BadInput(
            f"cannot write to {directory}: {error.strerror}", fix="Give another --output"
        ) from error


def write(evidence: Evidence, directory: Path, *, notebook: bool) -> Iterator[Path]:
    """Write pictures, Parquet files and a bundle, and the executed notebook; yield each file's path."""
    pictures: dict[str, Callable[[], Any]] = {
        "timeline.png": lambda: netlab.plot_timeline(evidence.connections),
        "hops.png": lambda: netlab.plot_hops(evidence.hops),
        "path.png": lambda: netlab.plot_path(evidence.hops),
    }
    for name, draw in pictures.items():
        draw().savefig(directory / name)
        yield directory / name
    frames = {"connections": evidence.connections, "nat": evidence.nat, "hops": evidence.hops}
    for name, frame in frames.items():
        frame.to_parquet(directory / f"{name}.parquet")
        yield directory / f"{name}.parquet"
    bundle = directory / "demo.netlab"
    netlab.save(
        bundle, overwrite=True, connections=evidence.connections, nat=evidence.nat, hops=evidence.hops
    )
    yield bundle
    if notebook:
        with _step("executing the notebook"):
            page = _executed()
        (directory / "01_first_look.html").write_text(page, encoding="utf-8")
        yield directory / "01_first_look.html"


def notebooks() -> Path:
    """Return the directory of the notebooks: in the wheel beside the package, in a checkout at the top."""
    package = Path(str(importlib.resources.files("netlab")))
    shipped = package / "_notebooks"
    return shipped if shipped.is_dir() else package.parent / "notebooks"


def _executed() -> str:
    """Run the first notebook from beginning to end and return it as an HTML page that needs no network."""
    with needing("notebook", "the demo's notebook needs nbclient and nbconvert"):
        import nbclient
        import nbconvert
        import nbformat

    book = nbformat.read(notebooks() / "01_first_look.ipynb", as_version=4)
    try:
        nbclient.NotebookClient(
            book,
            timeout=120,
            kernel_name="python3",
            resources={"metadata": {"path": str(notebooks())}},
            extra_arguments=["--IPKernelApp.log_level=ERROR"],
        ).execute()
    except nbclient.exceptions.CellExecutionError as error:
        raise NetlabError(f"the notebook failed: {error.ename}: {error.evalue}") from error
    page: str = nbconvert.HTMLExporter(mathjax_url="", require_js_url="").from_notebook_node(book)[0]
    return page


@contextmanager
def _step(title: str) -> Iterator[None]:
    """Show what is going on, and how long it takes, as one line."""
    with tqdm(total=1, desc=title, bar_format="{desc}: {elapsed}", leave=True) as bar:
        yield
        bar.update()
