"""The practice network as one object: built, served, and removed whole."""

from __future__ import annotations

import atexit
import select
import socket
import subprocess
import sys
import time
from typing import IO, cast

import networkx as nx

from netlab.closing import Closes
from netlab.errors import CapabilityError
from netlab.kernel import capabilities
from netlab.lab import ownership, plan, servers, wiring
from netlab.lab.host import Host
from netlab.lab.steps import step

_COMMAND_S = 30.0
_READY_S = 30.0  # who ends without being ready is noticed at once: this is for slow machines

# On several lines, because nft refuses chains on one line without semicolons in the right places.
_NAT = """\
table inet netlab {{
    chain forwarded {{
        type nat hook prerouting priority dstnat
        iifname "{client}" tcp dport {port} dnat ip to {web4}:{http}
        iifname "{client}" tcp dport {port} dnat ip6 to [{web6}]:{http}
    }}
    chain masqueraded {{
        type nat hook postrouting priority srcnat
        oifname "{outside}" masquerade
    }}
}}
"""
_DROP = """\
table inet netlab {{
    chain dropped {{
        type filter hook input priority filter
        tcp dport {port} drop
    }}
}}
"""
_SERVICES = {
    "web": (
        f"http:{plan.PORTS.http}",
        f"http:{plan.PORTS.slow_http}:{plan.PORTS.slow_answer_s}",
        f"udp-echo:{plan.PORTS.udp_echo}",
    ),
    "db": (f"http:{plan.PORTS.http}", f"tcp-echo:{plan.PORTS.tcp_echo}"),
}


class PracticeNetwork(Closes):
    """A small internet inside this machine; see `netlab.lab.plan` for its map and addresses.

    Attributes
    ----------
    client, gateway, web, db
        The hosts; `routers` are the three between.
    hosts
        All of them by name, from the client outward.
    ports
        The ports of the services.
    """

    ports = plan.PORTS

    def __init__(self) -> None:
        _refuse_if_impossible()
        self._servers: list[subprocess.Popen[bytes]] = []
        with step("its name could not be claimed"):
            self._claim = ownership.claim()
        self.name = self._claim.name
        self.hosts = {
            name: Host(name, f"{self.name}-{name}", plan.address(name, 4), plan.address(name, 6))
            for name in plan.HOSTS
        }
        self.client, self.gateway, self.web, self.db = (
            self.hosts[name] for name in (plan.CLIENT, plan.GATEWAY, *plan.SERVERS)
        )
        self.routers = tuple(self.hosts[name] for name in plan.ROUTERS)
        atexit.register(self.close)
        try:
            self._build()
        except BaseException:
            self.close()
            raise

    @property
    def topology(self) -> nx.Graph[str]:
        """The true network, nodes with `role`, `address4`, `address6`, edges with their prefixes."""
        return plan.graph()

    @property
    def nat_address4(self) -> str:
        """The IPv4 address that the servers see instead of the client's."""
        return plan.OUTSIDE[0].address(plan.GATEWAY, 4)

    @property
    def nat_address6(self) -> str:
        """The IPv6 address that the servers see instead of the client's."""
        return plan.OUTSIDE[0].address(plan.GATEWAY, 6)

    def path4(self, server: str) -> list[str]:
        """Return what an IPv4 trace from the client to "web" or "db" sees, by TTL; the server last."""
        return plan.path(server, 4)

    def path6(self, server: str) -> list[str]:
        """Return what an IPv6 trace from the client to "web" or "db" sees, by hop limit; the server last."""
        return plan.path(server, 6)

    def close(self) -> None:
        """End every process inside, delete the namespaces; safe to call again."""
        if not self._claim.held:
            return
        ownership.remove(self.name)
        for server in self._servers:
            server.communicate()
        self._claim.release()
        atexit.unregister(self.close)

    def __repr__(self) -> str:
        state = "open" if self._claim.held else "closed"
        return f"<PracticeNetwork {self.name}, {state}: {' - '.join(self.hosts)}>"

    def _build(self) -> None:
        with step("the process that outlives this one could not be started"):
            self._claim.watch()
        for host in self.hosts.values():
            with step(f"the namespace {host.netns} could not be made"):
                wiring.make_namespace(host)
        with step("the links could not be made"):
            wiring.connect(self.hosts)
        self._firewall()
        self._serve()
        self._wait_until_reachable()

    def _firewall(self) -> None:
        rules = {
            plan.GATEWAY: _NAT.format(
                client=plan.CLIENT,
                outside=plan.OUTSIDE[0].far,
                port=self.ports.forwarded,
                web4=self.web.address4,
                web6=self.web.address6,
                http=self.ports.http,
            ),
            **dict.fromkeys(plan.SERVERS, _DROP.format(port=self.ports.drops)),
        }
        for name, text in rules.items():
            with step(f"the firewall of {name} could not be set"):
                nft = capabilities.tool("nft") or "nft"
                self.hosts[name].run([nft, "-f", "-"], input=text, check=True, timeout=_COMMAND_S)
        with step("the gateway could not be told to count what it translates"):
            wiring.count_tracked(self.gateway)

    def _serve(self) -> None:
        for name, services in _SERVICES.items():
            with step(f"the servers of {name} could not be started"):
                server = self.hosts[name].popen(
                    [sys.executable, "-I", servers.__file__, *services],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    start_new_session=True,  # Ctrl-C goes to the whole group of processes
                )
                self._servers.append(server)
        for name, server in zip(_SERVICES, self._servers, strict=True):
            with step(f"the servers of {name} did not start"):
                _await_ready(server)

    def _wait_until_reachable(self) -> None:
        """Connect to every service from the client, which also fills the neighbour tables on the way."""
        deadline = time.monotonic() + _READY_S
        for name, port in plan.LISTENING:
            for family in plan.FAMILIES:
                place = (plan.address(name, family), port)
                with step(f"{name} did not accept on {place[0]} port {port}"), self.client.entered():
                    _connect(place, deadline)


