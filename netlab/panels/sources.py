"""What a panel follows: something that was there before, or a capture of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from netlab.agent.delegation import delegated
from netlab.errors import BadInput
from netlab.tracer import capture as tracer

capture = delegated(tracer.capture)  # to an agent, where this process lacks a capability


def feed_of(source: Any, wanted: type, options: Mapping[str, Any]) -> Callable[[], Any]:
    """Return what makes the feed: *source* itself, or a new capture with *options* each time.

    Raises
    ------
    BadInput
        If an option cannot be right, *source* is not what is *wanted*, or comes with options.
    """
    if source is None:
        capture(**options)  # refuses what cannot be right here and not at a click
        return lambda: capture(**options)
    if options:
        raise BadInput(
            f"{next(iter(options))!r} comes with a source that has its options already",
            fix="Give a source, or options for a new capture",
        )
    if not isinstance(source, wanted):
        raise BadInput(
            f"a panel cannot follow {type(source).__name__} objects",
            fix="Give what netlab.capture() returned",
        )
    return lambda: source
