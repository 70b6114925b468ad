"""Networks to practise on: real ones in network namespaces, removed whole."""

from __future__ import annotations

from netlab.lab.network import PracticeNetwork, practice
from netlab.lab.ownership import clean

__all__ = ["PracticeNetwork", "clean", "practice"]
