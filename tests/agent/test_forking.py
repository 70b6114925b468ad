"""A connection to an agent in a process that was forked, as by multiprocessing or joblib."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import pytest

import netlab
from netlab.agent.client import Host

pytestmark = pytest.mark.privileged
FORKING = multiprocessing.get_context("fork")


def ask(host: Host, address: str, together: Any, answers: Any) -> None:
    together.wait()
    try:
        answers.put([host.gateway(address)["destination"].item() == address for _ in range(5)])
    except netlab.NetlabError as error:
        answers.put([str(error)])


def test_each_process_gets_the_answers_to_its_own_questions(agent: Path) -> None:
    for _ in range(5):
        with netlab.connect(agent) as host:
            host.health()  # there is a connection to inherit
            together, answers = FORKING.Barrier(2), FORKING.SimpleQueue()
            both = [
                FORKING.Process(target=ask, args=(host, f"127.0.0.{number}", together, answers), daemon=True)
                for number in (1, 2)
            ]
            for process in both:
                process.start()
            assert [set(answers.get()) for _ in both] == [{True}, {True}]
            for process in both:
                process.join()
            assert host.health()["status"] == "ok"


def test_who_asks_over_a_closed_connection_is_told(agent: Path) -> None:
    host = netlab.connect(agent)
    host.close()

    with pytest.raises(netlab.CaptureError, match=r"was closed. Make another: netlab.connect\(\)"):
        host.routes()
