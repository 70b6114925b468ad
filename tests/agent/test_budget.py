"""An agent that runs out of memory lets go of what nobody reads, counts it, and starts nothing new."""

from __future__ import annotations

import pytest

from netlab.agent.captures import SHARED, Captures
from netlab.agent.holding import Holding
from netlab.agent.problems import RefusedError
from tests.support.programs import wait_until

pytestmark = pytest.mark.privileged


def test_without_memory_the_unread_captures_end_and_the_shared_one_stays() -> None:
    with Holding() as holding:
        captures = Captures(holding)
        captures.shared()
        mine = captures.create({"port": [1], "protocol": "tcp"})
        holding.most_bytes = 1
        wait_until(lambda: mine.capture.state == "stopped")

        assert holding.shed == 1
        assert [held.name for held in captures.all()] == [SHARED]
        with pytest.raises(RefusedError, match="there is no capture"):
            captures.get(mine.name)
        with pytest.raises(RefusedError, match="MiB of memory and may use 0"):
            captures.create({})
