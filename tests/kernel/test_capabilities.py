"""The facts about process and kernel are those that other tools see, and refusals name what is missing."""

from __future__ import annotations

import platform
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from netlab.errors import BadInput
from netlab.kernel import capabilities
from netlab.kernel.capabilities import Capability
from netlab.kernel.syscall import ProgramKind


def said_without(*dropped: str, script: str) -> str:
    """Run *script* as root without the capabilities *dropped*, and return what it prints."""
    names = ",".join(f"-{name.removeprefix('CAP_').lower()}" for name in dropped)
    command = ["setpriv", f"--bounding-set={names}", sys.executable, "-c"]
    script = f"from netlab.kernel import capabilities\n{script}"
    return subprocess.check_output([*command, script], text=True, timeout=60)


@pytest.mark.privileged
@pytest.mark.parametrize("name", list(Capability.__members__))
def test_a_capability_that_setpriv_takes_away_is_no_longer_in_effect(name: str) -> None:
    left = said_without(name, script="print(*capabilities.effective())").split()

    assert set(left) == capabilities.effective() - {name}


@pytest.mark.privileged
def test_what_is_missing_is_named_with_the_command_that_grants_it() -> None:
    said = said_without(
        "CAP_NET_RAW",
        script=(
            "try: capabilities.require('CAP_NET_ADMIN', 'CAP_NET_RAW', doing='send probes')\n"
            "except Exception as error: print(type(error).__name__, error)"
        ),
    )

    assert said.startswith("CapabilityError cannot send probes without CAP_NET_RAW. Run as root (sudo -E ")
    assert said.endswith(f"sudo setcap cap_net_raw+ep {Path(sys.executable).resolve()}\n")


@pytest.mark.privileged
def test_sys_admin_stands_in_for_bpf_and_perfmon() -> None:
    script = "print(capabilities.require('CAP_BPF', 'CAP_PERFMON', doing='trace'))"

    assert said_without("CAP_BPF", "CAP_PERFMON", script=script) == "None\n"


@pytest.mark.privileged
def test_without_bpf_perfmon_and_sys_admin_tracing_is_refused() -> None:
    script = (
        "try: capabilities.require('CAP_BPF', doing='trace')\n"
        "except capabilities.CapabilityError: print('refused')\n"
        "print(capabilities.bpf_program(capabilities.ProgramKind.RAW_TRACEPOINT))"
    )

    said = said_without("CAP_BPF", "CAP_PERFMON", "CAP_SYS_ADMIN", script=script)

    assert said == "refused\n[Errno 1] Operation not permitted\n"


@pytest.mark.privileged
def test_requiring_what_is_there_says_nothing() -> None:
    capabilities.require("CAP_NET_ADMIN", doing="look around")


@pytest.mark.privileged
def test_a_fix_that_is_given_replaces_the_usual_commands() -> None:
    script = (
        "try: capabilities.require('CAP_NET_RAW', doing='look', fix='Ask nicely')\n"
        "except capabilities.CapabilityError as error: print(error)"
    )

    assert said_without("CAP_NET_RAW", script=script) == "cannot look without CAP_NET_RAW. Ask nicely\n"


def test_a_capability_nobody_knows_is_refused_with_the_nearest() -> None:
    with pytest.raises(BadInput, match="Did you mean 'CAP_NET_ADMIN'"):
        capabilities.require("CAP_NET_ADMINS", doing="look around")


@pytest.mark.parametrize(
    ("bits", "names"),
    [
        ("0000000000000000", set()),
        ("0000000000003000", {"CAP_NET_ADMIN", "CAP_NET_RAW"}),
        ("000000c000000000", {"CAP_PERFMON", "CAP_BPF"}),
        ("000001ffffffffff", set(Capability.__members__)),
    ],
)
def test_bits_are_read_by_their_number(bits: str, names: set[str]) -> None:
    status = f"CapPrm:\tffffffffffffffff\nCapEff:\t{bits}\nCapBnd:\tffffffffffffffff\n"

    assert capabilities.effective(status) == names


def test_a_status_without_capabilities_grants_nothing() -> None:
    assert capabilities.effective("Name:\tsh\n") == frozenset()


def test_the_kernel_version_is_that_of_uname() -> None:
    major, minor = capabilities.kernel_version()

    assert platform.release().startswith(f"{major}.{minor}")


@pytest.mark.parametrize(
    ("mounts", "place"),
    [
        ("cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n", "/sys/fs/cgroup"),
        ("cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\n", None),
        (
            "cgroup2 /run/very/deeply/mounted cgroup2 rw 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0",
            "/sys/fs/cgroup/unified",
        ),
        (r"none /mnt/my\040cgroups\134x cgroup2 rw 0 0", r"/mnt/my cgroups\x"),
        ("", None),
    ],
    ids=["unified", "v1-only", "hybrid", "escaped", "empty"],
)
def test_the_cgroup2_mount_is_found_in_a_mount_table(mounts: str, place: str | None) -> None:
    assert capabilities.cgroup2_mount(mounts) == (None if place is None else Path(place))


def test_the_cgroup2_mount_here_is_one_that_findmnt_lists() -> None:
    listed = subprocess.run(
        ["findmnt", "-n", "-t", "cgroup2", "-o", "TARGET"], capture_output=True, text=True, check=False
    )
    place = capabilities.cgroup2_mount()

    assert ([] if place is None else [str(place)]) == sorted(listed.stdout.split(), key=len)[:1]


def test_the_package_of_another_name_on_pypi_is_not_taken_for_bcc(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crystal, real = tmp_path / "crystal", tmp_path / "real"
    for home, text in ((crystal, "class Lattice: pass\n"), (real, "class BPF(object): pass\n")):
        (home / "bcc").mkdir(parents=True)
        (home / "bcc/__init__.py").write_text(text, encoding="utf-8")
    monkeypatch.setattr(sys, "path", [str(crystal), str(real)])

    assert capabilities.bcc_home() == real


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("[none] integrity confidentiality\n", "none"),
        ("none integrity [confidentiality]\n", "confidentiality"),
    ],
)
def test_the_lockdown_mode_is_the_one_in_brackets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, mode: str
) -> None:
    (tmp_path / "lockdown").write_text(text, encoding="ascii")
    monkeypatch.setattr(capabilities, "_LOCKDOWN", tmp_path / "lockdown")

    assert capabilities.lockdown() == mode


def test_a_lockdown_that_cannot_be_seen_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capabilities, "_LOCKDOWN", tmp_path / "lockdown")

    assert capabilities.lockdown() is None


@pytest.mark.privileged
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_raw_sockets_are_tried_with_the_kernel(family: socket.AddressFamily) -> None:
    refusal = said_without(
        "CAP_NET_RAW", script=f"print(capabilities.raw_socket(capabilities.socket.{family.name}))"
    )

    assert capabilities.raw_socket(family) is None
    assert refusal == "[Errno 1] Operation not permitted\n"


@pytest.mark.privileged
@pytest.mark.parametrize("kind", [ProgramKind.KPROBE, ProgramKind.CGROUP_SOCK, ProgramKind.RAW_TRACEPOINT])
def test_a_program_that_was_tried_is_not_left_loaded(kind: ProgramKind) -> None:
    before = sorted(Path("/proc/self/fd").iterdir())

    assert capabilities.bpf_program(kind) is None
    assert len(sorted(Path("/proc/self/fd").iterdir())) == len(before)


def test_tools_of_the_system_are_found_whatever_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")

    assert capabilities.tool("ip") in {"/usr/sbin/ip", "/sbin/ip"}
    assert capabilities.tool("no-such-tool") is None
