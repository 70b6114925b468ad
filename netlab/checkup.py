"""netlab.doctor(): what works here, what does not, why, and the command that changes it.

Each check tries the real operation where that is cheap and leaves nothing behind; the rest are facts of this
host. (The module is not called `doctor`: importing it would put the module in the function's place.)
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import pandas as pd

from netlab.agent import delegation
from netlab.errors import CapabilityError, KernelError, NetlabError
from netlab.kernel import capabilities, netlink, netns
from netlab.kernel.capabilities import ProgramKind
from netlab.schemas import DOCTOR


class State(StrEnum):
    """What a check found."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found, why, and what to do about it (None when nothing needs doing)."""

    state: State
    why: str
    fix: str | None = None


def doctor() -> pd.DataFrame:
    """Say what netlab can do on this host, in this process and network namespace, and what it cannot.

    Nothing is changed and nothing is sent: sockets and eBPF programs that are opened to try it are closed at
    once.

    What an agent of this host does for this process counts as working; the reason says so.

    Returns
    -------
    DataFrame
        One row per capability: `capability`, `state` (yes, no, unknown), `why`, and the `fix`, missing where
        nothing needs fixing.

    Examples
    --------
    >>> import netlab
    >>> netlab.doctor().columns.tolist()
    ['capability', 'state', 'why', 'fix']
    """
    findings = {capability: _examined(check) for capability, check in _CHECKS.items()}
    refused = [name for name in _DELEGATED if name in findings and findings[name].state is State.NO]
    if refused and delegation.reachable():
        findings |= {name: _delegated(findings[name]) for name in refused}
    return DOCTOR.frame(
        {
            "capability": list(findings),
            "state": [finding.state.value for finding in findings.values()],
            "why": [finding.why for finding in findings.values()],
            "fix": [finding.fix for finding in findings.values()],
        }
    )


def _examined(check: Callable[[], Finding]) -> Finding:
    """Run *check*; what nobody thought of makes an unknown, never an error."""
    try:
        return check()
    except (CapabilityError, KernelError) as error:
        return Finding(State.NO, error.problem, error.fix)
    except Exception as error:  # noqa: BLE001 - a broken host is what the doctor is called to
        return Finding(State.UNKNOWN, f"the check itself failed: {type(error).__name__}: {error}")


def _delegated(here: Finding) -> Finding:
    """Return what an agent makes of what does not work *here*."""
    return Finding(State.YES, f"the agent at {delegation.SOCKET} does it; here {here.why}")


def _open_sockets() -> Finding:
    # struct inet_diag_req_v2: UDP sockets in none of the states, so the answer is an empty list.
    request = struct.pack("=BBBxI48x", socket.AF_INET, socket.IPPROTO_UDP, 0, 0)
    netlink.dump(4, 20, request, doing="list sockets", module="inet_diag")
    return Finding(State.YES, "the kernel answers sock_diag requests")


def _owners() -> Finding:
    # To list another user's /proc/PID/fd, and to read its entries (ptrace(2), access mode checking).
    capabilities.require("CAP_DAC_READ_SEARCH", "CAP_SYS_PTRACE", doing="look into other users' processes")
    return Finding(
        State.YES, "other users' processes may be looked into; any that refuse are in the coverage"
    )


def _attempts() -> Finding:
    problems = [*_missing_tools(), *_refusals(ProgramKind.RAW_TRACEPOINT)]
    if problems:
        return _all_of(problems)
    return Finding(
        State.YES, f"BCC, bpftool and BTF are here; Linux {os.uname().release} loads raw tracepoints"
    )


