"""Control groups for tests to put processes into."""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from programs import wait_until

from netlab.kernel import capabilities, syscall
from netlab.kernel.bpf import CgroupHook

_SKB, _SOCK_ADDR = 8, 18  # enum bpf_prog_type
_LOAD, _STORE, _UNLESS, _PUT, _EXIT = 0x61, 0x63, 0x55, 0xB7, 0x95  # of u32; if not equal; 64 bits
_R0, _R1, _R2 = range(3)


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


def denied(group: Path, hook: CgroupHook) -> contextlib.AbstractContextManager[None]:
    """Deny on *hook* whatever a control group does, as systemd's IPAddressDeny= does with packets."""
    return _attached(group, hook, [(_PUT, _R0, 0, 0), (_EXIT, 0, 0, 0)])


def redirected(group: Path, port: int, to: int) -> contextlib.AbstractContextManager[None]:
    """Have connect() to *port* over IPv4 go to another one, as Cilium does with the addresses of services."""
    user_port = 24  # offset in struct bpf_sock_addr
    here, there = (int.from_bytes(number.to_bytes(2, "big"), sys.byteorder) for number in (port, to))
    return _attached(
        group,
        CgroupHook.INET4_CONNECT,
        [
            (_LOAD, _R2 | _R1 << 4, user_port, 0),
            (_UNLESS, _R2, 2, here),
            (_PUT, _R2, 0, there),
            (_STORE, _R1 | _R2 << 4, user_port, 0),
            (_PUT, _R0, 0, 1),
            (_EXIT, 0, 0, 0),
        ],
    )


@contextlib.contextmanager
def _attached(group: Path, hook: CgroupHook, instructions: list[tuple[int, int, int, int]]) -> Iterator[None]:
    """Run a program (of each instruction opcode, registers, offset, number) on a *hook* of a group."""
    text = b"".join(struct.pack("=BBhi", *instruction) for instruction in instructions)
    program, free = ctypes.create_string_buffer(text, len(text)), ctypes.create_string_buffer(b"GPL")
    commands = {"load": 5, "link": 28}  # include/uapi/linux/bpf.h
    kind = _SOCK_ADDR if hook in {CgroupHook.INET4_CONNECT, CgroupHook.INET6_CONNECT} else _SKB
    places = ctypes.addressof(program), ctypes.addressof(free)
    loaded = syscall.bpf(
        commands["load"],
        struct.pack("=IIQQIIQII16xII", kind, len(instructions), *places, 0, 0, 0, 0, 0, 0, hook),
    )
    at = os.open(group, os.O_RDONLY)
    link = syscall.bpf(commands["link"], struct.pack("=IIII", loaded, at, hook, 0))
    assert loaded > 0 < link
    try:
        yield
    finally:
        for descriptor in (link, at, loaded):
            os.close(descriptor)
