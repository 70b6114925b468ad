"""Networks to practise on: real ones in network namespaces and simulated ones, removed whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

from netlab import lazy

if TYPE_CHECKING:
    from netlab.lab.internet.network import SimulatedInternet, simulated
    from netlab.lab.internet.reading import load_shape
    from netlab.lab.internet.truth import Flow
    from netlab.lab.network import PracticeNetwork, practice
    from netlab.lab.ownership import clean
    from netlab.lab.traffic import drive, shop

__all__ = [
    "Flow",
    "PracticeNetwork",
    "SimulatedInternet",
    "clean",
    "drive",
    "load_shape",
    "practice",
    "shop",
    "simulated",
]

# Imported when first used: the processes that the lab starts import parts of it, and are to start fast.
_HOME = {
    "Flow": "netlab.lab.internet.truth",
    "PracticeNetwork": "netlab.lab.network",
    "SimulatedInternet": "netlab.lab.internet.network",
    "clean": "netlab.lab.ownership",
    "drive": "netlab.lab.traffic",
    "load_shape": "netlab.lab.internet.reading",
    "practice": "netlab.lab.network",
    "shop": "netlab.lab.traffic",
    "simulated": "netlab.lab.internet.network",
}

__getattr__, __dir__ = lazy.names(__name__, _HOME)
