# %% [markdown]
# # First look: checkout is slow
#
# The shop's pages are fine, but customers say that *checkout is slow* and some payments never go through.
# Four questions, in the order in which they narrow it down:
#
# 1. What is the shop connected to, and what fails?
# 2. Which address do those connections really have, beyond the NAT gateway?
# 3. Which way do the packets go?
# 4. Is anything missing from what we see?
#
# This notebook runs **live** where it may (root on Linux): it builds netlab's practice network in network
# namespaces, lets real `curl` clients use it and watches them. Elsewhere it reads a **recording** of such a
# run; every cell after the first is the same. In a real incident, drop the practice network and keep the
# rest.

# %%
import os

import netlab

works = netlab.doctor().set_index("capability")["state"]
needed = ["follow connection attempts (eBPF)", "list tracked connections and NAT", "build a practice network"]
live = "NETLAB_RECORDED" not in os.environ and works[needed].eq("yes").all()

if live:
    with netlab.lab.practice() as net:
        gateway = net.gateway.netns
        with netlab.capture() as capture, netlab.conntrack_events(netns=gateway) as events:
            netlab.lab.drive(net, netlab.lab.shop(net))
        seen, nat = capture.connections(), events.entries()
        connections = seen[seen["netns"] == net.client.inode]
        hops = netlab.concat(
            netlab.traceroute(address, protocol=protocol, port=port, netns=net.client.netns)
            for address in (net.web.address4, net.web.address6, net.db.address4, net.db.address6)
            for protocol, port in (("udp", None), ("tcp", net.ports.http))
        )
else:
    recording = netlab.load("recordings/first_look.netlab")
    connections, nat, hops = recording["connections"], recording["nat"], recording["hops"]

# %% [markdown]
# ## 1. What is it connected to, and what fails?
#
# One row is one connection *attempt*, failed ones too. Grouped by where they went:

# %%
peers = connections.groupby(["family", "remote_address", "remote_port"], observed=True).agg(
    attempts=("protocol", "size"), failed=("error", "count"), bytes_received=("bytes_received", "sum")
)
peers

# %% [markdown]
# Two ports fail every time. The errno and the reason come from the kernel, not from the application's log:
# port 9 is *refused* (the host is there, nothing listens), port 6666 is *never answered* (something on the
# way drops the SYNs: a firewall, not a crashed service).

# %%
failures = connections[connections["error"].notna()]
failures[["process", "remote_address", "remote_port", "error", "reason"]].sort_values(
    ["remote_port", "remote_address"], ignore_index=True
)

# %%
netlab.plot_timeline(connections)

# %% [markdown]
# The timeline shows the other complaint: the connections to port 8081, the checkout, take half a second. Is
# that the network? The handshake and the round-trip time say no: both are far below a millisecond here. The
# time passes on the server, between request and answer.

# %% tags=["nbval-ignore-output"]
checkout = connections[connections["remote_port"] == 8081]
checkout[["remote_address", "connect_ms", "rtt_ms", "retransmits", "duration_s"]].round(3)

# %%
print("every checkout took at least 0.5 s:", bool((checkout["duration_s"] >= 0.5).all()))
print("its handshake took less than a tenth of that:", bool((checkout["connect_ms"] < 50).all()))
print("segments sent again:", int(checkout["retransmits"].sum()))

# %% [markdown]
# ## 2. Through which NAT?
#
# The servers' logs never show the shop's own address. The gateway's conntrack entries say which address each
# connection has beyond it. They were recorded as they were made: the entry of a refused connection is gone a
# moment later.

# %%
translated = netlab.with_nat(connections, nat)
columns = ["local_address", "nat_local_address", "remote_address", "nat_remote_address"]
translated.groupby(columns, observed=True, dropna=False).size().rename("attempts").reset_index()

# %%
print("attempts without a translation:", int(translated["nat_local_address"].isna().sum()))

# %% [markdown]
# ## 3. Along which path?
#
# Traced from the client by UDP and by TCP to the port that the shop uses, over IPv4 and IPv6. All four ways
# to a server agree, and every router answers: the network between is whole.

# %%
for (target, protocol), trace in hops.groupby(["target", "protocol"], sort=False, observed=True):
    routers = trace.groupby("ttl")["address"].first().fillna("*")
    print(f"{target:>14} {protocol}  {' → '.join(routers)}")

# %%
graph = netlab.path_graph(hops[hops["family"] == 4])
print(graph)
netlab.plot_path(graph)

# %%
netlab.plot_hops(hops[hops["target"] == hops["target"].iloc[0]])

# %%
lost = hops["address"].isna().groupby(hops["target"]).mean().rename("share of probes without an answer")
lost

# %% [markdown]
# ## 4. Is anything missing?
#
# Every frame says what it does not contain. Nothing was lost here; if a buffer had overflowed, this table
# would say how much.

# %%
gaps = netlab.coverage(connections)
gaps[gaps["kind"] == "lost"]

# %% [markdown]
# ## What to tell whom
#
# - **Checkout team**: the half second is spent in your service on port 8081; the network adds less than a
#   millisecond.
# - **Network team**: SYNs to port 6666 are dropped silently for every client, over IPv4 and IPv6. A firewall
#   rule, most likely on or before the server; the path up to it is whole.
# - **Metrics team**: nothing listens on port 9.
#
# To keep the evidence for the post-mortem: `netlab.save("incident.netlab", connections=connections, nat=nat,
# hops=hops)`.
