# %% [markdown]
# # The slow path: some payments take long, some fail
#
# For some minutes now the shop has heard three complaints: *some* payments take twice as long, *some* fail,
# and uploading a receipt hangs. The payment service says that all is well on its side. Five questions:
#
# 1. When did it begin, and for whom?
# 2. Which hop is it?
# 3. Why only *some*?
# 4. Is anything lost, and where?
# 5. Why do uploads hang?
#
# This notebook runs **live** where it may (root on Linux): the internet between the office and the payment
# service is netlab's simulated one, [slow_path.toml](internets/slow_path.toml), and the packets are real.
# Elsewhere it reads a **recording** of such a run; each cell says which of the two it takes. In a real
# incident, leave out the simulated internet and `netns=`, and keep the rest.

# %%
import os

import pandas as pd

import netlab

works = netlab.doctor().set_index("capability")["state"]
needed = ["trace paths (raw sockets)", "build a practice network"]
live = "NETLAB_RECORDED" not in os.environ and works[needed].eq("yes").all()

if live:
    internet = netlab.lab.simulated(netlab.lab.load_shape("internets/slow_path.toml"), seed=3)
    netns, payments = internet.client.netns, internet.address("payments")
else:
    recording = netlab.load("recordings/slow_path.netlab")

# %% [markdown]
# ## 1. When did it begin, and for whom?
#
# A monitor has been probing the path since before the complaints: ten rounds a second, by four flows in turn.
# A flow is one pair of addresses and ports, as a connection is; load balancers keep each flow on one way.

# %%
if live:
    with netlab.path.monitor(
        payments, every_s=0.1, duration_s=12, flows=4, source_port=33000, netns=netns
    ) as monitor:
        pass  # leaving the block waits for the end
    watched = monitor.hops()
else:
    watched = recording["watched"]

ends = watched[watched["reached"]]
second = (ends["sent_at"] - watched["sent_at"].min()).dt.total_seconds()
times = ends.assign(second=second).pivot_table(index="second", columns="source_port", values="rtt_ms")
axes = times.plot(style="o", figsize=(9, 3.5), ylim=(0, 90), xlabel="seconds since the monitor started")
axes.set_title("Round trips to the payment service in ms, by the flow's source port", loc="left")
legend = axes.legend(title="source port", loc="lower left", ncols=4)

# %%
began = ends.loc[ends["rtt_ms"] > 50, "sent_at"].min()
before, after = watched[watched["sent_at"] < began], watched[watched["sent_at"] >= began]

rtt_ms = pd.DataFrame(
    {
        when: hops[hops["reached"]].groupby("source_port")["rtt_ms"].median().round(-1).astype(int)
        for when, hops in {"before, ms": before, "after, ms": after}.items()
    }
)
slow = rtt_ms.index[rtt_ms["after, ms"] > rtt_ms["before, ms"]]
assert rtt_ms["before, ms"].eq(30).all()
assert rtt_ms.loc[slow, "after, ms"].eq(70).all()
assert len(slow) == 2
rtt_ms

# %% [markdown]
# It began at one moment, and for two flows of four: their round trip went from about 30 to about 70 ms. The
# other two notice nothing.

# %% [markdown]
# ## 2. Which hop is it?
#
# The slow flows, before and after that moment, hop by hop:

# %%
change = netlab.path.compare(before[before["source_port"].isin(slow)], after[after["source_port"].isin(slow)])
shift = change.set_index("ttl_after")[["address", "change", "rtt_shift_ms"]]
shift["rtt_shift_ms"] = shift["rtt_shift_ms"].round(-1).astype(int)
assert shift["change"].eq("same").all()
assert shift["rtt_shift_ms"].tolist() == [0, 0, 0, 0, 40, 40]
shift

# %% [markdown]
# The same routers answer as before, so no route has changed that a traceroute could see. But everything from
# 203.0.113.1 on is 40 ms further away: the link between it and 198.51.100.33 became slow.

# %% [markdown]
# ## 3. Why only some?
#
# `netlab.multipath` sends as many flows as it takes to find every branch of every load balancer with 95 %
# confidence.

# %%
branches = netlab.multipath(payments, source_port=33000, netns=netns) if live else recording["branches"]
for ttl, addresses in branches.dropna(subset="address").groupby("ttl")["address"]:
    print(ttl, " or ".join(sorted(addresses.unique())))
gaps = netlab.coverage(branches).set_index("what")["kind"]
assert "incomplete" not in set(gaps[gaps.index == "branches"])  # else fewer than 95 %

