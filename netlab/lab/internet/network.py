"""`netlab.lab.simulated`: an internet of any shape behind a network namespace of its own."""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
import threading
from contextlib import suppress
from ipaddress import ip_address
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

import networkx as nx

from netlab import checks
from netlab.closing import Closes
from netlab.errors import CapabilityError, LabError
from netlab.kernel import capabilities
from netlab.lab import ownership, wiring
from netlab.lab.host import Host
from netlab.lab.internet import device, driver, reading
from netlab.lab.internet.journey import Entry
from netlab.lab.internet.routing import Atlas
from netlab.lab.internet.shape import CLIENT, Epoch, Shape
from netlab.lab.internet.truth import Family, Truth
from netlab.lab.steps import step

_READY_S = 10.0
_ANSWER_S = 60.0
_TUN = "/dev/net/tun"


class SimulatedInternet(Closes):
    """A namespace whose every packet goes into a graph; see `simulated`.

    Attributes
    ----------
    client
        The host that the packets come from: `client.netns`, `client.run()`, `client.popen()`,
        `client.entered()`.
    truth
        Where flows go, who answers, and the log of what happened (`netlab.lab.internet.truth.Truth`).
    real_time
        Whether the process that carries the packets goes before all ordinary ones. If not, a busy machine
        makes answers later than the shape says; the log tells how late.
    overlooked
        How many packets came in such a burst that they were lost before they entered, as of the last look at
        the log.
    """

    def __init__(self, graph: reading.Graph, seed: int) -> None:
        checks.whole("seed", seed, 0, 2**63 - 1)
        epochs = reading.epochs(graph)
        _refuse_if_impossible()
        self._graph = graph.copy()
        self._control: Connection | None = None
        self._driver: subprocess.Popen[bytes] | None = None
        self._entries: list[Entry] = []
        self._failure: LabError | None = None
        self._asking = threading.Lock()
        self.overlooked = 0
        self.truth = Truth(Atlas(epochs), seed, self._log)
        with step("its name could not be claimed"):
            self._claim = ownership.claim()
        self.name = self._claim.name
        node = epochs[0].shape.nodes[CLIENT]
        addresses = [str(ip_address(node.address(family))) for family in (4, 6)]
        self.client = Host(CLIENT, f"{self.name}-{CLIENT}", *addresses)
        atexit.register(self.close)
        try:
            self._build(epochs, seed)
        except BaseException:
            self.close()
            raise

    @property
    def topology(self) -> nx.Graph[str]:
        """The graph that was given."""
        return self._graph

    def address(self, node: str, family: Family = 4) -> str:
        """Return the address of a node."""
        return self.truth.address(node, family)

    def close(self) -> None:
        """Take the log, end every process inside, delete the namespace; safe to call again."""
        if not self._claim.held:
            return
        if self._control is not None:
            with suppress(LabError):  # whoever asks for the log is told
                self._log()
            self._control.close()
            self._control = None
        if self._driver is not None and self._failure is None:
            self._driver.communicate()
        ownership.remove(self.name)
        self._claim.release()
        atexit.unregister(self.close)

    def __repr__(self) -> str:
        state = "open" if self._claim.held else "closed"
        return f"<SimulatedInternet {self.name}, {state}: {len(self._graph)} nodes>"

    def _build(self, epochs: list[Epoch], seed: int) -> None:
        with step("the process that outlives this one could not be started"):
            self._claim.watch()
        with step(f"the namespace {self.client.netns} could not be made"):
            wiring.make_namespace(self.client)
        with step(f"the TUN device in {self.client.netns} could not be made"):
            wiring.in_a_thread_of_its_own(self._start, [epoch.shape for epoch in epochs])
        with step("the process that carries the packets did not start"):
            self._send((epochs, seed))
            started = self._receive(_READY_S)
            self.real_time = bool(started["real_time"])

    def _start(self, shapes: list[Shape]) -> None:
        """Make the device and start the process behind it, which alone keeps both descriptors."""
        with self.client.entered():
            tun = device.open_tun()
            try:
                mtu_bytes = min(link.mtu_bytes for shape in shapes for link in shape.links[CLIENT])
                device.configure(shapes[0].nodes[CLIENT], mtu_bytes)
                with device.open_tap() as tap:
                    self._popen(tun, tap.fileno())
            finally:
                os.close(tun)

    def _popen(self, tun: int, tap: int) -> None:
        self._control, theirs = Pipe()
        with theirs:
            descriptors = (tun, tap, theirs.fileno())
            self._driver = subprocess.Popen(
                [sys.executable, "-P", driver.__file__, *map(str, descriptors)],
                pass_fds=descriptors,
                stdin=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C goes to the whole group of processes
            )

    def _log(self) -> list[Entry]:
        if self._failure is not None:
            raise self._failure
        with self._asking:
            if self._control is not None:
                self._send("log")
                self._entries, self.overlooked = self._receive(_ANSWER_S)
            return self._entries

    def _send(self, what: object) -> None:
        assert self._control is not None  # noqa: S101 - the callers have looked
        try:
            self._control.send(what)
        except OSError as error:
            raise self._ended() from error

    def _receive(self, wait_s: float) -> Any:
        assert self._control is not None  # noqa: S101 - the callers have looked
        try:
            if not self._control.poll(wait_s):
                raise LabError(f"the process that carries the packets said nothing for {wait_s:g} s")
            return self._control.recv()
        except (EOFError, OSError) as error:
            raise self._ended() from error

    def _ended(self) -> LabError:
        words = b""
        if self._driver is not None and self._failure is None:
            self._driver.kill()
            words = self._driver.communicate()[1]
        last = words.decode(errors="replace").strip()[-300:]
        self._failure = self._failure or LabError(
            f"the process that carries the packets has ended: {last or 'it said nothing'}",
            fix="Close this network and build it again",
        )
        return self._failure


