"""Networks to practise on: real ones in network namespaces and simulated ones, removed whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

from netlab import lazy

if TYPE_CHECKING:
    from netlab.lab.internet.network import SimulatedInternet as SimulatedInternet, simulated as simulated
    from netlab.lab.internet.reading import load_shape as load_shape
    from netlab.lab.internet.truth import Flow as Flow, Truth as Truth
    from netlab.lab.network import PracticeNetwork as PracticeNetwork, practice as practice
    from netlab.lab.ownership import clean as clean
    from netlab.lab.traffic import drive as drive, shop as shop

# Imported when first used: the processes that the lab starts import parts of it, and are to start fast.
_HOME = {
    "Flow": "netlab.lab.internet.truth",
    "PracticeNetwork": "netlab.lab.network",
    "SimulatedInternet": "netlab.lab.internet.network",
    "Truth": "netlab.lab.internet.truth",
    "clean": "netlab.lab.ownership",
    "drive": "netlab.lab.traffic",
    "load_shape": "netlab.lab.internet.reading",
    "practice": "netlab.lab.network",
    "shop": "netlab.lab.traffic",
    "simulated": "netlab.lab.internet.network",
}

__all__ = sorted(_HOME)  # noqa: PLE0605 - the table above is the one list of names
__getattr__, __dir__ = lazy.names(__name__, _HOME)
