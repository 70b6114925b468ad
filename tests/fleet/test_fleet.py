"""The fleet's calls, on eight hosts with a worker each."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import fleets
import pandas as pd
import pytest
from distributed import Client
from fleets import SPARE
from programs import wait_until

import netlab
from netlab.errors import BadInput, CapabilityError
from netlab.fleet import Fleet, asking

pytestmark = pytest.mark.privileged


def gap_of(frame: pd.DataFrame, host: str) -> str:
    """Return why *frame* has no row of a host."""
    told = netlab.coverage(frame).set_index("what")["detail"]
    return " ".join(
        detail for detail in told.get(["all rows of a host"], []) if detail.startswith(f"{host}:")
    )


def test_every_row_and_every_gap_says_of_which_host_it_is(fleet: Fleet) -> None:
    found = fleet.connections(protocol="tcp", state="established")

    assert sorted(found["host"].unique()) == sorted(fleets.HOSTS)  # each has one to the scheduler at least
    assert found.groupby("host")["netns"].nunique().eq(1).all()
    assert found["netns"].nunique() == len(fleets.HOSTS)
    assert {detail.partition(":")[0] for detail in netlab.coverage(found)["detail"]} == set(fleets.HOSTS)


@pytest.mark.usefixtures("spare")
def test_two_workers_on_one_machine_are_said_to_tell_its_rows_twice(client: Client) -> None:
    found = Fleet(client, timeout_s=60, hosts=["h1", "h2", SPARE]).connections(listening=True)

    (repeated,) = (gap["detail"] for gap in found.attrs["coverage"] if gap["what"] == "rows")
    assert repeated.startswith(f"h1 and {SPARE} are workers on one machine")


def test_a_host_that_fails_is_told_with_its_error_and_the_others_answer(fleet: Fleet) -> None:
    found = fleet.traceroute(fleets.SILENT, max_ttl=1, queries=1, timeout_s=0.2)

    assert set(found["host"]) == set(fleets.HOSTS) - {fleets.LOST}
    assert "no route" in gap_of(found, fleets.LOST)


def test_what_all_hosts_refuse_is_raised(fleet: Fleet) -> None:
    with pytest.raises(BadInput, match="port 0"):
        fleet.connections(port=0)


def test_the_workers_are_known_whatever_else_the_client_asks_meanwhile(client: Client) -> None:
    before, done = asking.workers(client), threading.Event()

    def refresh() -> None:
        while not done.is_set():
            client.sync(client._update_scheduler_info)  # as its own timer does every two seconds

    with ThreadPoolExecutor(1) as pool:
        pool.submit(refresh)
        try:
            assert all(asking.workers(client) == before for _ in range(200))
        finally:
            done.set()


def test_a_client_that_was_closed_says_that_no_scheduler_answers(rig: fleets.Rig) -> None:
    with rig.entered("hub"):
        client = Client(rig.scheduler, timeout=60, set_as_default=False)
    client.close()

    with pytest.raises(CapabilityError, match="scheduler does not answer"):
        asking.workers(client)


def test_a_host_that_hangs_is_told_when_the_time_is_over(client: Client, spare: int) -> None:
    os.kill(spare, signal.SIGSTOP)

    found = Fleet(client, timeout_s=5, hosts=["h1", SPARE]).connections(protocol="tcp")

    assert set(found["host"]) == {"h1"}
    assert gap_of(found, SPARE) == f"{SPARE}: no answer within 5 s"


def test_a_worker_that_is_killed_in_mid_call_is_told_and_the_others_answer(
    client: Client, spare: int
) -> None:
    told = client.scheduler_info(n_workers=-1)["workers"]
    address = next(address for address, worker in told.items() if worker["name"] == SPARE)

    def kill_when_asked() -> None:
        wait_until(lambda: client.processing([address])[address])
        os.kill(spare, signal.SIGKILL)

    killer = threading.Thread(target=kill_when_asked)
    killer.start()
    found = Fleet(client, timeout_s=30).traceroute(fleets.SILENT, max_ttl=3, queries=1, timeout_s=2)
    killer.join()

    assert set(found["host"]) == set(fleets.HOSTS) - {fleets.LOST}
    assert gap_of(found, SPARE) == f"{SPARE}: the worker ended before it had answered"


def test_a_host_that_is_not_there_is_refused(client: Client) -> None:
    with pytest.raises(BadInput, match="host 'h9' is not known"):
        Fleet(client, hosts=["h9"])


def test_what_is_no_client_is_refused() -> None:
    with pytest.raises(BadInput, match="no synchronous dask client"):
        Fleet("tcp://127.0.0.1:8786")


def test_two_workers_of_one_host_are_refused_because_they_would_count_twice() -> None:
    with Client(n_workers=2, processes=False, dashboard_address=None) as client, pytest.raises(BadInput):
        Fleet(client).connections()
