"""What nbval does not compare: HTML follows pandas' releases, stderr carries progress bars."""

from __future__ import annotations

from typing import Any


def pytest_collectstart(collector: Any) -> None:
    if collector.path.suffix == ".ipynb":
        collector.skip_compare += ("text/html", "stderr")
