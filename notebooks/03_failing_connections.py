# %% [markdown]
# # Failing connections: whose fault is it?
#
# Since the last deploy the shop's log says *cannot connect* and *timed out*, without a word on whose fault it
# is. Four questions:
#
# 1. What fails, and what does not?
# 2. What does the kernel say about each?
# 3. Two destinations time out alike. Is it the same fault?
# 4. Is anything missing from what we see?
#
# This notebook runs **live** where it may (root on Linux): it builds netlab's practice network in network
# namespaces and lets real `curl` clients use it. Elsewhere it reads a **recording** of such a run. In a real
# incident, leave out the practice network and keep the rest.

# %%
import os

import pandas as pd

import netlab
from netlab.lab.traffic import Request

works = netlab.doctor().set_index("capability")["state"]
needed = ["follow connection attempts (eBPF)", "build a practice network"]
live = "NETLAB_RECORDED" not in os.environ and works[needed].eq("yes").all()

if live:
    with netlab.lab.practice() as net:
        deployed = [Request("ratings", "198.18.4.77", 80), Request("metering", "192.0.2.7", 80)]
        with netlab.capture(drops=True) as capture:
            netlab.lab.drive(net, [*netlab.lab.shop(net), *deployed])
        seen, dropped = capture.connections(), capture.drops()
        connections = seen[seen["netns"] == net.client.inode]
        drops = dropped[dropped["netns"].isin(host.inode for host in net.hosts.values())]
else:
    recording = netlab.load("recordings/failing_connections.netlab")
    connections, drops = recording["connections"], recording["drops"]

# %% [markdown]
# ## 1. What fails, and what does not?
#
# One row is one *attempt*. Lists of sockets have no row for those that failed.

# %%
peers = connections.groupby(["family", "remote_address", "remote_port"], observed=True).agg(
    attempts=("protocol", "size"), failed=("error", "count")
)
assert peers["attempts"].sum() == 16
assert peers["failed"].sum() == 6
assert (peers["failed"].eq(0) | peers["failed"].eq(peers["attempts"])).all()
peers

# %% [markdown]
# Six of sixteen attempts fail, and each destination fails always or never: these are faults of destinations,
# not of the client or of the network it is in. 198.18.5.2 is there: its port 80 works.

# %%
netlab.plot_connections(connections)

# %% [markdown]
# ## 2. What does the kernel say about each?
#
# `failures()` are the attempts with an errno, and with the reason that the kernel had for it.

# %%
pd.set_option("display.max_colwidth", None)
failures = connections.netlab.failures().sort_values(["error", "remote_address"], ignore_index=True)
failures[["family", "remote_address", "remote_port", "error", "reason"]]

# %%
spent = failures.groupby("error")["duration_s"].max()
assert spent["ECONNREFUSED"] < 1 < spent["ETIMEDOUT"]
assert failures.loc[failures["error"] == "ENETUNREACH", "packets_sent"].fillna(0).eq(0).all()
print(failures["error"].astype(str).value_counts().sort_index().to_string())

# %% [markdown]
# Three errors, three places to look:
#
# - **ECONNREFUSED**, at once: the host is there and nothing listens on port 9. Ask who runs the service.
# - **ENETUNREACH**, before the first packet: this host has no route to 192.0.2.7. Ask who configured that
#   address.
# - **ETIMEDOUT**, after seconds: SYNs leave, nothing comes back. That can be anything on the way, so we look
#   closer.

# %% [markdown]
# ## 3. Two destinations time out alike. Is it the same fault?
#
# The capture also recorded where this host's kernel lets go of packets, in all of its network namespaces, and
# why. Those that were on their way to where the time-outs are:

# %%
timed_out = failures[failures["error"] == "ETIMEDOUT"]
ends = timed_out[["remote_address", "remote_port"]].rename(
    columns={"remote_address": "dst", "remote_port": "dport"}
)
whys = drops[drops["kind"] == "dropped"].merge(ends, on=["dst", "dport"])
whys = whys.sort_values(["dst"], ignore_index=True)[["dst", "dport", "reason", "location", "interface"]]
assert whys["reason"].tolist() == ["NEIGH_FAILED", "NETFILTER_DROP", "NETFILTER_DROP"]
whys

# %% [markdown]
# It is not. The practice network names each interface after the host at its other end. The SYNs to port 6666
# arrive at the server, from `r3`, and its **firewall** drops them, over IPv4 and IPv6 alike. Those to
# 198.18.4.77 come as far as the last router, which asks on its interface to `web` who has that address, and
# **nobody has it**. A firewall rule and a host that is gone look the same from the client.
#
# (The kernel tells only of its own host: here the whole network is on it, as containers are. Where the other
# end is elsewhere, run the same there, or [trace the path](02_slow_path.ipynb).)

# %% [markdown]
# ## 4. Is anything missing?

# %%
lost = {
    name: int(netlab.coverage(frame)["kind"].eq("lost").sum())
    for name, frame in {"connections": connections, "drops": drops}.items()
}
assert not any(lost.values())
lost

# %% [markdown]
# ## What to tell whom
#
# - **Payments**: your firewall on 198.18.5.2 drops port 6666, over both families.
# - **Metrics**: the host 198.18.5.2 is up, and nothing listens on its port 9.
# - **Ratings**: no host has the address 198.18.4.77 any more.
# - **Whoever deployed**: the metering service's address 192.0.2.7 is in no routing table of ours; a typing
#   error?
#
# For the post-mortem, without command lines, which may hold secrets:

# %%
if live:
    shared = connections.drop(columns="cmdline")
    netlab.save("failing_connections.netlab", overwrite=True, connections=shared, drops=drops)

# %% [markdown]
# Next: [04_nat_and_containers.ipynb](04_nat_and_containers.ipynb), who is behind an address.