@checks.options
def simulated(graph: reading.Graph, *, seed: int = 0) -> SimulatedInternet:
    """Build an internet of any shape: a namespace whose packets go node by node through a graph.

    Programs in the namespace `client.netns` (or run by `client.run()`) talk to it as to any network. It takes
    part in nothing outside itself, several can exist side by side, and it is removed whole when the block
    ends, or when this process is killed. A process of its own carries the packets.

    Parameters
    ----------
    graph
        A networkx Graph (links alike in both directions) or DiGraph; node names are strings. `load_shape()`
        reads one from a TOML file. The node "client" is this host. Packets take the cheapest way by `metric`,
        spread over all ways that cost the same. See below for attributes.
    seed
        Draws losses, jitter and branches: the nth packet's fate comes from the seed, n and the packet.

    Returns
    -------
    SimulatedInternet
        Ready to be used, with `client`, `address(node)`, and `truth`: `truth.paths(flow)` and
        `truth.hops(flow)` of a `netlab.lab.Flow`, and `truth.log()`.

    Raises
    ------
    BadInput
        Naming the node or link with an attribute that is unknown or cannot be right; nothing was built.
    CapabilityError
        Without CAP_SYS_ADMIN and CAP_NET_ADMIN, or without /dev/net/tun.
    LabError
        Naming the step that failed; what had been built is removed.

    Notes
    -----
    Attributes of a **link** (in a DiGraph, of one direction): `delay_ms`, `jitter_ms` (evenly spread, on
    top), `loss` (0 to 1), `mtu_bytes` (1500; the client's own 1280 at least; larger packets are cut or, with
    DF or in IPv6, answered), `metric` (1), `up` (True), `far_address4`, `far_address6` (the far end's
    interface, which answers for what came by this link; else the node's address does).

    Attributes of a **node**:

    - `address4`, `address6`; `prefixes`: networks whose every address it answers for.
    - `balance`: among equal ways by "flow" (addresses, protocol, first four bytes of the transport, IPv6
      flow label), by "packet" or by "destination".
    - `counts_answers` (False): the IPv4 identifications of what it sends are 1, 2, 3 …, else drawn by chance.
    - Its ICMP errors: `silent` (True for all, or a list of words of `netlab.wire.icmp.Error`), `icmp_per_s`
      and `icmp_burst` (a token bucket), `answers_from4`, `answers_from6` (another source address),
      `reply_ttl` (64), `quote_bytes` (how much transport is quoted, from 8; else up to 576 bytes in all, 1280
      for IPv6), `mpls` (the labels it received, outermost first, each a number or a table of `label`,
      `traffic_class`, `ttl`), `told_mtu` (what it says that the MTU of a too narrow link is).
    - What it does to the client's packets that it forwards: `hidden` (leaves the TTL alone), `set_ttl`,
      `set_dscp`, `set_ecn`, `set_ip_id` (to chance), `filters` and `prohibits` (lists of "udp", "tcp",
      "icmp": drops them, or says so).
    - NAT: `nat4`, `nat6` (the address behind which it hides what is before it), `nat_port_shift` (added to
      ports and echo identifiers), `dnat` (a table: its address outside, the host's inside), `nat_quotes`:
      in ICMP errors it puts back the quoted packet ("restored"), all but the transport checksum
      ("addresses"), or nothing ("kept").
    - As a target: `tcp` and by port `tcp_ports` ("rst-ack", "rst", "syn-ack", "sack", "prohibited",
      "silent"), `udp` and `udp_ports` ("port-unreachable", "reply", "prohibited", "silent"), `echo` ("reply",
      "prohibited", "silent").

    Attribute of the **graph**: `changes`, a list of tables of `at_s` (seconds after the start), `node` or
    `between` or `from` and `to`, and the attributes that are different from then on.

    Fragments that a router makes travel together and arrive as one packet; the client's own go one by one.
    The log keeps every packet for as long as the network exists.

    Examples
    --------
    >>> import netlab, networkx as nx
    >>> graph = nx.path_graph(["client", "r1", "r2", "web"])
    >>> nx.set_edge_attributes(graph, 5, "delay_ms")
    >>> with netlab.lab.simulated(graph) as net:
    ...     hops = netlab.traceroute(net.address("web"), netns=net.client.netns, queries=1)
    ...     log = net.truth.log()
    >>> hops.address.tolist() == [net.address(node) for node in ("r1", "r2", "web")]
    True
    >>> log.delay_ms.tolist()[:3]
    [10.0, 20.0, 30.0]
    """
    return SimulatedInternet(graph, seed)


def _refuse_if_impossible() -> None:
    """Refuse at once what is known to fail."""
    capabilities.require(*ownership.NEEDED, doing="build a simulated internet", fix=ownership.GRANT)
    if not os.path.exists(_TUN):  # noqa: PTH110 - a device
        raise CapabilityError(f"cannot build a simulated internet without {_TUN}", fix="Run: modprobe tun")
