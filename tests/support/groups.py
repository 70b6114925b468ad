"""Control groups for tests to put processes into."""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from programs import wait_until

from netlab.kernel import capabilities, syscall
from netlab.kernel.bpf import CgroupHook

_SKB, _SOCK_ADDR = 8, 18  # enum bpf_prog_type


@dataclass
class Groups:
    """One hierarchy: what is made in it goes with the test."""

    root: Path
    line: str  # what its line in /proc/PID/cgroup has before the path
    made: list[Path] = field(default_factory=list)

    def make(self, path: str) -> Path:
        """Make a group, and those above it, in one of this test process's own.

        That one is three levels down: of version 1 the hierarchy counts where a process is deepest.
        """
        group = self.root / f"netlab-{os.getpid()}" / "a" / "test" / path
        for place in [*reversed(group.parents), group]:
            if place.is_relative_to(self.root) and not place.exists():
                place.mkdir()
                self.made.append(place)
        return group

    def path(self, group: Path) -> str:
        """Return the path that the kernel shows."""
        return f"/{group.relative_to(self.root)}"

    def remove(self) -> None:
        while self.made:
            group = self.made.pop()
            for pid in (group / "cgroup.procs").read_text().split():
                with contextlib.suppress(OSError):  # it may be ending
                    (self.root / "cgroup.procs").write_text(pid)
            group.rmdir()


@contextlib.contextmanager
def unified() -> Iterator[Groups]:
    """The hierarchy of version 2."""
    root = capabilities.cgroup2_mount()
    assert root is not None
    groups = Groups(root, "0::")
    try:
        yield groups
    finally:
        groups.remove()


@contextlib.contextmanager
def version_1(mountpoint: Path) -> Iterator[Groups]:
    """A hierarchy of version 1 without controllers, which every kernel with version 1 lets one mount."""
    name = f"netlab{os.getpid()}"
    options = ["-t", "cgroup", "-o", f"none,name={name}", "cgroup"]
    subprocess.run(["mount", *options, str(mountpoint)], check=True)
    groups = Groups(mountpoint, f"name={name}:")
    try:
        yield groups
    finally:
        groups.remove()
        subprocess.run(["umount", str(mountpoint)], check=True)
        wait_until(lambda: _is_gone(name, options, mountpoint))


def _is_gone(name: str, options: list[str], mountpoint: Path) -> bool:
    """Unmount once more: a hierarchy outlives it when its groups are still going (cgroup_kill_sb())."""
    if f"name={name}:" not in Path("/proc/self/cgroup").read_text(encoding="ascii"):
        return True
    subprocess.run(["mount", *options, str(mountpoint)], check=True)
    subprocess.run(["umount", str(mountpoint)], check=True)
    return False


@contextlib.contextmanager
def inside(group: Path) -> Iterator[None]:
    """Be in a control group for a while."""
    (group / "cgroup.procs").write_text(str(os.getpid()))
    try:
        yield
    finally:
        (capabilities.cgroup2_mount() / "cgroup.procs").write_text(str(os.getpid()))


@contextlib.contextmanager
def denied(group: Path, hook: CgroupHook) -> Iterator[None]:
    """Deny on *hook* whatever a control group does, as systemd's IPAddressDeny= does with packets."""
    return_0 = struct.pack("=QQ", 0xB7, 0x95)  # r0 = 0; exit
    program, free = ctypes.create_string_buffer(return_0, 16), ctypes.create_string_buffer(b"GPL")
    commands = {"load": 5, "link": 28}  # include/uapi/linux/bpf.h
    kind = _SOCK_ADDR if hook in {CgroupHook.INET4_CONNECT, CgroupHook.INET6_CONNECT} else _SKB
    places = ctypes.addressof(program), ctypes.addressof(free)
    loaded = syscall.bpf(
        commands["load"], struct.pack("=IIQQIIQII16xII", kind, 2, *places, 0, 0, 0, 0, 0, 0, hook)
    )
    at = os.open(group, os.O_RDONLY)
    link = syscall.bpf(commands["link"], struct.pack("=IIII", loaded, at, hook, 0))
    assert loaded > 0 < link
    try:
        yield
    finally:
        for descriptor in (link, at, loaded):
            os.close(descriptor)
