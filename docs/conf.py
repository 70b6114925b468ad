"""How Sphinx builds the site: pages in Markdown, the reference from the docstrings."""

from __future__ import annotations

import netlab.errors

project = "netlab"
copyright = "the netlab authors"  # noqa: A001 - Sphinx's own name for it
version = release = netlab.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"netlab {release}"
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
default_role = "literal"  # `names` in docstrings are set as code
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the parameters' text has the units, which types do not
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_attr_annotations = False  # nor those of data classes
nitpicky = True
napoleon_preprocess_types = True
napoleon_type_aliases = {
    **{name: f"netlab.errors.{name}" for name in netlab.__all__ if name in vars(netlab.errors)},
    "Bundle": "netlab.bundle.Bundle",
    "Capture": "netlab.tracer.session.Capture",
    "ConntrackEvents": "netlab.kernel.ctevents.ConntrackEvents",
    "Explanation": "netlab.tracer.explain.Explanation",
    "FleetRecording": "netlab.fleet.recording.FleetRecording",
    "Host": "netlab.agent.client.Host",
    "Monitor": "netlab.path.monitoring.Monitor",
    "PracticeNetwork": "netlab.lab.PracticeNetwork",
    "Probe": "netlab.probes.probe.Probe",
    "Recording": "netlab.bundle.Recording",
    "Replay": "netlab.bundle.Replay",
    "RouteCache": "netlab.tracer.gateways.RouteCache",
    "SimulatedInternet": "netlab.lab.SimulatedInternet",
    "Translation": "netlab.kernel.translation.Translation",
}
_ELSEWHERE = [
    "DataFrame",
    "dask.dataframe.DataFrame",
    "DiGraph",
    "Figure",
    "MultiDiGraph",
    "Path",
]  # the build takes nothing from the network
nitpick_ignore = [("py:class", name) for name in _ELSEWHERE]
