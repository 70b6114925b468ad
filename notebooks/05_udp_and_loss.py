# %% [markdown]
# # UDP and loss: packets that vanish
#
# The dashboards have holes, some logs and all flow records are missing, and downloads from one server
# stutter. No program reports an error. Four questions:
#
# 1. Which UDP senders get no answer, and do they know?
# 2. Where do their datagrams end?
# 3. Which downloads lose packets?
# 4. Where are they lost?
#
# This notebook runs **live** where it may (root on Linux): it builds netlab's practice network in network
# namespaces, puts faults into it, and lets real clients use it. Elsewhere it reads a **recording** of such a
# run. In a real incident, leave out the practice network and keep the rest.

# %%
import contextlib
import os
import socket

import netlab
from netlab.lab.traffic import Request

works = netlab.doctor().set_index("capability")["state"]
needed = ["follow connection attempts (eBPF)", "build a practice network"]
live = "NETLAB_RECORDED" not in os.environ and works[needed].eq("yes").all()

# %% [markdown]
# The faults, for practice: a firewall on the way drops one port and every tenth packet of one server, and the
# metrics' collector does not read.

# %%
FAULTS = """
table inet faults {
    chain forwarded {
        type filter hook forward priority filter
        udp dport 4739 drop
        ip saddr 198.18.4.2 tcp sport 80 numgen inc mod 10 5 drop
    }
}
"""


def send(port: int, datagrams: int) -> None:
    """Send from the client to db; what comes back, if anything, is an error."""
    with net.client.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.connect((net.db.address4, port))
        sender.settimeout(0.2)
        with contextlib.suppress(OSError):
            for _ in range(datagrams):
                sender.send(bytes(100))
            sender.recv(100)


if live:
    with netlab.lab.practice() as net:
        net.routers[1].run(["nft", "-f", "-"], input=FAULTS, check=True)
        with netlab.capture(drops=True) as capture:
            with net.db.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as metrics:
                metrics.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
                metrics.bind((net.db.address4, 8125))
                send(8125, datagrams=100)
                send(514, datagrams=1)
                send(4739, datagrams=10)
            downloads = [
                Request("download", host.address4, 80, "/bytes/3000000") for host in (net.web, net.db)
            ]
            netlab.lab.drive(net, downloads)
        hosts = {host.inode for host in net.hosts.values()}
        connections, drops = (
            frame[frame["netns"].isin(hosts)] for frame in (capture.connections(), capture.drops())
        )
else:
    recording = netlab.load("recordings/udp_and_loss.netlab")
    connections, drops = recording["connections"], recording["drops"]

# %% [markdown]
# ## 1. Which UDP senders get no answer, and do they know?
#
# UDP has no handshake, so no sender learns by itself that nobody hears it. A row is a flow; both directions
# are counted.

# %%
udp = connections[connections["protocol"] == "udp"]
sent = udp[udp["direction"] == "outgoing"].set_index("remote_port").sort_index()
assert sent["packets_sent"].to_dict() == {514: 1, 4739: 10, 8125: 100}
assert sent["packets_received"].eq(0).all()
sent[["packets_sent", "packets_received", "error"]]

# %% [markdown]
# None gets an answer, which is normal for metrics, logs and flow records. One is told that something is
# wrong, once: port 514 is *refused*, nothing listens there. The other two look alike.

# %%
print(sent.loc[514, "reason"])

# %%
netlab.plot_connections(connections[connections["direction"] == "outgoing"])

# %% [markdown]
# ## 2. Where do their datagrams end?
#
# What the receiver's socket took is the same flow as the other end has it. What the kernel dropped, on any
# machine that the capture sees, it says why.

# %% tags=["nbval-ignore-output"]
arrived = udp[udp["direction"] == "incoming"].groupby("local_port")["packets_received"].sum()
dropped = drops[(drops["protocol"] == "udp") & (drops["kind"] == "dropped")]
fate = sent[["packets_sent"]].join(arrived.rename("arrived"))
fate = fate.join(dropped.groupby("dport").agg(dropped=("packets", "sum"), reason=("reason", "first")))
fate.fillna({"arrived": 0})

# %%
accounted = fate["arrived"].fillna(0) + fate["dropped"]
assert accounted.eq(fate["packets_sent"]).all()
print("every datagram is accounted for:", bool(accounted.eq(fate["packets_sent"]).all()))
print(fate["reason"].astype(str).to_string())

# %% [markdown]
# Sent is arrived plus dropped, to the packet. Three ports, three ends: nothing listens on 514 (`NO_SOCKET`),
# a firewall drops 4739 (`NETFILTER_DROP`), and the metrics' own socket is full (`SOCKET_RCVBUFF`): the
# network brings everything, and the collector does not read fast enough. More bandwidth would not help; a
# larger buffer or a faster reader does.

# %% [markdown]
# ## 3. Which downloads lose packets?
#
# Both servers send the same three megabytes. TCP repairs losses, so both arrive whole; what it costs is in
# the sender's count of segments that it had to send again.

# %%
tcp = connections[(connections["protocol"] == "tcp") & (connections["direction"] == "incoming")]
servers = tcp[tcp["bytes_sent"] > 3_000_000].set_index("local_address").sort_index()
again = (servers["retransmits"] / servers["packets_sent"]).gt(0.01).rename("over 1 % sent again")
assert again.to_dict() == {"198.18.4.2": True, "198.18.5.2": False}
again.to_frame()

# %% [markdown]
# Only 198.18.4.2 has to.

# %% [markdown]
# ## 4. Where are they lost?

# %%
of_download = drops[(drops["src"] == "198.18.4.2") & (drops["reason"] == "NETFILTER_DROP")]
places = of_download[["src", "dst", "reason", "location", "interface"]].drop_duplicates(ignore_index=True)
assert len(places) == 1
assert of_download["packets"].sum() > 0
places

# %% [markdown]
# In one place: a firewall rule drops them as they come in by the interface `r3`. The practice network names
# each interface after the host at its other end, so this is the router next to r3. No bad cable, no
# congestion: somebody's rule.

# %% [markdown]
# ## What to tell whom
#
# - **Metrics**: your collector on port 8125 does not keep up; its socket buffer overflows.
# - **Logging**: nothing listens on 198.18.5.2 port 514.
# - **Network team**: the router next to r3 drops UDP to port 4739, and every tenth packet that 198.18.4.2
#   sends from port 80.
#
# Is anything missing?

# %%
lost = {
    name: int(netlab.coverage(frame)["kind"].eq("lost").sum())
    for name, frame in {"connections": connections, "drops": drops}.items()
}
assert not any(lost.values())
lost

# %% [markdown]
# Nothing is. For the post-mortem, without command lines, which may hold secrets:

# %%
if live:
    shared = connections.drop(columns="cmdline")
    netlab.save("udp_and_loss.netlab", overwrite=True, connections=shared, drops=drops)

# %% [markdown]
# Back to [01_first_look.ipynb](01_first_look.ipynb).
