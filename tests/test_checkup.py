"""netlab.doctor(): true of this process, and of one without privileges."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pandas as pd
import pytest
from between import between, inside
from programs import wait_until

import netlab
from netlab import checkup
from netlab.checkup import packages, programs
from netlab.checkup.finding import Finding, State
from netlab.checkup.room import judged
from netlab.errors import CapabilityError
from netlab.kernel import netns, uprobes
from netlab.schemas import CONNTRACK_STATS, DOCTOR

ROOM = "track each new connection (table, ports of NAT)"
ONE_PORT = """
table ip netlab_port {
    chain sources {
        type nat hook postrouting priority srcnat
        udp dport 5000 snat to 10.94.2.1:4000
    }
}
"""


def ask_anew(client: str, done: threading.Event) -> None:
    """Send datagrams that each begin a flow."""
    with netns.entered(client):
        while not done.wait(0.01):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
                asking.sendto(b"?", ("10.94.2.2", 5000))


def without_privileges() -> pd.DataFrame:
    script = "import netlab; print(netlab.doctor().to_json(orient='records'))"
    run = subprocess.run(
        ["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return pd.DataFrame(json.loads(run.stdout)).set_index("capability")


def test_the_frame_has_the_documented_columns() -> None:
    assert netlab.doctor().columns.tolist() == DOCTOR.names


def test_every_state_is_yes_no_or_unknown_and_has_a_reason() -> None:
    found = netlab.doctor()

    assert set(found["state"]) <= {"yes", "no", "unknown"}
    assert found["why"].notna().all()


@pytest.mark.privileged
def test_root_here_can_do_all_that_the_tests_do() -> None:
    state = netlab.doctor().set_index("capability")["state"]
    needed = [
        "list open sockets",
        "follow connection attempts (eBPF)",
        "join by socket cookie (cgroup v2)",
        "read requests inside TLS (uprobes)",
        "list tracked connections and NAT",
        "trace paths (raw sockets)",
        "build a practice network",
        "draw plots (matplotlib)",
    ]

    assert state[needed].eq("yes").all()


@pytest.mark.privileged
def test_without_privileges_each_no_has_a_fix() -> None:
    found = without_privileges()
    refused = found[(found["state"] == "no") & ~found.index.str.startswith("kprobes")]

    assert found.loc["list open sockets", "state"] == "yes"
    assert {"follow connection attempts (eBPF)", "trace paths (raw sockets)"} <= set(refused.index)
    assert refused["fix"].notna().all()


@pytest.mark.privileged
def test_connections_are_listed_without_privileges() -> None:
    script = "import netlab; print((netlab.connections(listening=True)['state'] == 'listen').any())"

    with socket.create_server(("127.0.0.1", 0)):
        run = subprocess.run(
            ["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-c", script],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )

    assert run.stdout.strip() == "True"


@pytest.mark.privileged
@pytest.mark.parametrize(
    ("capability", "dropped"),
    [
        ("list tracked connections and NAT", "-net_admin"),
        ("trace paths (raw sockets)", "-net_raw"),
        ("look into other network namespaces", "-sys_admin"),
        ("build a practice network", "-sys_admin"),
        ("name the owner of every socket", "-sys_ptrace"),
        ("follow connection attempts (eBPF)", "-bpf,-sys_admin"),
        ("read requests inside TLS (uprobes)", "-perfmon,-sys_admin"),
        ("read requests inside TLS (uprobes)", "-sys_ptrace"),
    ],
)
def test_without_its_capability_a_row_says_no_and_with_it_yes(capability: str, dropped: str) -> None:
    row = f"netlab.doctor().set_index('capability').loc[{capability!r}]"
    script = f"import netlab; row = {row}; print(row['state'], row['fix'])"
    command = ["setpriv", f"--bounding-set={dropped}", sys.executable, "-c", script]

    state, fix = subprocess.check_output(command, text=True, timeout=60).split(maxsplit=1)

    assert netlab.doctor().set_index("capability").loc[capability, "state"] == "yes"
    assert state == "no"
    assert "sudo" in fix


@pytest.mark.privileged
def test_conntrack_switches_are_those_of_the_namespace_it_runs_in() -> None:
    switches = ["count bytes of tracked connections", "date tracked connections"]
    with netlab.lab.practice() as net:
        with net.gateway.entered():
            translating = netlab.doctor().set_index("capability")
        with net.client.entered():
            plain = netlab.doctor().set_index("capability")

    assert translating.loc[switches, "state"].tolist() == ["yes", "yes"]
    assert plain.loc[switches, "fix"].str.startswith("sudo ").all()


@pytest.mark.privileged
def test_a_gateway_that_has_no_port_left_does_not_track_each_new_connection() -> None:
    with between(94) as net, contextlib.ExitStack() as held:
        inside(net.router, "nft", "-f", "-", text=ONE_PORT)
        full = threading.Event()
        held.callback(full.set)
        threading.Thread(target=ask_anew, args=(net.client, full)).start()
        with netns.entered(net.router):
            wait_until(lambda: netlab.conntrack_stats()["insert_failed"].sum() > 0)
            row = netlab.doctor().set_index("capability").loc[ROOM]

    assert row["state"] == "no"
    assert re.search(r"[1-9]\d* just now: [1-9]\d* found their tuple taken, 0 the table full", row["why"])


@pytest.mark.parametrize(("entries", "state"), [(800, "yes"), (801, "no"), (None, "unknown")])
def test_a_table_that_is_four_fifths_full_is_told(entries: int | None, state: str) -> None:
    counted = CONNTRACK_STATS.frame({"drop": [1], "entries": [entries], "max_entries": [1000]})

    assert judged(counted, counted).state == state


def test_a_kernel_without_uprobes_does_not_read_inside_tls(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(uprobes, "_has_links", lambda: False)
    monkeypatch.setattr(uprobes, "_DEVICE", tmp_path)
    uprobes._device.cache_clear()
    row = netlab.doctor().set_index("capability").loc["read requests inside TLS (uprobes)"]

    assert row["state"] == "no"
    assert "this kernel has no uprobes" in row["why"]
    assert "CONFIG_UPROBE_EVENTS" in row["fix"]


def test_nothing_is_left_open() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    netlab.doctor()

    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize(
    ("error", "state", "why"),
    [
        (CapabilityError("no such thing here", fix="buy one"), "no", "no such thing here"),
        (OSError("broken"), "unknown", "the check itself failed: OSError: broken"),
    ],
)
def test_a_check_that_raises_makes_a_row(
    monkeypatch: pytest.MonkeyPatch, error: Exception, state: str, why: str
) -> None:
    def check() -> Finding:
        raise error

    monkeypatch.setattr(checkup, "_CHECKS", {"break": check})
    row = netlab.doctor().iloc[0]

    assert (row["capability"], row["state"], row["why"]) == ("break", state, why)


def test_a_kernel_from_before_typed_tracepoints_could_make_cookies_is_a_no(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(programs.capabilities, "kernel_version", lambda: (5, 11))
    found = programs.attempts()

    assert found.state is State.NO
    assert "5.12" in (found.fix or "")


def test_a_package_that_is_missing_is_a_no_with_the_command_that_installs_it() -> None:
    found = packages.importable("no_such_package", "plot")()

    assert found.state is State.NO
    assert found.fix == f"{sys.executable} -m pip install 'netlab[plot]'"


@pytest.mark.privileged
@pytest.mark.parametrize(
    ("taken", "capability", "why"),
    [
        ("mount -t tmpfs -o ro none {cache}", "follow connection attempts (eBPF)", "types cannot be kept"),
        (
            "mount --bind /proc/sys /proc/sys; mount -o remount,ro,bind /proc/sys",
            "build a practice network",
            "/proc/sys/net is read-only",
        ),
        ("mount -t tmpfs -o ro none /run", "build a practice network", "/run is read-only"),
        ("mount -t tmpfs none /dev/net", "build a simulated internet", "/dev/net/tun is not here"),
    ],
)
def test_what_is_taken_away_is_missed(tmp_path: Path, taken: str, capability: str, why: str) -> None:
    show = f"import netlab; print(*netlab.doctor().set_index('capability').loc[{capability!r}], sep='|')"
    python = [sys.executable, "-c", show]

    run = subprocess.run(
        ["unshare", "--mount", "sh", "-c", f'{taken.format(cache=tmp_path)}; exec "$@"', "sh", *python],
        env=os.environ | {"XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    state, said, fix = run.stdout.strip().split("|")
    assert state == "no"
    assert why in said
    assert fix != "<NA>"
