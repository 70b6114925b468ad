"""One cluster for all tests of the fleet."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

import fleets
import pytest
from distributed import Client
from fleets import SPARE
from programs import wait_until

from netlab.fleet import Fleet


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[fleets.Rig]:
    with fleets.fleet(str(tmp_path_factory.mktemp("workers"))) as built:
        yield built


@pytest.fixture(scope="module")
def client(rig: fleets.Rig) -> Iterator[Client]:
    with rig.entered("hub"):  # where its thread stays
        client = Client(rig.scheduler, timeout=60, set_as_default=False)
    with client:
        client.wait_for_workers(len(fleets.HOSTS), timeout=60)
        yield client


@pytest.fixture(scope="module")
def fleet(client: Client) -> Fleet:
    return Fleet(client, hosts=fleets.HOSTS)


@pytest.fixture
def spare(rig: fleets.Rig, client: Client) -> Iterator[int]:
    """One more worker, which may die: its process id."""
    pid = rig.worker(SPARE, "h1")
    client.wait_for_workers(len(fleets.HOSTS) + 1, timeout=60)
    yield pid
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: len(client.nthreads()) == len(fleets.HOSTS))
