"""Which way packets go: traceroute and what is derived from it.

`probes` says what a probe is and `kinds` what each kind looks like on the wire, `matching` which probe an
answer is for, `engine` when to send which, `state` what was sent and heard. `sockets` is the seam to the
network, with `ports`, `filters` and `listening`; `simulated` the same seam without one. `rows` makes the
frame, `graph` the graph. `trace` puts them together.

Over time: `monitoring` probes a path again and again, `stats` counts per hop, `course` tells when the path
became another, `verdicts` what a hop's losses mean (with `bucket`, which recognises rate limits), `comparing`
sets two times side by side. All but `monitoring` are functions of frames of hops, whoever made those.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from netlab.path.comparing import compare as compare
    from netlab.path.course import path_changes as path_changes, path_runs as path_runs
    from netlab.path.monitoring import monitor as monitor
    from netlab.path.stats import path_stats as path_stats
    from netlab.path.verdicts import explain as explain

_HOME = {
    "compare": "netlab.path.comparing",
    "explain": "netlab.path.verdicts",
    "monitor": "netlab.path.monitoring",
    "path_changes": "netlab.path.course",
    "path_runs": "netlab.path.course",
    "path_stats": "netlab.path.stats",
}

__all__ = sorted(_HOME)  # noqa: PLE0605 - the table above is the one list of names


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'netlab.path' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
