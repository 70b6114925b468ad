# %% [markdown]
# # DNS is slow: pages that take two seconds, and servers that are not to blame
#
# Users say that everything takes two seconds, always. The servers' dashboards show milliseconds. Four
# questions:
#
# 1. Where do the two seconds go?
# 2. Which name server costs them?
# 3. Why does it not answer?
# 4. Who asks for names that do not exist?
#
# This notebook runs **live** where it may (root on Linux): it builds netlab's practice network in network
# namespaces, puts faults into it, and lets real clients use it. Elsewhere it reads a **recording** of such a
# run. In a real incident, leave out the practice network and keep the rest.

# %%
import os
import socket
import tempfile
import threading
from pathlib import Path

import netlab

works = netlab.doctor().set_index("capability")["state"]
needed = ["follow connection attempts (eBPF)", "build a practice network"]
live = "NETLAB_RECORDED" not in os.environ and works[needed].eq("yes").all()

# %% [markdown]
# For practice: the client's resolver knows two name servers. A firewall on the way drops what goes to the
# first one; the second one is a small server of this notebook's.

# %%
RESOLVER = """
nameserver 198.18.4.2
nameserver 198.18.5.2
search corp.example
options timeout:1 attempts:2 ndots:2
"""
FAULT = """
table inet faults {
    chain forwarded {
        type filter hook forward priority filter
        ip daddr 198.18.4.2 udp dport 53 drop
    }
}
"""
ADDRESSES = {"shop.example.": "198.18.5.2", "www.example.": "198.18.4.2"}


def answer(server: socket.socket) -> None:
    """Answer queries for A records of the names above, until an empty datagram comes."""
    import dns.message
    import dns.rcode
    import dns.rrset

    while True:
        packet, asker = server.recvfrom(4096)
        if not packet:
            return
        query = dns.message.from_wire(packet)
        asked = query.question[0]
        reply = dns.message.make_response(query)
        address = ADDRESSES.get(str(asked.name))
        if address is None:
            reply.set_rcode(dns.rcode.NXDOMAIN)
        elif asked.rdtype == 1:
            reply.answer.append(dns.rrset.from_text(asked.name, 300, "IN", "A", address))
        server.sendto(reply.to_wire(), asker)


def visit(name: str) -> None:
    """Have curl fetch a page by name, with the resolver's configuration above in place of this host's."""
    with tempfile.TemporaryDirectory() as scratch:
        configuration = Path(scratch) / "resolv.conf"
        configuration.write_text(RESOLVER)
        mounted = f"mount --bind {configuration} /etc/resolv.conf && exec curl -s -o /dev/null http://{name}/"
        net.client.run(["unshare", "--mount", "sh", "-c", mounted], check=False)


if live:
    with netlab.lab.practice() as net:
        net.routers[1].run(["nft", "-f", "-"], input=FAULT, check=True)
        with net.db.entered():
            server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        here = {"netns": [host.netns for host in net.hosts.values()]}
        with (
            server,
            netlab.capture(protocols=("dns", "http"), drops=True, dns_timeout_s=3, **here) as capture,
        ):
            server.bind((net.db.address4, 53))
            answering = threading.Thread(target=answer, args=(server,))
            answering.start()
            for name in ("shop.example", "www.example", "old.example"):
                visit(name)
            with net.db.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
                last.sendto(b"", server.getsockname())
            answering.join()
        lookups, requests = capture.dns(), capture.requests()
        connections, drops = capture.connections(), capture.drops()
else:
    recording = netlab.load("recordings/dns_is_slow.netlab")
    lookups, requests = recording["lookups"], recording["requests"]
    connections, drops = recording["connections"], recording["drops"]

# %% [markdown]
# ## 1. Where do the two seconds go?
#
# Three things happen before a page is there: the name is looked up, the connection is made, the request is
# answered. Each was seen on the wire, at the client.

# %%
ours = lookups[(lookups["direction"] == "outgoing") & (lookups["process"] == "curl")]
pages = requests[requests["direction"] == "outgoing"]
made = connections[connections["cookie"].isin(pages["cookie"])]
longest = {
    "name looked up": ours["latency_ms"].max(),
    "connection made": made["connect_ms"].max(),
    "request answered": pages["latency_ms"].max(),
}
assert longest["name looked up"] > 1000
assert max(longest["connection made"], longest["request answered"]) < 500
print("the longest step:", max(longest, key=lambda step: longest[step]))

# %% [markdown]
# It is DNS, and DNS alone. `remote_name` tells which name the program had looked up for each connection, so
# nobody has to guess which lookup belongs to which page:

# %%
made[["process", "remote_name", "remote_address", "remote_port", "error"]].sort_values(
    "remote_name", ignore_index=True
)

# %% [markdown]
# ## 2. Which name server costs them?

# %%
netlab.plot_dns(ours)

# %%
servers = netlab.dns_stats(ours, by=["server_address"]).set_index("server_address")
assert servers.loc["198.18.4.2", "passed_over"] > 0
assert servers.loc["198.18.4.2", ["noerror", "nxdomain"]].eq(0).all()
assert servers.loc["198.18.5.2", "wait_p50_ms"] > 1000 > servers.loc["198.18.5.2", "max_ms"]
print("never answers:", *servers.index[servers["noerror"].eq(0)])

# %% [markdown]
# 198.18.5.2 answers at once, whenever it is asked at last. 198.18.4.2 is asked first each time and never
# says a word: each lookup waits a second for it. The server's time (`answer_ms`) and the asker's
# (`latency_ms`) are two columns, because a fast server behind a silent one is slow for who asks.

# %% [markdown]
# ## 3. Why does it not answer?

# %%
dropped = drops[(drops["dst"] == "198.18.4.2") & (drops["dport"] == 53)]
why = dropped[["protocol", "dst", "dport", "reason", "interface"]].drop_duplicates(ignore_index=True)
assert why["reason"].tolist() == ["NETFILTER_DROP"]
why

# %% [markdown]
# It never hears the questions: a firewall rule drops them as they come in by the interface `r1`, so on the
# router behind r1.

# %% [markdown]
# ## 4. Who asks for names that do not exist?

# %%
unknown = ours[ours["rcode"] == "NXDOMAIN"]
names = sorted(set(unknown["name"]))
assert [name for name in names if name.endswith("corp.example")]
names

# %% [markdown]
# The search list makes half of the lookups: with `ndots:2`, each short name is tried inside of `corp.example`
# first, and each try waits for the silent server, too. Only `old.example` is really somebody's mistake.

# %% [markdown]
# ## What to tell whom
#
# - **Network team**: the router behind r1 drops DNS to 198.18.4.2; that is one second of each lookup.
# - **Platform team**: take 198.18.4.2 out of the resolvers until then, and set `ndots:1`: that is the other.
# - **Application team**: something still asks for `old.example`.
#
# Is anything missing?

# %%
lost = {
    name: int(netlab.coverage(frame)["kind"].eq("lost").sum())
    for name, frame in {"lookups": lookups, "requests": requests, "connections": connections}.items()
}
assert not any(lost.values())
lost

# %% [markdown]
# Nothing is. For the post-mortem, without command lines, which may hold secrets:

# %%
if live:
    shared = connections.drop(columns="cmdline")
    netlab.save(
        "dns_is_slow.netlab",
        overwrite=True,
        lookups=lookups,
        requests=requests,
        connections=shared,
        drops=drops,
    )

# %% [markdown]
# Next: [10_who_fails.ipynb](10_who_fails.ipynb), requests that fail, and whether it is the network.
