"""explain() on a chain of namespaces with real rules: every station, and what is said of those not found."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import socket
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import chains
import pandas as pd
import pytest
from pictures import trace

import netlab
from netlab.schemas import CONNECTIONS, EXPLANATION

SERVICE, SERVER = ("10.96.0.10", 80), ("10.79.3.2", 8080)
KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
ENDS = ("src", "sport", "dst", "dport")


@pytest.fixture(scope="module", autouse=True)
def chain() -> Iterator[None]:
    if os.geteuid():
        yield
        return
    with chains.chain():
        yield


def made(role: str, protocol: str, address: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with chains.entered(role):
        found = socket.socket(family, KINDS[protocol])
    found.settimeout(10)
    return found


@contextlib.contextmanager
def talking(
    connect: tuple[str, int], listen: tuple[str, int], *, protocol: str = "tcp", server: str = "server"
) -> Iterator[tuple[int, tuple[str, int]]]:
    """Connect a client to a server; return the client's port, and what the server sees as its peer."""
    with contextlib.ExitStack() as held:
        listener = held.enter_context(made(server, protocol, listen[0]))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(listen)
        client = held.enter_context(made("client", protocol, connect[0]))
        if protocol == "tcp":
            listener.listen()
            client.connect(connect)
            accepted, seen = listener.accept()
            held.enter_context(accepted)
        else:
            client.connect(connect)
            client.send(b"a question")
            _, seen = listener.recvfrom(100)
        yield client.getsockname()[1], seen[:2]


def listed(role: str, *, port: int) -> pd.DataFrame:
    now = netlab.connections(netns=chains.name(role), port=port)
    return now[now["remote_port"].notna()].head(1) if role != "server" else now


def row_of(role: str, port: int, remote_port: int | None = None) -> pd.Series:
    """Return the connection of *port* in a namespace; on loopback the one that leads to *remote_port*."""
    now = netlab.connections(netns=chains.name(role), port=port)
    if remote_port is not None:
        now = now[now["remote_port"] == remote_port]
    (place,) = range(len(now))
    return now.iloc[place]


def mac(text: str) -> str:
    role, _, device = text.partition(".")
    return str(json.loads(chains.ip(role, "-j", "link", "show", device))[0]["address"])


def wanted(rows: list[dict[str, Any]], port: int) -> list[dict[str, Any]]:
    """Return the rows of a case as those of the frame, without missing values."""
    found = []
    for step, case in enumerate(copy.deepcopy(rows)):
        for name, prefix in (("packet", ""), ("new", "new_")):
            values = [port if value == "port" else value for value in case.pop(name, [])]
            case.update(zip([prefix + end for end in ENDS], values, strict=False))
        case |= {"step": step, "namespace": chains.name(case["netns"]), "netns": chains.inode(case["netns"])}
        if "to_netns" in case:
            case["to_netns"] = chains.inode(case["to_netns"])
        if "mac" in case:
            case["mac"] = mac(case["mac"])
        if case.pop("owner", None) == "self":
            case |= {"pid": os.getpid(), "process": Path("/proc/self/comm").read_text("utf-8").rstrip("\n")}
        found.append(case)
    return found


def told(frame: pd.DataFrame) -> list[dict[str, Any]]:
    rows = frame.astype(object).to_dict("records")
    return [{name: value for name, value in row.items() if not pd.isna(value)} for row in rows]


@pytest.mark.privileged
@pytest.mark.parametrize("case", chains.DATA["case"], ids=lambda case: case["what"])
def test_every_station_is_told(case: dict[str, Any]) -> None:
    connect, listen = tuple(case["connect"]), tuple(case["listen"])
    side = case.get("from", "client")
    server = case.get("server", "server")
    with talking(connect, listen, protocol=case["protocol"], server=server) as (port, seen):
        row = row_of(side, port, connect[1] if side == "client" else None)
        found = netlab.explain(row)

        expected = wanted(case["row"], port)
    assert list(seen) == [port if value == "port" else value for value in case["sees"]]
    for row in expected:
        row["protocol"] = case["protocol"]
    assert told(found.frame) == expected
    assert netlab.coverage(found.frame).empty
    assert list(found.frame.columns) == EXPLANATION.names
