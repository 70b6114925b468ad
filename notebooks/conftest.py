"""What nbval does not compare: HTML follows pandas, pictures the times of a run, stderr carries progress."""

from __future__ import annotations

from typing import Any


def pytest_collectstart(collector: Any) -> None:
    if collector.path.suffix == ".ipynb":
        collector.skip_compare += ("text/html", "image/svg+xml", "stderr")  # nbval itself leaves out PNG
