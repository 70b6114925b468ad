"""Where the owner of a connection ran: its control group and its container, also when all are gone."""

from __future__ import annotations

import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from groups import Groups, unified, version_1
from loopback import LOOPBACK, Echo, outgoing

import netlab

pytestmark = pytest.mark.privileged
ID = "0123456789abcdef" * 4
DATA = Path(__file__).parents[1] / "data/kernel/cgroups.toml"
CASES = tomllib.loads(DATA.read_text(encoding="utf-8")).values()

# In bash: enter the groups, show what the kernel says of it, and connect.
ENTER = """
for group; do echo $$ > "$group/cgroup.procs"; done
cat /proc/self/cgroup
exec bash -c "exec 3<>/dev/tcp/$HOST/$PORT"
"""


# In bash: enter one group after the other, and connect from each.
MOVE = """
for group; do echo $$ > "$group/cgroup.procs"; exec 3<>/dev/tcp/$HOST/$PORT; done
"""


@pytest.fixture(params=["version 2", "version 1"])
def groups(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Groups]:
    with unified() if request.param == "version 2" else version_1(tmp_path) as made:
        yield made


def connect_from(echo: Echo, *groups: Path, family: int = 4) -> tuple[int, str]:
    """Connect from within *groups*; return the pid and what /proc/PID/cgroup said."""
    with subprocess.Popen(
        ["bash", "-c", ENTER, "bash", *groups],
        stdout=subprocess.PIPE,
        text=True,
        env={"HOST": LOOPBACK[family], "PORT": str(echo.port), "PATH": "/usr/bin:/bin"},
    ) as process:
        assert process.stdout is not None
        return process.pid, process.stdout.read()


def by_pid(frame: pd.DataFrame) -> pd.DataFrame:
    rows = outgoing(frame).set_index("pid")
    assert rows.index.is_unique
    return rows


def of_one_hierarchy() -> dict[str, str]:
    """Return the paths of the data file's cases that have one, and the container in each ("": none)."""
    lines = {case["cgroup"].strip().replace("ID", ID): case["container"].replace("ID", ID) for case in CASES}
    return {
        line.split(":", 2)[2].lstrip("/"): container
        for line, container in lines.items()
        if line and "\n" not in line and not line.endswith((":/", " (deleted)"))
    }


@pytest.mark.parametrize("family", [4, 6])
def test_containers_of_every_runtime_are_known_after_their_processes_and_cgroups_are_gone(
    echo: Echo, groups: Groups, family: int
) -> None:
    expected = of_one_hierarchy()
    with netlab.capture(port=echo.port) as capture:
        said = {path: connect_from(echo, groups.make(path), family=family) for path in expected}
        groups.remove()

    rows = by_pid(capture.connections())
    found = {path: rows["container"][pid] for path, (pid, _) in said.items()}
    assert {path: "" if pd.isna(id_) else id_ for path, id_ in found.items()} == expected
    for pid, text in said.values():
        assert f"{groups.line}{rows['cgroup'][pid]}\n" in text


def test_each_connection_of_a_process_that_moves_has_the_group_that_it_was_made_in(
    echo: Echo, groups: Groups
) -> None:
    places = [groups.make(name) for name in ("before", "after", "before")]
    with netlab.capture(port=echo.port) as capture:
        env = {"HOST": LOOPBACK[4], "PORT": str(echo.port), "PATH": "/usr/bin:/bin"}
        subprocess.run(["bash", "-c", MOVE, "bash", *places], env=env, check=True)

    rows = outgoing(capture.connections())
    assert rows["cgroup"].tolist() == [groups.path(place) for place in places]


def test_a_hybrid_host_s_container_in_version_1_is_not_hidden_by_the_service_in_version_2(
    echo: Echo, tmp_path: Path
) -> None:
    with version_1(tmp_path) as old, unified() as new, netlab.capture(port=echo.port) as capture:
        container = old.make(f"docker/{ID}")
        pid, _ = connect_from(echo, new.make("system.slice/docker.service"), container)
        expected = old.path(container)

    row = by_pid(capture.connections()).loc[pid]
    assert (row["container"], row["cgroup"]) == (ID, expected)


def test_both_paths_of_a_hybrid_host_are_read_and_version_2_is_told(echo: Echo, tmp_path: Path) -> None:
    with version_1(tmp_path) as old, unified() as new, netlab.capture(port=echo.port) as capture:
        service = new.make("system.slice/nginx.service")
        pid, _ = connect_from(echo, service, old.make("system.slice"))
        expected = new.path(service)

    row = by_pid(capture.connections()).loc[pid]
    assert row["cgroup"] == expected
    assert pd.isna(row["container"])


def test_paths_of_any_length_are_whole_or_say_that_their_beginning_is_cut(echo: Echo, groups: Groups) -> None:
    lengths = [
        [1],
        [255],
        [127, 120],
        [128, 120],
        [126, 127, 100],
        [127, 127, 100],
        [100, 127, 127],
        [60, 126, 240],
        [60, 127, 240],
        [255, 255],
        [100] * 8,
        [3] * 12,
        [1] * 30,
    ]
    with netlab.capture(port=echo.port) as capture:
        said = []
        for number, sizes in enumerate(lengths):
            names = [chr(ord("a") + number) * size for size in sizes]
            said.append(connect_from(echo, groups.make("/".join(names))))
            groups.remove()

    rows = by_pid(capture.connections())
    for pid, text in said:
        path = rows["cgroup"][pid]
        if path.startswith("/"):
            assert f"{groups.line}{path}\n" in text
        else:
            assert path[:2] == "…/"
            assert f"{path[1:]}\n" in text
    cut = rows["cgroup"][[pid for pid, _ in said]].str.startswith("…").tolist()
    assert cut[:3] == [False] * 3
    assert cut[-4:] == [True, True, False, True]


def test_a_cut_path_still_has_the_container(echo: Echo, groups: Groups) -> None:
    with netlab.capture(port=echo.port) as capture:
        pid, _ = connect_from(echo, groups.make(f"{'/'.join(['x' * 200] * 3)}/docker/{ID}/init.scope"))

    row = by_pid(capture.connections()).loc[pid]
    assert row["container"] == ID
    assert row["cgroup"].endswith(f"x/docker/{ID}/init.scope")
    assert row["cgroup"].startswith("…/")


def test_the_socket_tables_tell_the_same_of_a_process_that_runs(echo: Echo, groups: Groups) -> None:
    group = groups.make(f"docker/{ID}/init.scope")
    client = (
        f"import socket; s = socket.create_connection(('127.0.0.1', {echo.port})); print(flush=True); input()"
    )
    with (
        netlab.capture(port=echo.port) as capture,
        subprocess.Popen(
            ["sh", "-c", f'echo $$ > {group}/cgroup.procs; exec python3 -c "{client}"'],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as process,
    ):
        assert process.stdout is not None
        process.stdout.readline()
        followed, listed = (
            by_pid(frame).loc[process.pid]
            for frame in (capture.connections(), netlab.connections(port=echo.port, state="established"))
        )

    assert followed["seen"] == "live"
    assert followed["container"] == listed["container"] == ID
    assert followed["cgroup"] == listed["cgroup"] == groups.path(group)
