from __future__ import annotations

import re
import socket
from collections.abc import Iterator

import pytest
from between import Between, between, inside

import netlab
from netlab.kernel import netns

pytestmark = pytest.mark.privileged
PORTS = 2
RULES = f"""
table ip netlab_ports {{
    chain sources {{
        type nat hook postrouting priority srcnat
        udp dport 5000 snat to 10.93.2.1:4000-{3999 + PORTS}
    }}
}}
"""


@pytest.fixture(scope="module")
def net() -> Iterator[Between]:
    """Yield networks whose router has two ports for its clients, asked for five."""
    with between(93) as made:
        inside(made.router, "nft", "-f", "-", text=RULES)
        with netns.entered(made.client):
            clients = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(5)]
            for client in clients:
                client.sendto(b"?", ("10.93.2.2", 5000))
                client.close()
        yield made


def test_the_counters_are_those_of_conntrack(net: Between) -> None:
    frame = netlab.conntrack_stats(netns=net.router)

    told = [
        {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", line)}
        for line in inside(net.router, "conntrack", "-S").splitlines()
    ]
    assert frame[list(told[0])].to_dict("records") == told


def test_flows_that_got_no_port_are_counted_and_the_table_has_the_others(net: Between) -> None:
    frame = netlab.conntrack_stats(netns=net.router)

    assert frame[["insert_failed", "drop"]].sum().tolist() == [3, 3]
    assert frame["entries"].unique().tolist() == [PORTS]
    assert (frame["max_entries"].nunique(), frame["buckets"].nunique()) == (1, 1)


def test_of_all_namespaces_each_has_its_own(net: Between) -> None:
    frame = netlab.conntrack_stats(netns="all")

    client, router = (netns.inode(space) for space in (net.client, net.router))
    assert frame.groupby("netns")["insert_failed"].sum()[[client, router]].tolist() == [0, 3]
