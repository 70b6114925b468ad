"""connect() that a program of the process's control group denies, as policies of containers do."""

from __future__ import annotations

import errno
import socket

import pytest
from groups import denied, inside, unified
from loopback import AF, LOOPBACK, Echo, cookie

import netlab
from netlab.kernel.bpf import CgroupHook

pytestmark = pytest.mark.privileged
HOOKS = {4: CgroupHook.INET4_CONNECT, 6: CgroupHook.INET6_CONNECT}


@pytest.mark.parametrize("family", [4, 6])
def test_a_denied_connect_has_its_errno_and_the_next_one_of_its_socket_is_another_row(
    echo: Echo, family: int
) -> None:
    server = LOOPBACK[family], echo.port
    with unified() as groups, netlab.capture(port=echo.port) as capture:
        group = groups.make("forbidden")
        with inside(group):  # a socket stays in the group that it was made in
            client = socket.socket(AF[family])
        with client:
            number = cookie(client)
            with denied(group, HOOKS[family]):
                told = client.connect_ex(server)
            while_open = capture.failures()
            client.connect(server)

    assert errno.errorcode[told] == "EPERM"
    assert while_open["error"].tolist() == ["EPERM"]
    frame = capture.connections()
    mine = frame[frame["cookie"] == number].sort_values("opened_at")
    assert mine["error"].astype("string").fillna("none").tolist() == ["EPERM", "none"]
    assert mine["connect_ms"].notna().tolist() == [False, True]
    assert "forbidden on this host" in mine["reason"].iloc[0]
