# %% [markdown]
# # NAT and containers: who is behind that address?
#
# The web server's owner calls: *198.18.1.1 floods us, make it stop.* Nobody remembers a machine with that
# address. And our own containers ask 10.0.0.1, which runs no web server. Four questions:
#
# 1. Who is 198.18.1.1?
# 2. Where do the connections to 10.0.0.1 end?
# 3. What does one connection pass on its way?
# 4. Do both ends agree?
#
# This notebook runs **live** where it may (root on Linux): it builds netlab's practice network in network
# namespaces, as containers are, and lets real clients use it. Elsewhere it reads a **recording** of such a
# run. In a real incident, leave out the practice network and keep the rest.

# %%
import os
import socket

import netlab
from netlab.lab.traffic import Request

works = netlab.doctor().set_index("capability")["state"]
needed = ["follow connection attempts (eBPF)", "list tracked connections and NAT", "build a practice network"]
live = "NETLAB_RECORDED" not in os.environ and works[needed].eq("yes").all()

if live:
    with netlab.lab.practice() as net:
        gateway, client, web = net.gateway.netns, net.client, net.web
        targets = [(web.address4, 80), ("10.0.0.1", 8088), (web.address6, 80), ("fd00::1", 8088)]
        with netlab.capture() as capture, netlab.conntrack_events(netns=gateway) as events:
            netlab.lab.drive(net, [Request("page", *target, "/peer") for target in targets])
            with client.entered(), socket.create_connection(("10.0.0.1", 8088)):
                now = capture.connections()
                is_ours = (now["netns"] == client.inode) & (now["direction"] == "outgoing")
                way = netlab.explain(now[is_ours & (now["state"] == "established")]).frame
                nat = netlab.nat(netns=gateway)
            hosts = {host.inode for host in (client, web)}
        seen = netlab.with_nat(capture.connections(), events.entries())
        connections = seen[seen["netns"].isin(hosts)]
else:
    recording = netlab.load("recordings/nat_and_containers.netlab")
    connections, nat, way = (recording[name] for name in ("connections", "nat", "way"))

# %% [markdown]
# ## 1. Who is 198.18.1.1?
#
# The gateway's connection tracking knows what it translates. `netlab.nat` is that table without the entries
# that are left alone; it reads any network namespace, `netns="all"` every one.

# %%
to_web = nat[nat["reply_src"].isin(["198.18.4.2", "2001:db8:4::2"]) & (nat["reply_sport"] == 80)]
columns = ["src", "dst", "dport", "reply_dst", "reply_src", "reply_sport", "nat"]
table = to_web[columns].drop_duplicates().sort_values(["src", "dst"], ignore_index=True)
assert set(table["src"]) == {"10.0.0.2", "fd00::2"}
table

# %% [markdown]
# `src` is who opened the connection, `reply_dst` whom the server answers: 198.18.1.1 is the gateway's address
# outside, and behind it, so far, is one container: 10.0.0.2, which is fd00::2 in IPv6.

# %% [markdown]
# ## 2. Where do the connections to 10.0.0.1 end?
#
# The same table answers: `dst` is what the client asked for, `reply_src` who answers. Joined to the
# connections, each attempt has both: `with_nat` follows entries by tuple, namespace and time, also those that
# are gone by now.

# %%
clients = connections[connections["direction"] == "outgoing"]
ends = ["remote_address", "remote_port", "nat_remote_address", "nat_remote_port", "nat_local_address"]
summary = clients.groupby(ends, observed=True).size().rename("connections").reset_index()
assert set(summary["nat_remote_address"]) == {"198.18.4.2", "2001:db8:4::2"}
assert summary["nat_remote_port"].eq(80).all()
summary

# %% [markdown]
# Port 8088 of 10.0.0.1 is port 80 of 198.18.4.2: a forwarded port (DNAT). The client never learns the
# server's address, and the server never learns the client's.

# %% [markdown]
# ## 3. What does one connection pass on its way?
#
# `netlab.explain` follows an open connection through this host, as the kernel would treat its next packet.

# %%
stations = way.assign(namespace=way["namespace"].str.rpartition("-")[2])
assert stations["station"].iloc[0] == "socket"
assert stations["station"].iloc[-1] == "peer"
stations[["namespace", "station", "src", "dst", "dport", "new_src", "new_dst", "interface"]].fillna("")

# %% [markdown]
# From the container's socket to the process that serves it: both addresses change at the gateway, and from
# there on the packet says 198.18.1.1 → 198.18.4.2. In a live notebook, `netlab.explain(row)` alone shows the
# same as a readable list.

# %% [markdown]
# ## 4. Do both ends agree?
#
# This host runs both ends, so the capture has each connection twice: as the client's and as the server's.
# What one calls remote must be what the other calls local, beyond the translations.

# %%
servers = connections[(connections["direction"] == "incoming") & (connections["local_port"] == 80)]
outside = ["nat_local_address", "nat_local_port", "nat_remote_address", "nat_remote_port"]
inside = ["remote_address", "remote_port", "local_address", "local_port"]
pairs = clients.merge(servers, left_on=outside, right_on=inside, suffixes=("", "_server"))
assert len(pairs) == len(clients) == len(servers) == 5
assert pairs["nat_remote_address_server"].eq(pairs["local_address"]).all()
assert pairs["nat_remote_port_server"].eq(pairs["local_port"]).all()
print(f"{len(pairs)} of {len(clients)} connections found at their other end, and the container behind each")

# %%
netlab.plot_connections(clients)

# %% [markdown]
# ## What to tell whom
#
# - **The web server's owner**: 198.18.1.1 is our gateway; every container of ours has that address for you.
#   Give us the time and the source port, and we say which container it was.
# - **The container's owner**: 10.0.0.1:8088 is 198.18.4.2:80, in IPv6 fd00::1:8088 is 2001:db8:4::2:80.
#
# Is anything missing?

# %%
lost = {
    name: int(netlab.coverage(frame)["kind"].eq("lost").sum())
    for name, frame in {"connections": connections, "nat": nat, "way": way}.items()
}
assert not any(lost.values())
lost

# %% [markdown]
# Nothing is. For the post-mortem, without command lines, which may hold secrets:

# %%
if live:
    shared = connections.drop(columns="cmdline")
    netlab.save("nat_and_containers.netlab", overwrite=True, connections=shared, nat=nat, way=way)

# %% [markdown]
# Next: [05_udp_and_loss.ipynb](05_udp_and_loss.ipynb), packets that vanish.
