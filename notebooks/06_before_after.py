# %% [markdown]
# # Before and after: did the deploy break it?
#
# Two people kept evidence in the same night: one [before the deploy](01_first_look.ipynb), one [after
# it](03_failing_connections.ipynb). The post-mortem has to say what the deploy broke. Three questions:
#
# 1. What is new, and what is gone?
# 2. Does what was there before still behave the same?
# 3. Is the comparison fair?
#
# This notebook needs no privileges and no network: both files open anywhere.

# %%
import pandas as pd

import netlab

before, after = (netlab.load(f"recordings/{name}.netlab") for name in ("first_look", "failing_connections"))
for bundle in (before, after):
    print(", ".join(bundle))

# %% [markdown]
# ## 1. What is new, and what is gone?
#
# Each destination before and after: how many attempts, and how many of them failed.


# %%
def peers(connections: pd.DataFrame) -> pd.DataFrame:
    """Count attempts and failures by destination."""
    by_peer = connections.groupby(["remote_address", "remote_port"], observed=True)
    return by_peer.agg(attempts=("protocol", "size"), failed=("error", "count"))


bundles = {"before": before, "after": after}
both = pd.concat({when: peers(bundle["connections"]) for when, bundle in bundles.items()}, axis=1)
both = both.sort_index().fillna(0).astype(int)
new, gone = both[both["before", "attempts"] == 0], both[both["after", "attempts"] == 0]
assert new.index.tolist() == [("192.0.2.7", 80), ("198.18.4.77", 80)]
assert gone.empty
both

# %% [markdown]
# Two destinations are new, none is gone.

# %% [markdown]
# ## 2. Does what was there before still behave the same?

# %%
kept = both.drop(new.index)
assert kept["before"].equals(kept["after"])
failing = kept[kept["before", "failed"] > 0]
print("as many attempts and failures as before, at each of", len(kept), "destinations")
print("failed before, too:", ", ".join(f"{address} port {port}" for address, port in failing.index))

# %%
errors = pd.concat(
    {
        when: bundle["connections"]["error"].dropna().astype(str).value_counts()
        for when, bundle in bundles.items()
    },
    axis=1,
)
errors.sort_index().fillna(0).astype(int)

# %%
at_new = after["connections"].set_index(["remote_address", "remote_port"]).index.isin(new.index)
assert after["connections"]["error"][at_new].notna().all()
netlab.plot_connections(after["connections"][at_new])

# %% [markdown]
# ## 3. Is the comparison fair?
#
# A difference may be one of what was recorded and not of what happened. Each frame carries what it lacks:

# %%
lost = {
    when: int(netlab.coverage(bundle["connections"])["kind"].eq("lost").sum())
    for when, bundle in bundles.items()
}
assert not any(lost.values())
lost

# %% [markdown]
# No event was lost on either side.

# %% [markdown]
# ## What to write into the post-mortem
#
# - The deploy broke nothing that had worked.
# - It added two destinations, and neither can be reached: 192.0.2.7 and 198.18.4.77.
# - The failures of port 9 and port 6666 are older than the deploy. They were noticed because people looked.
#
# Paths of two times are compared by `netlab.path.compare`, as in [02_slow_path.ipynb](02_slow_path.ipynb).
#
# Next: [07_own_probe.ipynb](07_own_probe.ipynb), a question that no table answers.