def practice() -> PracticeNetwork:
    """Build a small internet in network namespaces: client, NAT gateway, three routers, two servers.

    It takes part in nothing outside itself, several can exist side by side, and it is removed whole when the
    block ends, or when this process is killed; should that fail, `netlab.lab.clean()` removes what is left.

    Returns
    -------
    PracticeNetwork
        Ready: every server accepts. Its map, addresses and ports are those of `netlab.lab.plan`.

    Raises
    ------
    CapabilityError
        Without CAP_SYS_ADMIN and CAP_NET_ADMIN, or without `nft`.
    LabError
        Naming the step that failed; what had been built is removed.

    Examples
    --------
    >>> import netlab
    >>> with netlab.lab.practice() as net:
    ...     answer = net.client.run(["curl", "-s", f"http://{net.web.address4}/peer"])
    >>> answer.stdout.strip() == net.nat_address4
    True
    """
    return PracticeNetwork()


def _refuse_if_impossible() -> None:
    """Refuse at once what is known to fail."""
    capabilities.require(*ownership.NEEDED, doing="build the practice network", fix=ownership.GRANT)
    if capabilities.tool("nft") is None:
        raise CapabilityError(
            "cannot build the practice network without nft", fix="Run: apt-get install nftables"
        )


def _await_ready(server: subprocess.Popen[bytes]) -> None:
    """Wait for the line that the server prints when it listens, or for its last words."""
    output = cast("IO[bytes]", server.stdout)
    speaking = select.poll()
    speaking.register(output, select.POLLIN)
    if not speaking.poll(_READY_S * 1000):
        raise TimeoutError(f"nothing heard from it for {_READY_S:g} s")
    if output.readline() != b"ready\n":
        server.kill()
        _, last_words = server.communicate()
        raise OSError(last_words.decode(errors="replace").strip()[-300:])


def _connect(place: tuple[str, int], deadline: float) -> None:
    """Connect once; try again until the deadline, since IPv6 may take a moment on a new link."""
    while True:
        left = deadline - time.monotonic()
        try:
            socket.create_connection(place, timeout=max(left, 0.01)).close()
        except OSError:
            if left <= 0:
                raise
            time.sleep(0.01)
        else:
            return
