"""Who holds a socket is asked of /proc once: the sockets are this process's own."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import numpy as np
import pytest

from netlab.tracer.holders import Holders
from netlab.tracer.layout import ATTEMPT, PidSource
from netlab.tracer.records import Attempts, ownerless

_NOBODYS = 2**31 - 1  # an inode


@pytest.fixture(name="inode")
def _inode() -> Iterator[int]:
    with socket.socket() as sock:
        yield os.fstat(sock.fileno()).st_ino


def listed(*cookies: int, source: PidSource = PidSource.NONE) -> Attempts:
    attempts = np.zeros(len(cookies), ATTEMPT)
    attempts["cookie"], attempts["pid_source"] = cookies, source
    return attempts


def test_a_held_socket_has_its_process(inode: int) -> None:
    attempts = listed(7, 8)
    running = Holders().fill(attempts, np.array([inode, _NOBODYS]))

    assert attempts["pid"].tolist() == [os.getpid(), 0]
    assert attempts["pid_source"].tolist() == [PidSource.SOCKET, PidSource.NONE]
    assert attempts["process_started_ns"][0] == running[os.getpid()].started_ns > 0


def test_nobody_is_asked_about_a_socket_again(inode: int) -> None:
    holders = Holders()
    holders.fill(listed(7, 8), np.array([inode, _NOBODYS]))
    again = listed(8, 7)
    running = holders.fill(again, np.array([inode, _NOBODYS]))

    assert again["pid"].tolist() == [0, os.getpid()]
    assert set(running) == {os.getpid()}


def test_a_new_socket_is_asked_about_unless_its_owner_is_known(inode: int) -> None:
    holders = Holders()
    holders.fill(listed(7), np.array([_NOBODYS]))
    known, new = listed(8), listed(9)
    holders.fill(known, np.array([inode]), ownerless(listed(8, source=PidSource.CREATE), listed(7)))
    holders.fill(new, np.array([inode]), ownerless(listed(9), listed(7)))

    assert (known["pid"].item(), new["pid"].item()) == (0, os.getpid())


def test_what_has_no_inode_is_nobodys(inode: int) -> None:
    holders, embryo = Holders(), listed(7)
    holders.fill(embryo, np.array([0]))
    accepted = listed(7)
    holders.fill(accepted, np.array([inode]))

    assert (embryo["pid"].item(), accepted["pid"].item()) == (0, os.getpid())
