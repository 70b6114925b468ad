"""A namespace of the practice network and one address family: where test cases make their sockets."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd
import pytest
from loopback import LOOPBACK

from netlab.lab import plan
from netlab.lab.host import Host
from netlab.lab.network import PracticeNetwork


@dataclass
class Place:
    """The client's namespace of the practice network, and one address family."""

    net: PracticeNetwork
    family: plan.Family

    @property
    def kind(self) -> socket.AddressFamily:
        return socket.AF_INET if self.family == 4 else socket.AF_INET6

    @property
    def home(self) -> str:
        return LOOPBACK[self.family]

    @property
    def web(self) -> str:
        return self.net.web.address4 if self.family == 4 else self.net.web.address6

    def socket(self, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
        with self.net.client.entered():
            return socket.socket(self.kind, kind)

    def listener(self) -> socket.socket:
        listening = self.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((self.home, 0))
        listening.listen(8)
        return listening

    def connected(self) -> tuple[socket.socket, socket.socket]:
        with self.listener() as listening:
            client = self.socket()
            client.connect(listening.getsockname())
            return client, listening.accept()[0]

    def run(self, *command: str) -> None:
        self.net.client.run(command, check=True)

    @contextlib.contextmanager
    def route(self, host: Host, *route: str) -> Iterator[None]:
        host.run(["ip", f"-{self.family}", "route", "add", *route], check=True)
        try:
            yield
        finally:
            host.run(["ip", f"-{self.family}", "route", "del", *route], check=True)


def marked(case: dict[str, Any]) -> Any:
    """Return a case of a data file as a parameter, marked if it runs on the second kernel as well."""
    return pytest.param(case, id=case["what"], marks=[pytest.mark.kernels] if case.get("kernels") else [])


def told(frame: pd.DataFrame, columns: list[str]) -> list[dict[str, object]]:
    """Return rows as the data files write them: a missing value is "NA"."""
    rows = frame[columns].astype(object)
    return rows.where(rows.notna(), "NA").to_dict("records")
