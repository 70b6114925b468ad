"""Each endpoint works with the capabilities of its row in the table, and says which one it lacks."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.agents import running

pytestmark = pytest.mark.privileged
ROWS = {
    "the asking process's namespace": (
        "+sys_ptrace",
        ["/health", "/routes", "/routes/127.0.0.1", "/connections/now", "/listeners", "/metrics"],
    ),
    "conntrack": ("+sys_ptrace,+net_admin", ["/conntrack", "/conntrack/stats", "/nat"]),
    "raw sockets": ("+sys_ptrace,+net_raw", ["/traceroute/127.0.0.1?protocol=icmp"]),
    "programs": (
        "+bpf,+perfmon,+net_admin",
        [
            "POST /register?client=me",
            "/connections?client=me",
            "POST /captures",
            "/debug/maps",
            "/dns",
            "/protocols/http",
        ],
    ),
    "other namespaces": (
        "+sys_ptrace,+sys_admin",
        ["/routes?netns={other}", "/connections/now?netns={other}"],
    ),
}
SERVE = """
import socket, sys
server = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(server.getsockname())
print(server.getsockname()[1], flush=True)
sys.stdin.read()
"""
LACKING = {
    "/conntrack": "CAP_NET_ADMIN",
    "POST /register?client=me": "CAP_BPF",
    "/routes?netns={other}": "CAP_SYS_ADMIN",
}


@pytest.fixture(scope="module")
def other() -> Iterator[str]:
    """Yield the process id of one in another network namespace."""
    with subprocess.Popen(["unshare", "--net", "sleep", "infinity"]) as process:
        yield str(process.pid)
        process.kill()


def answers(place: Path, capabilities: str, paths: list[str], other: str) -> list[tuple[int, str]]:
    bounding = [
        "setpriv",
        f"--bounding-set=-all{',' if capabilities else ''}{capabilities}",
        "--inh-caps=-all",
    ]
    with (
        running(place, inside=bounding) as (path, _),
        httpx.Client(
            transport=httpx.HTTPTransport(uds=str(path)), base_url="http://agent", timeout=60
        ) as web,
    ):
        told = []
        for asked in paths:
            *method, target = asked.format(other=other).split()
            told.append(web.request(*(method or ["GET"]), target, json={} if "captures" in asked else None))
    return [(answer.status_code, answer.text) for answer in told]


@pytest.mark.parametrize(("capabilities", "paths"), ROWS.values(), ids=ROWS)
def test_a_row_of_the_table_is_enough_for_its_endpoints(
    tmp_path: Path, capabilities: str, paths: list[str], other: str
) -> None:
    told = answers(tmp_path, capabilities, paths, other)

    assert [status for status, _ in told if status not in {200, 201}] == [], told


def test_without_it_the_answer_names_what_is_lacking(tmp_path: Path, other: str) -> None:
    told = answers(tmp_path, "+sys_ptrace", list(LACKING), other)

    assert [status for status, _ in told] == [503] * len(LACKING)
    assert [name for name, (_, text) in zip(LACKING.values(), told, strict=True) if name not in text] == []


def test_owners_of_other_users_sockets_take_the_capabilities_of_their_row(tmp_path: Path) -> None:
    nobody = ["setpriv", "--reuid=65534", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all"]
    with subprocess.Popen(
        [*nobody, "/usr/bin/python3", "-c", SERVE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as one:
        assert one.stdout is not None
        path = f"/connections/now?port={one.stdout.readline().strip()}"
        seen = {
            capabilities: answers(tmp_path, capabilities, [path], "")[0][1]
            for capabilities in ("+sys_ptrace", "+sys_ptrace,+dac_read_search")
        }
        one.kill()

    assert [f'"pid":{one.pid}' in text for text in seen.values()] == [False, True]
