"""Networks to practise on: real ones in network namespaces, removed whole."""

from __future__ import annotations

from netlab.lab.network import PracticeNetwork, practice
from netlab.lab.ownership import clean
from netlab.lab.traffic import drive, shop

__all__ = ["PracticeNetwork", "clean", "drive", "practice", "shop"]
