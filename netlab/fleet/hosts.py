"""`netlab.fleet.Fleet`: the calls of netlab, answered by many hosts."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from netlab import checks
from netlab.errors import BadInput
from netlab.fleet import asking, here
from netlab.fleet.captures import FleetCapture
from netlab.fleet.merging import merged
from netlab.fleet.recording import FleetRecording

if TYPE_CHECKING:
    from distributed import Client

_MOST_S = here.IDLE_S / 2  # between two looks of a recording, so that its capture does not end


class Fleet:
    """The hosts whose workers belong to a cluster of `dask.distributed`.

    Every call takes the arguments of netlab's function of its name, runs on each host with the privileges of
    its worker or through the host's agent, and returns one frame: its column `host` is the name of the
    worker, or the address of its machine where the worker was not given a name. Of requests, whose `host` is
    the server that they name, that column is `on_host`.

    Parameters
    ----------
    client
        The cluster's `distributed.Client`.
    timeout_s
        How long the hosts are waited for in each call, in seconds. A host that fails, ends or is not in time
        is a row in the coverage, and the others' rows are there.
    hosts
        The names of those to ask; all by default, also those that join later.

    Raises
    ------
    BadInput
        If *client* is no such client, or one of *hosts* is not there. Every call: if two workers are called
        the same.
    CapabilityError
        Without the package `distributed`. Every call: if the cluster has no workers.

    Notes
    -----
    Where no host answers, a call raises what they met. The scheduler and the workers need netlab, too.

    Examples
    --------
    >>> from distributed import Client
    >>> from netlab.fleet import Fleet
    >>> with Client(n_workers=1, processes=False, dashboard_address=None) as client:
    ...     now = Fleet(client).connections()
    >>> now.columns[0]
    'host'
    """

    @checks.options
    def __init__(
        self, client: Client, *, timeout_s: float = 30.0, hosts: Iterable[str] | None = None
    ) -> None:
        with checks.needing("fleet", "a fleet needs dask's package distributed"):
            from distributed import Client
        if not isinstance(client, Client) or client.asynchronous:
            raise BadInput(
                f"client {client!r} is no synchronous dask client",
                fix='Give distributed.Client("tcp://SCHEDULER:8786")',
            )
        self._client = client
        self._timeout_s = checks.positive("timeout_s", timeout_s, unit="seconds")
        self._hosts = None if hosts is None else list(hosts)
        for host in self._hosts or ():
            checks.choice("host", host, asking.workers(client))

    def __repr__(self) -> str:
        return f"<netlab fleet: {', '.join(self.hosts)}>"

    @property
    def hosts(self) -> list[str]:
        """The names of the hosts that are asked."""
        return list(asking.workers(self._client)) if self._hosts is None else self._hosts

    def connections(self, **options: Any) -> pd.DataFrame:
        """As `netlab.connections`, of all hosts."""
        return self._frame("connections", options)

    def listeners(self, **options: Any) -> pd.DataFrame:
        """As `netlab.listeners`, of all hosts."""
        return self._frame("listeners", options)

    def conntrack(self, **options: Any) -> pd.DataFrame:
        """As `netlab.conntrack`, of all hosts."""
        return self._frame("conntrack", options)

    def conntrack_stats(self, **options: Any) -> pd.DataFrame:
        """As `netlab.conntrack_stats`, of all hosts."""
        return self._frame("conntrack_stats", options)

    def nat(self, **options: Any) -> pd.DataFrame:
        """As `netlab.nat`, of all hosts."""
        return self._frame("nat", options)

    def routes(self, **options: Any) -> pd.DataFrame:
        """As `netlab.routes`, of all hosts."""
        return self._frame("routes", options)

    def traceroute(self, target: str, **options: Any) -> pd.DataFrame:
        """As `netlab.traceroute`, from all hosts."""
        return self._frame("traceroute", {"target": target, **options})

    def traceroute_mesh(
        self, hosts: Mapping[str, str] | None = None, *, at_once: int = 64, **options: Any
    ) -> pd.DataFrame:
        """Trace the ways between all pairs of hosts, in both directions.

        Parameters
        ----------
        hosts
            The hosts that take part, with the address that the others are to find each under; by default all,
            with the addresses at which their workers serve the cluster.
        at_once
            How many targets a host traces side by side, 1 to 1000.
        options
            As in `netlab.path.trace_many`.

        Returns
        -------
        DataFrame
            As `netlab.schemas.HOPS`; `netlab.fleet.mesh_graph` makes one graph of it.

        Raises
        ------
        BadInput
            If there are not two hosts.
        """
        checks.whole("at_once", at_once, 1, 1000)
        known = asking.places(self._client, self.hosts) if hosts is None else dict(hosts)
        if len(known) < 2:
            raise BadInput(
                "a mesh takes two hosts", fix="Give a name and an address for each: {'db1': '10.0.0.1'}"
            )
        return merged(
            self._ask(
                here.traces,
                {
                    host: ([address for other, address in known.items() if other != host], at_once, options)
                    for host in known
                },
            )
        )

    def capture(self, **options: Any) -> FleetCapture:
        """As `netlab.capture`, on all hosts; it starts when it is entered, or by `start()`."""
        return FleetCapture(self._ask, lambda: self.hosts, options)

    def record(
        self, directory: str | os.PathLike[str], *, every_s: float = 60.0, **options: Any
    ) -> FleetRecording:
        """Capture on all hosts and write what they see to a Parquet dataset on this one, as it happens.

        Parameters
        ----------
        directory
            New, or of an earlier recording, which then goes on. `netlab.fleet.dataset` opens it.
        every_s
            How often the hosts are asked what is new, in seconds; each time each writes one file.
        options
            As of `netlab.capture`.

        Returns
        -------
        FleetRecording
            Starts when it is entered, or by `start()`.
        """
        checks.positive("every_s", every_s, unit="seconds", most=_MOST_S)
        options = {"client_expiry_s": 2 * _MOST_S, **options}
        return FleetRecording(self.capture(**options), Path(directory), every_s=every_s)

    def _frame(self, function: str, options: Mapping[str, Any]) -> pd.DataFrame:
        return merged(self._ask(here.frame, dict.fromkeys(self.hosts, (function, options))))

    def _ask(self, work: Any, arguments: Mapping[str, tuple[Any, ...]]) -> asking.Answers:
        return asking.ask(self._client, work, arguments, timeout_s=self._timeout_s)
