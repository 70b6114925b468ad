"""A probe's text compiled and attached."""

from __future__ import annotations

import ctypes
import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path

from netlab.errors import ProgramError
from netlab.kernel import bpf, btf, capabilities, compiler
from netlab.kernel.bpf import CgroupHook, Unit
from netlab.kernel.objects import Object
from netlab.kernel.syscall import ProgramKind
from netlab.kernel.uprobes import Place
from netlab.probes.description import Description
from netlab.probes.hooks import Hook, Kind
from netlab.probes.source import NAME, Source

_SO_ATTACH_BPF = 50  # include/uapi/asm-generic/socket.h
_ETH_P_ALL = 3
_MOST = 5  # errors that are shown; the first ones cause the others


class ProbeProgram(Unit):
    """The compiled text of a probe; nothing is attached yet."""

    def __init__(self, source: Source, text: str) -> None:
        bcc = compiler.load_bcc()
        self._lib, self._paths = bcc.lib, bcc.BPF
        settings = f"#define NETLAB_RINGS {max(1, len(source.rings))}\n"
        whole = settings + bpf.source("probe.h") + source.compiled
        try:
            with compiler.compiled("the probe", whole, btf.header_tree()) as unit:
                self.description = Description(self._lib, unit.module, source)
                made = Object.of(self._lib, unit.module)
        except ProgramError as error:
            raise _in_own_lines(error, text) from error
        super().__init__("the probe", made)

    def attach(self, hook: Hook, binaries: Mapping[str, str]) -> None:
        """Run the function of *hook* until this program is detached; *binaries* are paths by short name."""
        match hook.kind:
            case Kind.RAW_TRACEPOINT:
                self.attach_raw_tracepoint(hook.compiled, hook.where)
            case Kind.CGROUP:
                place = capabilities.cgroup2_mount()
                assert place is not None  # as its name was checked  # noqa: S101
                self.attach_cgroup(hook.compiled, place, CgroupHook[hook.where.upper()])
            case Kind.SOCKET:
                self._attach_socket(hook)
            case Kind.TRACEPOINT:
                loaded = self._load(hook.compiled, ProgramKind.TRACEPOINT)
                category, event = hook.where.encode().split(b":")
                self._hold(hook, self._lib.bpf_attach_tracepoint(loaded, category, event))
            case Kind.UPROBE | Kind.URETPROBE:
                self._attach_uprobe(hook, binaries)
            case Kind.KPROBE | Kind.KRETPROBE:
                self._attach_kprobe(hook)

    def lost(self) -> list[int]:
        """Return how many records did not fit into each ring buffer."""
        _, counts = self.map("netlab_lost", "u4", "u8").items()
        return [int(count) for count in counts]

    def _attach_socket(self, hook: Hook) -> None:
        """Run at every packet of the calling thread's network namespace; nobody reads the socket."""
        loaded = self._load(hook.compiled, ProgramKind.SOCKET_FILTER)
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL)) as packets:
            packets.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_BPF, loaded)
            self._links.append(packets.detach())

    def _attach_uprobe(self, hook: Hook, binaries: Mapping[str, str]) -> None:
        short, symbol = hook.where.split(":")
        binary = binaries.get(short, short)
        self.load_uprobe(hook.compiled)
        try:
            path, offset = self._paths._check_path_symbol(binary.encode(), symbol.encode(), None, -1, 0)  # noqa: SLF001 - it also knows symbols that a file does not offer to others, and where libraries are
        except Exception as error:  # BCC raises bare Exception
            raise ProgramError(
                f"{hook.function} could not be attached: {error}",
                fix="Name a library by its short name, or give its path: binaries={'c': '/lib/libc.so.6'}",
            ) from error
        with Path(os.fsdecode(path)).open("rb") as file:
            at_return = hook.kind is Kind.URETPROBE
            self.attach_uprobes(file.fileno(), [Place(hook.compiled, [offset], at_return)])

    def _attach_kprobe(self, hook: Hook) -> None:
        loaded = self._load(hook.compiled, ProgramKind.KPROBE)
        name = f"netlab_{os.getpid()}_{hook.function}".encode()
        returns = int(hook.kind is Kind.KRETPROBE)
        self._hold(hook, self._lib.bpf_attach_kprobe(loaded, returns, name, hook.where.encode(), 0, 0))

    def _hold(self, hook: Hook, link: int) -> None:
        """Keep what was attached: it goes with its descriptor."""
        if link < 0:
            reason = os.strerror(ctypes.get_errno())
            raise ProgramError(
                f"{hook.function} could not be attached to {hook.where}: {reason}",
                fix="netlab.doctor() tells what this kernel allows",
            )
        self._links.append(link)


def _in_own_lines(error: ProgramError, text: str) -> ProgramError:
    """Return *error* with the lines of the text that the compiler complains of."""
    lines = text.splitlines()
    found = dict.fromkeys(re.findall(rf"^{NAME}:(\d+):\d+: (?:fatal )?error: (.*)$", error.log, re.MULTILINE))
    if not found:
        return error
    said = "".join(
        f"\n  line {n}: {words}\n    {lines[int(n) - 1].strip()}" for n, words in list(found)[:_MOST]
    )
    more = f"\n  and {len(found) - _MOST} more" if len(found) > _MOST else ""
    return ProgramError(f"the probe does not compile{said}{more}", log=error.log)
