"""Where an interface leads: to its other end in another network namespace, or through a bridge to a port."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from netlab.kernel import netlink, nsids, rtnetlink
from netlab.kernel.rtnetlink import Link

_PAIRS = {"veth", "netkit"}
_BRIDGE, _VRF = "bridge", "vrf"
_HIDDEN = "a network namespace without a process or name here, or with none that this user may look at"
_CARRIERS = {"bond", "team"}  # what comes to a member has come to the master


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of a pair: the interface's index in the namespace with this inode."""

    netns: int
    index: int


@dataclass(frozen=True, slots=True)
class End:
    """Where the way cannot be followed any further; *outside*: because it leaves the host."""

    detail: str
    outside: bool = False


@dataclass(frozen=True, slots=True)
class Onward:
    """What a network namespace knows of where its interfaces lead."""

    own: int  # inode
    links: Mapping[int, Link]
    ports: Mapping[tuple[int, str], set[int]]  # as of rtnetlink.bridged()
    spaces: Mapping[int, int]  # as of nsids.known()

    @classmethod
    def here(cls, own: int, links: Mapping[int, Link], files: Mapping[int, Path]) -> Onward:
        """Ask in the calling thread's namespace; *files* stand for the namespaces that can be found."""
        ports = {}
        if any(link.kind == _BRIDGE for link in links.values()):
            try:
                with netlink.opened(rtnetlink.ROUTE) as kernel:
                    ports = rtnetlink.bridged(kernel)
            except OSError as error:
                raise netlink.refusal(error.errno, "list bridges' forwarding tables") from error
        pairs = any(link.peer_netns is not None for link in links.values())
        return cls(own, links, ports, nsids.known(files) if pairs else {})

    def peer(self, link: Link) -> Peer | End:
        """Return the other end of *link*."""
        if not link.kind:
            return End(f"leaves the host by {link.name}", outside=True)
        if link.kind not in _PAIRS:
            return End(f"leaves by {link.name}: what a {link.kind} device does is not followed")
        if not link.peer:
            return End(f"the other end of {link.name} is not known")
        if link.peer_netns is None:
            return Peer(self.own, link.peer)
        if link.peer_netns not in self.spaces:
            return End(f"{link.name} leads to {_HIDDEN}")
        return Peer(self.spaces[link.peer_netns], link.peer)

    def port(self, bridge: Link, mac: str | None) -> Link | End:
        """Return the port by which *bridge* sends to *mac*; the bridge itself if the MAC is its own."""
        if mac is None:
            return End(f"the next hop's MAC is not known, hence not by which port of {bridge.name} it goes")
        ports = self.ports.get((bridge.index, mac), set())
        if not ports:
            return End(f"{bridge.name} does not know {mac} any more, hence not by which port it goes")
        if len(ports) > 1:
            return End(
                f"{bridge.name} has {mac} at {len(ports)} ports: the VLAN decides, which is not followed"
            )
        (index,) = ports
        return self.links.get(index) or End(f"a port of {bridge.name} is gone")

    def comes_to(self, link: Link) -> Link | End:
        """Return what a packet that comes to *link* has come to: a bridge that it is a port of, or itself."""
        above = self.links.get(link.master)
        if above is None or above.kind == _VRF:
            return link
        if above.kind in _CARRIERS:
            return self.comes_to(above)
        if above.kind == _BRIDGE:
            return above
        return End(f"{link.name} is a port of {above.name}: what a {above.kind} device does is not followed")


def is_bridge(link: Link) -> bool:
    """Tell whether packets for *link* go by one of its ports."""
    return link.kind == _BRIDGE
