"""An event loop for a test, as a notebook's kernel has one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

_LONGEST_S = 60


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run *work* to its end, which has to come."""
    asyncio.run(asyncio.wait_for(work, 3 * _LONGEST_S))


async def until(holds: Callable[[], object]) -> None:
    """Let the loop run until *holds* returns something true."""
    deadline = time.monotonic() + _LONGEST_S
    while not holds():
        assert time.monotonic() < deadline, "it never came true"
        await asyncio.sleep(0.02)
