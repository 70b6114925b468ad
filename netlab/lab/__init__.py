"""Networks to practise on: real ones in network namespaces and simulated ones, removed whole."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

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


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'netlab.lab' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
