"""Pictures of netlab's frames and graphs; the only package that imports matplotlib.

Every picture is a matplotlib `Figure` that no pyplot window or list knows about: a notebook shows it
once, as the value of its cell, and it is freed with its last reference. `picture.savefig("hops.svg")`
writes it to a file.
"""

from __future__ import annotations

from netlab.checks import needing

with needing("plot", "pictures need matplotlib"):
    import matplotlib as mpl  # noqa: F401 - tried here so that its absence is explained once
