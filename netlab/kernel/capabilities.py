"""What this process, this kernel and this host can do: facts read from where they are kept.

Nothing here changes anything. What can only be known by trying is tried and undone at once, such as opening
a raw socket.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
import shlex
import shutil
import socket
import struct
import sys
from collections.abc import Iterable
from contextlib import suppress
from enum import IntEnum
from pathlib import Path

from netlab.checks import nearest
from netlab.errors import BadInput, CapabilityError
from netlab.kernel import btf, syscall
from netlab.kernel.syscall import Command, ProgramKind


class Capability(IntEnum):
    """The capabilities that looking at networks takes, with their bits in include/uapi/linux/capability.h."""

    CAP_DAC_OVERRIDE = 1
    CAP_DAC_READ_SEARCH = 2
    CAP_KILL = 5
    CAP_NET_BIND_SERVICE = 10
    CAP_NET_ADMIN = 12
    CAP_NET_RAW = 13
    CAP_IPC_LOCK = 14
    CAP_SYS_PTRACE = 19
    CAP_SYS_ADMIN = 21
    CAP_SYS_RESOURCE = 24
    CAP_PERFMON = 38
    CAP_BPF = 39


_RETURN_1 = struct.pack("=BBhi", 0xB7, 0, 0, 1) + struct.pack("=BBhi", 0x95, 0, 0, 0)  # r0 = 1; exit
_STATUS = Path("/proc/thread-self/status")
_MOUNTS = Path("/proc/thread-self/mounts")
_KPROBE_PMU = Path("/sys/bus/event_source/devices/kprobe")  # perf_event_open(2) takes it, since 4.17
_LOCKDOWN = Path("/sys/kernel/security/lockdown")
_UNPRIVILEGED_BPF = Path("/proc/sys/kernel/unprivileged_bpf_disabled")
_SYSTEM_PATH = "/usr/sbin:/sbin"  # where nft, ip and bpftool are, and an ordinary user's PATH does not look


def effective(status: str | None = None) -> frozenset[str]:
    """Return which of `Capability` the calling thread has in effect (capabilities(7))."""
    text = _STATUS.read_text(encoding="ascii", errors="replace") if status is None else status
    found = re.search(r"^CapEff:\s*([0-9a-f]+)$", text, re.MULTILINE)
    bits = int(found[1], 16) if found else 0
    return frozenset(capability.name for capability in Capability if bits >> capability & 1)


def require(*capabilities: str, doing: str, fix: str = "") -> None:
    """Refuse to go on without *capabilities*.

    Parameters
    ----------
    capabilities
        Names as in capabilities(7): "CAP_NET_ADMIN".
    doing
        What they are needed for, as the end of "cannot …".
    fix
        What the reader can do, where the usual commands would not help.

    Raises
    ------
    CapabilityError
        Naming those that are missing, and the commands that grant them.
    BadInput
        If a capability has another name.

    Examples
    --------
    >>> require(doing="look around")
    """
    for name in capabilities:
        if name not in Capability.__members__:
            raise BadInput(f"netlab knows no capability {name!r}", fix=nearest(name, Capability.__members__))
    missing = sorted(set(capabilities) - _with_implied(effective()))
    if missing:
        raise CapabilityError(f"cannot {doing} without {', '.join(missing)}", fix=fix or grant(missing))


def require_bpf(*, doing: str) -> None:
    """Refuse to go on unless this process may load eBPF programs that read the kernel's memory.

    Raises
    ------
    CapabilityError
        If a capability is missing, or the kernel refuses in spite of it: capabilities of a user namespace do
        not count, and a container's seccomp filter may forbid bpf(2).
    """
    require("CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN", doing=doing)
    refusal = bpf_program(ProgramKind.RAW_TRACEPOINT)
    if refusal is not None:
        raise CapabilityError(
            f"cannot {doing}: the kernel refuses eBPF programs: {refusal.strerror}",
            fix="This process has its capabilities in a user namespace, or a container's filter refuses: "
            "docker run --privileged …, or use an agent outside: sudo netlab agent --group NAME",
        )


def _with_implied(held: frozenset[str]) -> frozenset[str]:
    """Add what CAP_SYS_ADMIN includes: bpf_capable() and perfmon_capable(), include/linux/capability.h."""
    return held | {"CAP_BPF", "CAP_PERFMON"} if "CAP_SYS_ADMIN" in held else held


def grant(capabilities: Iterable[str]) -> str:
    """Return the sentence with the commands that give this interpreter *capabilities*.

    Those that it has already are named, too: setcap(8) takes away what it is not told.
    """
    interpreter = shlex.quote(os.path.realpath(sys.executable))
    held = effective() if os.geteuid() else frozenset()
    wanted = ",".join(name.lower() for name in dict.fromkeys([*capabilities, *sorted(held)]))
    as_root = f"sudo -E {shlex.quote(sys.executable)} …"
    everyone = f"sudo setcap {wanted}+ep {interpreter}"
    return f"Run as root ({as_root}), or once, for every user of this Python: {everyone}"


def kernel_version() -> tuple[int, int]:
    """Return the running kernel's version, (6, 1) for 6.1.0-25-amd64."""
    major, minor = re.findall(r"\d+", platform.release())[:2]
    return int(major), int(minor)


