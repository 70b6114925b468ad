"""Whatever is asked of the agent, it answers: never an error that nobody thought of, and it goes on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings, strategies as st

from tests.support.agents import running

pytestmark = [
    pytest.mark.privileged,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # within schemathesis
]
EXAMPLES = int(os.environ.get("NETLAB_FUZZ", "150"))
ALONE = ["unshare", "--net"]  # what is traced or asked for is not to leave this host


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int]]:
    """Yield the socket and the process of an agent that has a network namespace without any interface."""
    place = tmp_path_factory.mktemp("agent")
    with running(place, inside=ALONE) as (path, process):
        yield path, process.pid
    assert "Traceback" not in (place / "agent.log").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def web(alone: tuple[Path, int]) -> Iterator[httpx.Client]:
    """Yield a client of it."""
    path, _ = alone
    transport = httpx.HTTPTransport(uds=str(path))
    with httpx.Client(transport=transport, base_url="http://agent", timeout=60) as client:
        yield client


def test_no_request_is_answered_by_an_internal_error(web: httpx.Client, alone: tuple[Path, int]) -> None:
    schema = schemathesis.openapi.from_dict(web.get("/openapi.json").json())
    operations = [found.ok() for found in schema.get_all_operations()]
    asked = st.one_of([operation.as_strategy() for operation in operations])

    @settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(asked)
    def ask(case: schemathesis.Case) -> None:
        request = case.as_transport_kwargs(base_url="http://agent")
        answer = web.request(
            request["method"],
            request["url"],
            params={**request.get("params", {}), **_quick(case.path, alone[1])},
            json=request.get("json"),
            headers={"Accept": request["headers"].get("Accept", "*/*")},
        )
        assert answer.status_code != 500, (request, answer.text)
        assert answer.status_code < 500 or answer.json()["message"]

    ask()
    assert web.get("/health").status_code == 200


def _quick(path: str, agent: int) -> dict[str, str]:
    """Return what keeps probes from waiting a minute for what cannot come."""
    probes = path.startswith(("/traceroute", "/multipath", "/path_mtu"))
    return {"timeout_ms": "1", "netns": str(agent)} if probes else {}


def test_the_page_of_parameters_is_openapi_3(web: httpx.Client) -> None:
    assert web.get("/openapi.json").json()["openapi"].startswith("3.")
