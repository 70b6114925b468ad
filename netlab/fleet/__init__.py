"""Many hosts at once: netlab's calls on every worker of a `dask.distributed` cluster, one worker a host."""

from __future__ import annotations

from typing import TYPE_CHECKING

from netlab import lazy

if TYPE_CHECKING:
    from netlab.fleet.hosts import Fleet as Fleet
    from netlab.fleet.joining import joined as joined
    from netlab.fleet.mesh import mesh_graph as mesh_graph
    from netlab.fleet.recording import dataset as dataset, gaps as gaps

_HOME = {
    "Fleet": "netlab.fleet.hosts",
    "dataset": "netlab.fleet.recording",
    "gaps": "netlab.fleet.recording",
    "joined": "netlab.fleet.joining",
    "mesh_graph": "netlab.fleet.mesh",
}
__all__ = sorted(_HOME)  # noqa: PLE0605 - the table above is the one list of names

__getattr__, __dir__ = lazy.names(__name__, _HOME)
