# %% [markdown]
# # Post-mortem: what happened, from the recording alone
#
# The shop was down last night. Whoever was on call had a recording run beside the shop's client, traced twice
# and handed over to the next shift. What is left is one file. Six questions:
#
# 1. When did it begin, and who was hit?
# 2. What failed, and why?
# 3. What did it look like then?
# 4. Which way did the packets go, and how far?
# 5. What is missing?
# 6. What do colleagues get who have no notebook?
#
# This notebook needs no privileges and no network: the file opens anywhere.

# %%
import tempfile
from pathlib import Path

import pandas as pd

import netlab

incident = netlab.load("recordings/post_mortem.netlab")
print(", ".join(incident))
print(incident.notes)

# %% [markdown]
# [`recordings/post_mortem.py`](recordings/post_mortem.py) made the file: `netlab.record()` wrote down a
# capture while it ran, and the two traces were added at the end.

# %% [markdown]
# ## 1. When did it begin, and who was hit?
#
# For each destination: the last attempt that succeeded and the first that failed. Times are relative to the
# first attempt; the frame has them in UTC.

# %%
connections = incident["connections"]
begin = connections["opened_at"].min()
attempts = connections.assign(at_s=(connections["opened_at"] - begin).dt.total_seconds())
failed = attempts["error"].notna()
good, bad = (part.groupby("remote_address")["at_s"] for part in (attempts[~failed], attempts[failed]))
peers = pd.DataFrame(
    {
        "succeeded": good.size(),
        "failed": bad.size(),
        "last_success_s": good.max().round(1),
        "first_failure_s": bad.min().round(1),
    }
).sort_values("first_failure_s")
assert peers["last_success_s"].lt(peers["first_failure_s"]).all()
assert peers.index.tolist() == ["198.18.5.2", "198.18.4.2"]
assert attempts["process"].eq("curl").all()
peers

# %% [markdown]
# Two outages, not one. 198.18.5.2 (the stock) went first, 198.18.4.2 (the pages) more than a second later,
# and neither came back: no attempt succeeds after the first failure. The one client in the recording, `curl`,
# was hit by both.

# %%
netlab.plot_timeline(connections)

# %% [markdown]
# ## 2. What failed, and why?

# %%
pd.set_option("display.max_colwidth", None)
failures = connections.netlab.failures()
whys = failures.groupby(["remote_address", "error", "reason"], observed=True).size().rename("attempts")
assert whys.sum() == len(failures) == 12
assert failures["duration_s"].max() < 0.1
whys.reset_index()

# %% [markdown]
# Each fails within a fraction of a second: nothing waits in vain. Two errors:
#
# - **ECONNREFUSED** from the stock: its host is up and answered with a reset.
# - **ECANCELED** from the pages: curl itself gave up before the handshake ended. Programs do that when they
#   are told that there is no way. So it is a question of the way: see below.
#
# The resets are in the recording, too: the client's kernel was asked what it received and dropped.

# %%
drops = incident["drops"]
resets = drops[drops["kind"] == "reset-received"]
refused = failures[failures["error"] == "ECONNREFUSED"]
assert resets["src"].eq("198.18.5.2").all()
assert len(resets) == len(refused)
print("resets received:", len(resets), "from", ", ".join(resets["src"].unique()))

# %% [markdown]
# ## 3. What did it look like then?
#
# `replay()` shows the recording as it was at any moment, with the calls of the capture itself. Before,
# between and at the end:

# %%
past = netlab.replay(incident)
first = failures.groupby("remote_address")["opened_at"].min()
moments = {
    "before": first["198.18.5.2"] - pd.Timedelta("0.1s"),
    "between": first["198.18.4.2"] - pd.Timedelta("0.1s"),
    "end": past.end,
}
seen = {}
for moment, when in moments.items():
    past.seek(when)
    seen[moment] = past.failures()["remote_address"].value_counts()
then = pd.DataFrame(seen).reindex(peers.index).fillna(0).astype(int)
assert then["before"].eq(0).all()
assert then.loc["198.18.4.2", "between"] == 0 < then.loc["198.18.5.2", "between"]
assert then["end"].equals(peers["failed"].rename("end"))
(then > 0).replace({True: "failing", False: "fine"})

# %% [markdown]
# Whoever looked at the middle moment saw a fault of the stock alone. To watch it pass, give the replay to a
# panel: `netlab.panels.LiveConnections(netlab.replay(incident, speed=0.5))`.

# %% [markdown]
# ## 4. Which way did the packets go, and how far?
#
# Two traces, taken during the outage, over TCP to the port in question.

# %%
ways = {name.removeprefix("way_to_"): incident[name] for name in ("way_to_web", "way_to_db")}
answers = {
    name: hops.dropna(subset="address").groupby("ttl")[["address", "reply"]].first().astype(object)
    for name, hops in ways.items()
}
assert answers["web"]["reply"].iloc[-1] == "net-unreachable"
assert answers["db"]["reply"].iloc[-1] == "rst"
pd.concat(answers, axis=1).fillna("")

# %%
netlab.plot_path(ways["web"])

# %% [markdown]
# Both ways are the same up to the last router, 198.18.3.2. To the stock it goes on, and the host answers: the
# network is fine. Either nothing listens on its port 80, or a firewall there rejects: from outside both are a
# reset. For the pages that router says itself that it has **no route** (`net-unreachable`). It had one while
# attempts succeeded, so look at its link to them. Its answer is what made curl give up.

# %% [markdown]
# ## 5. What is missing?

# %%
gaps = pd.concat({name: netlab.coverage(frame) for name, frame in incident.items()}, names=["frame", None])
assert not gaps["kind"].eq("lost").any()
assert netlab.coverage(connections).empty
gaps.droplevel(1)[["what", "kind", "detail"]]

# %% [markdown]
# No event was lost. On the way to the pages not every probe was answered by 198.18.3.2: routers limit how
# many they send of that kind, so what the picture counts as lost there is no loss on the way. What was
# never asked for is not in the file either: the servers' side (does nothing listen, or does a firewall
# reject?), the router's (which link, since when?), anything before the recording began, and a trace from
# before the outage to compare with ([06_before_after.ipynb](06_before_after.ipynb)).

# %% [markdown]
# ## 6. What do colleagues get who have no notebook?
#
# CSV, with a second file that has the units, types and meanings of the columns and the frame's coverage.

# %%
with tempfile.TemporaryDirectory() as directory:
    table = netlab.export(failures, Path(directory) / "failures.csv")
    rows = pd.read_csv(table)
    files = sorted(path.name for path in Path(directory).iterdir())
assert len(rows) == len(failures)
print(*files, sep="\n")
print(*(column for column in rows.columns if column.startswith(("duration", "connect"))), sep="\n")

# %% [markdown]
# ## The summary

# %%
(stock, refusals), (pages, unreachable) = peers["failed"].items()
router = answers["web"]["address"].iloc[-1]
assert 1 < peers["first_failure_s"].diff().iloc[-1] < 3
print(f"{stock} began to refuse port 80 ({refusals} attempts), its host up and reachable.")
print(f"Then {router} lost its route to {pages} ({unreachable} attempts).")
print("Neither had recovered when the recording ended.")

# %% [markdown]
# - **Stock team**: your host is up, and port 80 refuses. Is the service down, or is a firewall rule new?
# - **Network team**: 198.18.3.2 lost its route to 198.18.4.2 while the stock was already down. Two faults in
#   one night: look for what they have in common.
# - **On call**: record on the servers, too, and trace once while all is well.
