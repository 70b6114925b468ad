# %% [markdown]
# # Who fails: requests that return 500 or take long, and whether it is the network
#
# The shop returns errors, some pages are slow, and everybody says "the network". Four questions:
#
# 1. Which requests fail, and who says so?
# 2. Which are slow?
# 3. Is the time lost in the server or on the way?
# 4. What does the network do?
#
# Every request between two hosts that are watched is two rows, one at each end, with that end's times. What
# the client waited minus what the server took is the network's share: no guess, and no agreement between
# clocks is needed, since each end only measures durations.
#
# This notebook runs **live** where it may (root on Linux): it builds netlab's practice network in network
# namespaces, puts faults into it, and lets real clients use it. Elsewhere it reads a **recording** of such a
# run. In a real incident, leave out the practice network and keep the rest.

# %%
import os

import netlab

works = netlab.doctor().set_index("capability")["state"]
needed = ["follow connection attempts (eBPF)", "build a practice network"]
live = "NETLAB_RECORDED" not in os.environ and works[needed].eq("yes").all()

# %% [markdown]
# For practice: one server thinks before it answers and fails at one path, and on the way to the other one a
# router loses some packets.

# %%
FAULT = """
table inet faults {
    chain forwarded {
        type filter hook forward priority filter
        ip saddr 198.18.5.2 tcp sport 80 numgen inc mod 5 3 drop
    }
}
"""


def fetch(address: str, port: int, path: str, times: int) -> None:
    """Have curl ask for a path again and again, each time by a connection of its own."""
    for _ in range(times):
        net.client.run(["curl", "-s", "-o", "/dev/null", f"http://{address}:{port}{path}"], check=False)


if live:
    with netlab.lab.practice() as net:
        net.routers[1].run(["nft", "-f", "-"], input=FAULT, check=True)
        here = {"netns": [host.netns for host in net.hosts.values()], "nat": net.gateway.netns}
        with netlab.capture(protocols="http", drops=True, **here) as capture:
            fetch(net.web.address4, net.ports.http, "/basket", times=10)
            fetch(net.web.address4, net.ports.http, "/status/500", times=4)
            fetch(net.web.address4, net.ports.slow_http, "/search?secret=hunter2", times=4)
            fetch(net.db.address4, net.ports.http, "/bytes/200000", times=8)
            fetch(net.db.address4, 9, "/", times=2)
        requests, connections, drops = capture.requests(), capture.connections(), capture.drops()
else:
    recording = netlab.load("recordings/who_fails.netlab")
    requests, connections, drops = recording["requests"], recording["connections"], recording["drops"]

# %% [markdown]
# ## 1. Which requests fail, and who says so?

# %%
asked = requests[requests["direction"] == "outgoing"]
stats = netlab.request_stats(asked, by=["host", "resource"]).set_index(["host", "resource"]).sort_index()
assert stats["requests"].sum() == 26
assert stats["errors"].sum() == 4
stats[["requests", "errors", "statuses"]]

# %% [markdown]
# `/status/*` of 198.18.4.2 answers 500. An HTTP error is an *answer*: request and answer crossed the network,
# so this one is the application's. What stands behind the `?` of a path and what is no word in it is never
# kept. And what never became a request?

# %%
failed = connections[(connections["direction"] == "outgoing") & connections["error"].notna()]
assert failed["error"].tolist() == ["ECONNREFUSED"] * 2
failed[["process", "remote_address", "remote_port", "error"]].reset_index(drop=True)

# %% [markdown]
# Nobody listens on port 9: no request was ever sent there, which no access log would show.

# %% [markdown]
# ## 2. Which are slow?

# %%
slow = stats[stats["p50_ms"] > 100].index.to_frame(index=False)
assert slow["resource"].tolist() == ["/search"]
slow

# %%
netlab.plot_requests(asked)

# %% [markdown]
# ## 3. Is the time lost in the server or on the way?
#
# The gateway translates addresses, so the ends of one connection carry different tuples. The connection
# table knows under which address the client's connection goes on; by that the two rows of a request meet.

# %%
ends = connections.set_index("cookie")
here = asked.assign(
    address=ends.loc[asked["cookie"], "nat_local_address"].to_numpy(),
    port=ends.loc[asked["cookie"], "nat_local_port"].to_numpy(),
)
there = requests[requests["direction"] == "incoming"]
both = here.merge(
    there,
    left_on=["address", "port", "remote_address", "remote_port"],
    right_on=["remote_address", "remote_port", "local_address", "local_port"],
    suffixes=("", "_server"),
)
assert len(both) == len(asked)
both["server_ms"] = both["duration_ms_server"]
both["network_ms"] = both["duration_ms"] - both["duration_ms_server"]
shares = both.groupby(["host", "resource"])[["duration_ms", "server_ms", "network_ms"]].median()
assert shares["duration_ms"].notna().all()

# %% tags=["nbval-ignore-output"]
shares.round(1)

# %% [markdown]
# `/search` takes its time in the server: what the client waited is what the server took. So is the network
# innocent? Of what was lost and sent again, a duration at the server knows nothing: a server that waits for
# acknowledgements takes long, too. The connections' own counters know:

# %%
sent = connections[connections["direction"].eq("incoming") & connections["local_port"].eq(80)]
again = sent.groupby("local_address")["retransmits"].sum().gt(0).rename("sent again")
assert again.to_dict() == {"198.18.4.2": False, "198.18.5.2": True}
again.to_frame()

# %% [markdown]
# 198.18.5.2 has to send segments again, 198.18.4.2 never. Its downloads take from one to hundreds of
# milliseconds, by chance.

# %% [markdown]
# ## 4. What does the network do?

# %%
lost = drops[(drops["src"] == "198.18.5.2") & (drops["reason"] == "NETFILTER_DROP")]
places = lost[["src", "sport", "reason", "interface"]].drop_duplicates(ignore_index=True)
assert len(places) == 1
places

# %% [markdown]
# A firewall rule loses them, on the router next to r3 (the practice network names each interface after the
# host at its other end).

# %% [markdown]
# ## What to tell whom
#
# - **Application team**: `/status/*` on 198.18.4.2 returns 500, and the server behind port 8081 needs its
#   half second for `/search` by itself. The network has no part in either.
# - **Whoever deploys**: something still talks to port 9 of 198.18.5.2, where nobody listens.
# - **Network team**: the router next to r3 drops a fifth of what 198.18.5.2 sends from port 80.
#
# Is anything missing?

# %%
missing = {
    name: int(netlab.coverage(frame)["kind"].eq("lost").sum())
    for name, frame in {"requests": requests, "connections": connections, "drops": drops}.items()
}
assert not any(missing.values())
missing

# %% [markdown]
# Nothing is. For the post-mortem, without command lines, which may hold secrets:

# %%
if live:
    shared = connections.drop(columns="cmdline")
    netlab.save("who_fails.netlab", overwrite=True, requests=requests, connections=shared, drops=drops)

# %% [markdown]
# Back to the start: [01_first_look.ipynb](01_first_look.ipynb).
