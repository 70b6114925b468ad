"""How far two measurements of the same requests are apart, printed: pytest -rP shows it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def told_apart(whose: str, apart_ms: npt.NDArray[np.float64]) -> None:
    """Print median, 99th percentile and the share above 1 ms of what *whose* is more than netlab's."""
    median, most = np.quantile(apart_ms, [0.5, 0.99])
    far = f"{(apart_ms > 1).mean():.2%} above 1 ms"
    print(f"{whose} - netlab, {len(apart_ms)} requests: median {median:.3f} ms, p99 {most:.3f} ms, {far}")  # noqa: T201