def has_btf() -> bool:
    """Say whether the kernel describes its own types."""
    return btf.VMLINUX.exists()


def tool(name: str) -> str | None:
    """Return the path of a system tool, also from where an ordinary user's PATH does not look."""
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:{_SYSTEM_PATH}")


def bcc_home() -> Path | None:
    """Return the directory that BCC's Python package would be imported from, without importing it.

    `pip install bcc` is an unrelated package; the real one defines `BPF` and wraps libbcc.
    """
    system = (
        Path("/usr/lib/python3/dist-packages"),
        *sorted(Path("/usr/lib").glob("python3.*/site-packages")),
    )
    for home in (*(Path(entry) for entry in sys.path if entry), *system):
        with suppress(OSError):
            package = home / "bcc" / "__init__.py"
            if "class BPF(" in package.read_text(encoding="utf-8", errors="replace"):
                return home
    return None


# Not where the hierarchies of cgroup v1 may be: it would hide them.
WHOLE_CGROUP2 = "Start the container with --cgroupns=host, or mount the host's /sys/fs/cgroup into it, too"
MOUNT_CGROUP2 = "sudo mkdir -p /run/cgroup2 && sudo mount -t cgroup2 none /run/cgroup2"


def cgroup2_mount(mounts: str | None = None) -> Path | None:
    """Return where the cgroup v2 hierarchy is mounted: its root if that is, the shortest path of several."""
    text = _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape") if mounts is None else mounts
    fields = [line.split(" ") for line in text.splitlines()]
    places = [unescaped(field[1]) for field in fields if len(field) > 2 and field[2] == "cgroup2"]
    return min(map(Path, places), key=lambda place: (is_inner_cgroup(place), len(str(place))), default=None)


def is_inner_cgroup(place: Path) -> bool:
    """Say whether *place* is a control group within others, as a container in a cgroup namespace has it.

    All but the root of the hierarchy have this file (Documentation/admin-guide/cgroup-v2.rst).
    """
    return (place / "cgroup.type").exists()


def outside_cgroup(place: Path) -> str | None:
    """Return whom programs on the control group *place* do not run for; None where that is nobody."""
    if not is_inner_cgroup(place):
        return None
    return f"{place} is a container's own control group and not the host's: of processes outside of it"


def unescaped(place: str) -> str:
    """Return a mount table's *place* without its octal escapes of blanks (seq_path, fs/seq_file.c)."""
    return re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), place)


def has_kprobes() -> bool:
    """Say whether this kernel has kprobes; netlab does not need them."""
    return _KPROBE_PMU.exists()


def lockdown() -> str | None:
    """Return the kernel's lockdown mode (none, integrity, confidentiality), None when it cannot be seen."""
    with suppress(OSError):
        chosen = re.search(r"\[(\w+)\]", _LOCKDOWN.read_text(encoding="ascii"))
        return chosen[1] if chosen else None
    return None


def unprivileged_bpf_disabled() -> int | None:
    """Return the sysctl of that name: 0 allowed, 1 or 2 refused; None where there is no such switch."""
    with suppress(OSError):
        return int(_UNPRIVILEGED_BPF.read_text(encoding="ascii"))
    return None


def raw_socket(family: socket.AddressFamily) -> OSError | None:
    """Try to open a raw ICMP socket and close it again; return what the kernel said against it."""
    return _icmp_socket(family, socket.SOCK_RAW)


def ping_socket(family: socket.AddressFamily) -> OSError | None:
    """Try to open a socket for echo requests only (icmp(7)); return what the kernel said against it."""
    return _icmp_socket(family, socket.SOCK_DGRAM)


def _icmp_socket(family: socket.AddressFamily, kind: socket.SocketKind) -> OSError | None:
    protocol = socket.IPPROTO_ICMP if family == socket.AF_INET else socket.IPPROTO_ICMPV6
    try:
        socket.socket(family, kind, protocol).close()
    except OSError as error:
        return error
    return None


def bpf_program(kind: ProgramKind) -> OSError | None:
    """Try to load an eBPF program and unload it again; return what the kernel said against it."""
    instructions = ctypes.create_string_buffer(_RETURN_1, len(_RETURN_1))
    license_text = ctypes.create_string_buffer(b"GPL")
    attributes = struct.pack(
        "=IIQQ", kind, len(_RETURN_1) // 8, ctypes.addressof(instructions), ctypes.addressof(license_text)
    )
    loaded = syscall.bpf(Command.PROG_LOAD, attributes)
    if loaded < 0:
        return OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    os.close(loaded)
    return None
