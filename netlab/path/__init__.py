"""Which way packets go: traceroute and what is derived from it.

`probes` says what a probe is and `kinds` what each kind looks like on the wire, `matching` which probe an
answer is for, `engine` when to send which, `state` what was sent and heard. `loop` lets many traces take
turns. `station` has the sockets, with `ports`, `filters`, `listening` and `departures`, and serves one
`outlet.Outlet` per target; `channel` is the seam to the network for one target. `requests` checks
what is asked for, `tracing` puts all together, `rows` makes the frame, `graph` the graph, `trace` is what
callers see.

Many paths: `multipath` is what callers see; `mda` (or `sweep`) says which flow to probe where, by `stopping`
points and `sightings` of flows; `explorer` does it, `branches` gives the account. `rewriting` tells of NATs.

Over time: `monitoring` probes a path again and again, `stats` counts per hop, `course` tells when the path
became another, `verdicts` what a hop's losses mean (with `bucket`, which recognises rate limits), `comparing`
sets two times side by side. All but `monitoring` are functions of frames of hops, whoever made those.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from netlab import lazy

if TYPE_CHECKING:
    from netlab.path.asn import with_asn as with_asn
    from netlab.path.comparing import compare as compare
    from netlab.path.course import path_changes as path_changes, path_runs as path_runs
    from netlab.path.metrics import path_metrics as path_metrics
    from netlab.path.monitoring import monitor as monitor
    from netlab.path.pathmtu import path_mtu as path_mtu
    from netlab.path.payload import to_network_path as to_network_path
    from netlab.path.payload_in import from_network_path as from_network_path
    from netlab.path.stats import path_stats as path_stats
    from netlab.path.trace import trace_many as trace_many
    from netlab.path.verdicts import explain as explain

_HOME = {
    "compare": "netlab.path.comparing",
    "explain": "netlab.path.verdicts",
    "from_network_path": "netlab.path.payload_in",
    "monitor": "netlab.path.monitoring",
    "path_changes": "netlab.path.course",
    "path_metrics": "netlab.path.metrics",
    "path_mtu": "netlab.path.pathmtu",
    "path_runs": "netlab.path.course",
    "path_stats": "netlab.path.stats",
    "to_network_path": "netlab.path.payload",
    "trace_many": "netlab.path.trace",
    "with_asn": "netlab.path.asn",
}

__all__ = sorted(_HOME)  # noqa: PLE0605 - the table above is the one list of names

_get, __dir__ = lazy.names(__name__, _HOME)


def __getattr__(name: str) -> Any:
    found = _get(name)
    if name == "path_mtu":  # an agent has the capability that this process may lack
        return importlib.import_module("netlab.agent.delegation").delegated(found)
    return found