# %%
way = watched[watched["ttl"] == 4].groupby("source_port")["address"].first()
assert way[slow].eq("198.51.100.33").all()
assert way.drop(slow).eq("198.51.100.17").all()
rtt_ms.join(way.rename("by way of"))

# %% [markdown]
# Two ways lead from 198.51.100.5 to 203.0.113.1, and a balancer chooses by flow: who is sent by 198.51.100.33
# is slow, who is sent by 198.51.100.17 is not. Trying again helps one time in two, which is why nobody could
# reproduce it.

# %%
netlab.plot_path(after)

# %% [markdown]
# ## 4. Is anything lost, and where?
#
# In the picture losses begin at two places, and not of the same kind. To judge a loss takes some hundred
# probes; we keep to one of the slow flows by its source port.

# %%
if live:
    with netlab.path.monitor(
        payments, every_s=0.1, duration_s=15, source_port=int(slow[0]), netns=netns
    ) as monitor:
        pass
    pinned = monitor.hops()
else:
    pinned = recording["pinned"]

verdicts = netlab.path.explain(pinned).set_index("ttl")
verdicts[["address", "verdict"]]

# %%
assert verdicts["verdict"].tolist() == ["ok", "rate-limited", "ok", "ok", "path-loss", "earlier-loss"]
assert verdicts.loc[2, "loss"] > 0.5
assert 0.15 < verdicts.loc[5, "loss"] < 0.4
netlab.plot_hops(pinned)

# %% [markdown]
# 198.51.100.1 leaves more than half of the probes unanswered and is innocent: it answers a few a second, as a
# rate limit has it, and everything behind it is answered. The loss of about a quarter begins at 203.0.113.1
# and goes on to the end: again the link behind 198.51.100.33. Whether it is lost on the way there or back,
# nobody can tell from this end alone.

# %% [markdown]
# ## 5. Why do uploads hang?
#
# Small packets get through, in the end. Large ones?

# %%
if live:
    fast = rtt_ms.index.difference(slow)
    limits = netlab.concat(
        netlab.path.path_mtu(payments, protocol="udp", source_port=int(port), netns=netns)
        for port in (fast[0], slow[0])
    )
else:
    limits = recording["limits"]

[trace_fast, trace_slow] = limits["trace"].unique()
branch = limits["trace"].map({trace_fast: "fast flow", trace_slow: "slow flow"}).rename("branch")
limits.set_index(branch)[["ttl", "address", "mtu_bytes", "told"]]

# %%
assert limits.groupby(branch)["mtu_bytes"].min().to_dict() == {"fast flow": 1500, "slow flow": 1400}
assert limits.iloc[-1][["address", "told"]].tolist() == ["198.51.100.33", "silent"]

# %% [markdown]
# By the slow way, packets over 1400 bytes vanish behind 198.51.100.33, and no ICMP error tells the sender to
# make smaller ones: an MTU hole. A request fits in one packet and works; an upload fills its packets and
# hangs.

# %% [markdown]
# ## What to tell whom
#
# One cause explains all three complaints. Longer, congested, and a hundred bytes narrower without a word: the
# link between 198.51.100.33 and 203.0.113.1 has most likely been replaced by a tunnel over a backup way.
#
# - **The provider**: that link, since the moment in `began`: +40 ms, a quarter of the packets lost, and
#   packets over 1400 bytes dropped without *fragmentation needed*. Please take 198.51.100.33 out of the
#   balancing until it is repaired.
# - **The payments team**: until then, packets of 1400 bytes get uploads through: `ip route change … mtu
#   1400`.
# - **The payment service**: the complaint is not yours.
#
# Is anything missing from this evidence?

# %%
evidence = {"watched": watched, "branches": branches, "pinned": pinned, "limits": limits}
lost = {name: int(netlab.coverage(hops)["kind"].eq("lost").sum()) for name, hops in evidence.items()}
assert not any(lost.values())
lost

# %% [markdown]
# Nothing is. For the post-mortem, everything goes into one file that opens without privileges:

# %%
if live:
    netlab.save("slow_path.netlab", overwrite=True, notes="Some payments slow, some fail", **evidence)
    internet.close()

# %% [markdown]
# ## What it really was
#
# Only a simulated internet tells afterwards. Six seconds after the start, this happened:

# %%
[truth] = netlab.lab.load_shape("internets/slow_path.toml").graph["changes"]
truth

# %% [markdown]
# Next: [03_failing_connections.ipynb](03_failing_connections.ipynb), connections that fail and who is to
# blame.
