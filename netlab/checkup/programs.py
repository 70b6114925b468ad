"""The checks of netlab.doctor() for what captures are made of: eBPF programs, and where they run."""

from __future__ import annotations

import os

from netlab.checkup.finding import Finding, State, all_of, grant_or_leave, noting
from netlab.kernel import btf, capabilities, uprobes
from netlab.kernel.syscall import ProgramKind

_OLDEST = "5.12"  # typed tracepoints may make socket cookies
_OLDEST_FOR_UDP = (5, 14)  # entries can be taken from hash maps
_NO_CGROUPS = Finding(State.NO, "no cgroup v2 hierarchy is mounted", capabilities.MOUNT_CGROUP2)


def attempts() -> Finding:
    """Try what `netlab.capture()` begins with."""
    problems = [*_missing_tools(), *_refusals(ProgramKind.RAW_TRACEPOINT)]
    if capabilities.cgroup2_mount() is None:
        problems.append(_NO_CGROUPS)
    if problems:
        return all_of(problems)
    if capabilities.kernel_version() < _OLDEST_FOR_UDP:
        return Finding(State.NO, "UDP flows need Linux 5.14", 'capture(protocol="tcp") works')
    why = f"BCC, bpftool and BTF are here; Linux {os.uname().release} loads raw tracepoints"
    place = capabilities.cgroup2_mount()
    if place and (outside := capabilities.outside_cgroup(place)):
        unseen = f"{outside} only TCP is seen, without what fails before the first packet"
        return Finding(State.YES, f"{why}; but {unseen}", capabilities.WHOLE_CGROUP2)
    return Finding(State.YES, why)


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
    missing = [Finding(State.NO, why, fix) for why, (here, fix) in found.items() if not here]
    if capabilities.has_btf() and (place := btf.unkept()):
        missing.append(Finding(State.NO, f"the kernel's types cannot be kept in {place}", btf.ELSEWHERE))
    return missing


def _refusals(kind: ProgramKind) -> list[Finding]:
    """Return what keeps this process from loading eBPF programs that read the kernel's sockets."""
    problems = []
    error = capabilities.bpf_program(kind)
    if error is not None:
        switch = capabilities.unprivileged_bpf_disabled()
        why = (
            f"the kernel refuses eBPF programs: {error.strerror} (kernel.unprivileged_bpf_disabled: {switch})"
        )
        problems.append(Finding(State.NO, why, grant_or_leave("CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN")))
    if capabilities.lockdown() == "confidentiality":
        why = "the kernel is locked down: eBPF may not read its memory"
        problems.append(Finding(State.NO, why, "Boot without lockdown=confidentiality"))
    if capabilities.kernel_version() < tuple(map(int, _OLDEST.split("."))):
        why = f"Linux {os.uname().release} is too old: its typed tracepoints cannot make cookies of sockets"
        problems.append(Finding(State.NO, why, f"Boot Linux {_OLDEST} or later"))
    return problems


def cookies() -> Finding:
    """Try what joins the connection that opens to the one that closes."""
    place = capabilities.cgroup2_mount()
    problems = _refusals(ProgramKind.CGROUP_SOCK)
    if place is None:
        problems.append(_NO_CGROUPS)
    return all_of(problems) if problems else Finding(State.YES, f"cgroup v2 is mounted at {place}")


def clear_text() -> Finding:
    """Tell whether `netlab.capture(clear_text=True)` can be answered."""
    problems = _missing_tools()
    with noting(problems):  # all at once: the command that grants one takes away the others
        needed = ("CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN", "CAP_SYS_PTRACE")
        capabilities.require(*needed, doing="read what other users' processes say in TLS")
    with noting(problems):
        uprobes.require()
    problems += [] if problems else _refusals(ProgramKind.KPROBE)
    if capabilities.cgroup2_mount() is None:
        problems.append(_NO_CGROUPS)
    return all_of(problems) if problems else Finding(State.YES, "OpenSSL and GnuTLS may be probed")


def kprobes() -> Finding:
    """Tell whether this kernel has kprobes."""
    if capabilities.has_kprobes():
        return Finding(State.YES, "this kernel has them; netlab does not need them")
    return Finding(State.NO, "this kernel has none; netlab uses stable hooks only and does not need them")