def _missing_tools() -> list[Finding]:
    found = {
        "BCC (python3-bpfcc) is not installed": (
            capabilities.bcc_home() is not None,
            "sudo apt-get install python3-bpfcc (PyPI's bcc is another package)",
        ),
        "bpftool is not installed": (
            capabilities.tool("bpftool") is not None,
            "sudo apt-get install bpftool",
        ),
        "this kernel does not describe its types (BTF)": (
            capabilities.has_btf(),
            "sudo apt-get install linux-image-amd64, and boot it: CONFIG_DEBUG_INFO_BTF=y is needed",
        ),
    }
    return [Finding(State.NO, why, fix) for why, (here, fix) in found.items() if not here]


def _refusals(kind: ProgramKind) -> list[Finding]:
    """Return what keeps this process from loading eBPF programs that read the kernel's sockets."""
    problems = []
    error = capabilities.bpf_program(kind)
    if error is not None:
        switch = capabilities.unprivileged_bpf_disabled()
        why = (
            f"the kernel refuses eBPF programs: {error.strerror} (kernel.unprivileged_bpf_disabled: {switch})"
        )
        problems.append(Finding(State.NO, why, _grant_or_leave("CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN")))
    if capabilities.lockdown() == "confidentiality":
        why = "the kernel is locked down: eBPF may not read its memory"
        problems.append(Finding(State.NO, why, "Boot without lockdown=confidentiality"))
    limit = capabilities.memlock_bytes()
    if capabilities.kernel_version() < (5, 11) and limit is not None and limit < _MAPS_BYTES:
        why = f"maps count as locked memory before Linux 5.11, and the limit is {limit} bytes"
        problems.append(Finding(State.NO, why, "ulimit -l unlimited, in the shell that starts Python"))
    return problems


_MAPS_BYTES = 64 << 20


def _cookies() -> Finding:
    place = capabilities.cgroup2_mount()
    problems = _refusals(ProgramKind.CGROUP_SOCK)
    if place is None:
        why = "no cgroup v2 hierarchy is mounted"
        problems.append(Finding(State.NO, why, "sudo mount -t cgroup2 none /sys/fs/cgroup"))
    return _all_of(problems) if problems else Finding(State.YES, f"cgroup v2 is mounted at {place}")


def _conntrack() -> Finding:
    # IPCTNL_MSG_CT_GET_STATS_CPU (4) of subsystem 1, asked with a struct nfgenmsg: a few lines of counters.
    statistics = 1 << 8 | 4
    with _granting("CAP_NET_ADMIN"):
        doing = "read connection tracking counters"
        netlink.dump(12, statistics, bytes(4), doing=doing, module="nf_conntrack_netlink")
    return Finding(State.YES, "the kernel answers connection tracking requests")


def _conntrack_switch(name: str) -> Finding:
    switch = Path("/proc/sys/net/netfilter", name)
    if not switch.exists():
        why = "this network namespace has no connection tracking"
        return Finding(State.NO, why, "sudo modprobe nf_conntrack, and a firewall rule that uses it")
    if switch.read_text(encoding="ascii").strip() == "0":
        why = f"net.netfilter.{name} is 0 in this network namespace; it acts on new entries only"
        return Finding(State.NO, why, f"sudo sysctl -w net.netfilter.{name}=1")
    return Finding(State.YES, f"net.netfilter.{name} is 1")


def _accounting() -> Finding:
    return _conntrack_switch("nf_conntrack_acct")


def _timestamps() -> Finding:
    return _conntrack_switch("nf_conntrack_timestamp")


def _namespaces() -> Finding:
    with _granting("CAP_SYS_ADMIN"), netns.entered("/proc/thread-self/ns/net"):
        named = len(netns.names())
    return Finding(State.YES, f"this process may enter namespaces; {named} have a name here")


def _raw_sockets() -> Finding:
    for family in (socket.AF_INET, socket.AF_INET6):
        error = capabilities.raw_socket(family)
        if error is not None:
            why = f"the kernel refuses raw {family.name} sockets: {error.strerror}"
            return Finding(State.NO, why, _grant_or_leave("CAP_NET_RAW"))
    return Finding(State.YES, "raw sockets of both families open")


