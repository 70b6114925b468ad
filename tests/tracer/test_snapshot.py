"""Listed sockets as attempt records."""

from __future__ import annotations

import socket

import numpy as np
import pytest
from loopback import LOOPBACK, cookie

from netlab.kernel import sockdiag
from netlab.tracer import snapshot
from netlab.tracer.layout import Direction

HOURS_US = 7_200_000_000


@pytest.mark.privileged
def test_hours_of_a_closed_window_are_hours() -> None:
    with (
        socket.create_server((LOOPBACK[4], 0)) as listening,
        socket.create_connection(listening.getsockname()) as client,
    ):
        listed = sockdiag.tcp_sockets()
        listed = listed.where(listed.cookie == cookie(client))
    listed.tcp_info["rwnd_limited"] = HOURS_US  # nobody waits for them in a test

    (attempt,) = snapshot._attempts(listed, np.array([Direction.OUTGOING], np.uint8), 0)

    assert attempt["rwnd_limited_ms"] == HOURS_US // 1000
