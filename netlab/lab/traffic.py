"""A shop's traffic on the practice network: real clients whose own account can be held against netlab's."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pandas as pd

from netlab.errors import CapabilityError
from netlab.kernel import capabilities
from netlab.lab.network import PracticeNetwork

_GIVE_UP_S = 20  # far above the 3 s after which the client's kernel gives up a SYN
_WORDS = "%{local_ip} %{local_port} %{remote_ip} %{exitcode}"


@dataclass(frozen=True, slots=True)
class Request:
    """One run of curl: what it is for, and where it goes."""

    purpose: str
    address: str
    port: int
    path: str = "/"

    @property
    def url(self) -> str:
        """The address as curl takes it."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"http://{host}:{self.port}{self.path}"


def shop(net: PracticeNetwork) -> list[Request]:
    """Return what the shop's client asks for: pages, a slow checkout, the stock, two services that fail.

    Parameters
    ----------
    net
        The practice network.

    Returns
    -------
    list
        A request for each run of curl, as `netlab.lab.drive` takes them: `purpose`, `address`, `port`, `path`
        and `url`.
    """
    ports = net.ports
    return [
        request
        for web, db in ((net.web.address4, net.db.address4), (net.web.address6, net.db.address6))
        for request in (
            *(Request("page", web, ports.http, f"/bytes/{size}") for size in (1_000, 20_000, 300_000)),
            Request("checkout", web, ports.slow_http, "/bytes/2000"),
            Request("stock", db, ports.http, "/bytes/5000"),
            Request("metrics (refused)", db, ports.refuses),
            Request("payment (dropped)", db, ports.drops),
        )
    ]


def drive(net: PracticeNetwork, requests: list[Request]) -> pd.DataFrame:
    """Run curl for every request inside the client, all at once, and return what the curls say.

    Parameters
    ----------
    net
        The practice network.
    requests
        What to ask for, such as `shop(net)`.

    Returns
    -------
    DataFrame
        One row per run of curl: purpose, remote_address, remote_port, local_port (missing where curl never
        had one), exit_code (0 done, 7 could not connect, 28 timed out).

    Raises
    ------
    CapabilityError
        If curl is not installed.

    Examples
    --------
    >>> import netlab
    >>> with netlab.lab.practice() as net:
    ...     said = netlab.lab.drive(net, netlab.lab.shop(net)[:1])
    >>> said[["purpose", "remote_port", "exit_code"]].values.tolist()
    [['page', 80, 0]]
    """
    curl = capabilities.tool("curl")
    if curl is None:
        raise CapabilityError(
            "cannot drive the practice network without curl", fix="Run: apt-get install curl"
        )
    with ThreadPoolExecutor(max_workers=8) as pool:
        rows = list(pool.map(lambda request: _run(net, curl, request), requests))
    columns = {
        "purpose": "string",
        "remote_address": "string",
        "remote_port": "Int64",
        "local_port": "Int64",
        "exit_code": "Int64",
    }
    return pd.DataFrame(rows, columns=list(columns)).astype(columns)


def _run(net: PracticeNetwork, curl: str, request: Request) -> tuple[str, str, int, int | None, int]:
    command = [curl, "-q", "-sS", "-o", "/dev/null", "-m", str(_GIVE_UP_S), "-w", _WORDS, request.url]
    ran: subprocess.CompletedProcess[str] = net.client.run(command, timeout=_GIVE_UP_S + 5)
    words = ran.stdout.split()
    port = int(words[1]) if len(words) == 4 and words[1] not in {"0", "-1"} else None
    return request.purpose, request.address, request.port, port, ran.returncode