def _ping_sockets() -> Finding:
    error = capabilities.ping_socket(socket.AF_INET)  # the sysctl is for IPv6 too
    if error is not None:
        why = f"no group of this process is in net.ipv4.ping_group_range: {error.strerror}"
        return Finding(State.NO, why, "sudo sysctl -w net.ipv4.ping_group_range='0 2147483647'")
    return Finding(State.YES, "a group of this process is in net.ipv4.ping_group_range")


def _practice() -> Finding:
    problems = []
    try:
        capabilities.require("CAP_NET_ADMIN", "CAP_SYS_ADMIN", doing="build network namespaces")
        _namespaces()
    except NetlabError as error:
        as_root = f"sudo -E {shlex.quote(sys.executable)} … (setcap is not enough for the tools it runs)"
        problems.append(Finding(State.NO, error.problem, as_root))
    if capabilities.tool("nft") is None:
        problems.append(Finding(State.NO, "nft is not installed", "sudo apt-get install nftables"))
    return _all_of(problems) if problems else Finding(State.YES, "namespaces and nft are here")


def _importable(module: str, extra: str) -> Callable[[], Finding]:
    def check() -> Finding:
        if importlib.util.find_spec(module) is None:
            fix = f"{shlex.quote(sys.executable)} -m pip install 'netlab[{extra}]'"
            return Finding(State.NO, f"{module} is not installed for this Python", fix)
        return Finding(State.YES, f"{module} is installed")

    return check


def _parquet() -> Finding:
    if importlib.util.find_spec("pyarrow.parquet") is None:
        why = "this build of pyarrow has no Parquet"
        return Finding(
            State.NO, why, f"{shlex.quote(sys.executable)} -m pip install --force-reinstall pyarrow"
        )
    return Finding(State.YES, "pyarrow reads and writes Parquet")


def _kprobes() -> Finding:
    if capabilities.has_kprobes():
        return Finding(State.YES, "this kernel has them; netlab does not need them")
    return Finding(State.NO, "this kernel has none; netlab uses stable hooks only and does not need them")


@contextmanager
def _granting(*needed: str) -> Iterator[None]:
    """Give a refusal the command that grants *needed* as its fix."""
    try:
        yield
    except CapabilityError as error:
        raise CapabilityError(error.problem, fix=_grant_or_leave(*needed)) from error


def _grant_or_leave(*needed: str) -> str:
    """Return how to get what the kernel refused: privileges, or a way out of the container that filters."""
    try:
        capabilities.require(*needed, doing="")
    except CapabilityError as error:
        return error.fix
    return "This process has the capabilities, so a container's filter refuses: docker run --privileged …"


def _all_of(problems: list[Finding]) -> Finding:
    return Finding(
        State.NO,
        "; ".join(problem.why for problem in problems),
        "; ".join(problem.fix for problem in problems if problem.fix),
    )


_CHECKS: dict[str, Callable[[], Finding]] = {
    "list open sockets": _open_sockets,
    "name the owner of every socket": _owners,
    "follow connection attempts (eBPF)": _attempts,
    "join by socket cookie (cgroup v2)": _cookies,
    "list tracked connections and NAT": _conntrack,
    "count bytes of tracked connections": _accounting,
    "date tracked connections": _timestamps,
    "look into other network namespaces": _namespaces,
    "trace paths (raw sockets)": _raw_sockets,
    "trace paths by echo requests without raw sockets": _ping_sockets,
    "build a practice network": _practice,
    "draw plots (matplotlib)": _importable("matplotlib", "plot"),
    "show panels (ipywidgets)": _importable("ipywidgets", "notebook"),
    "save recordings (Parquet)": _parquet,
    "kprobes (not needed)": _kprobes,
}
_DELEGATED = (
    "follow connection attempts (eBPF)",
    "join by socket cookie (cgroup v2)",
    "list tracked connections and NAT",
)
