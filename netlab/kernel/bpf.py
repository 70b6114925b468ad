"""eBPF programs: the real BCC found from any Python, our C compiled, attached by descriptors.

Everything is held by file descriptors of this process and nothing is pinned, so a process that dies, by
SIGKILL too, leaves no program attached. Record layouts are numpy dtypes; the compiler itself checks each
against its C struct.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.resources
import os
import re
import struct
from collections.abc import Iterable, Mapping
from contextlib import suppress
from enum import IntEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from netlab.closing import Closes
from netlab.errors import ProgramError
from netlab.kernel import btf, compiler, objects, syscall, uprobes, usage
from netlab.kernel.compiler import load_bcc
from netlab.kernel.maps import Map
from netlab.kernel.objects import Loaded, Object
from netlab.kernel.ringbuf import RingBuffer
from netlab.kernel.syscall import Command, ProgramKind
from netlab.kernel.uprobes import Place
from netlab.kernel.usage import Usage

_TRACE_RAW_TP = 23  # enum bpf_attach_type, include/uapi/linux/bpf.h
_COMPILED = Path("/proc/sys/net/core/bpf_jit_enable")
_INCLUDE = re.compile(r'(?m)^#include "(\w+\.[ch])"$')


class CgroupHook(IntEnum):
    """Where on a cgroup a program runs: the attach types of include/uapi/linux/bpf.h."""

    INET_INGRESS = 0
    INET_EGRESS = 1
    SOCK_CREATE = 2
    SOCK_OPS = 3
    INET4_CONNECT = 10
    INET6_CONNECT = 11
    SOCK_RELEASE = 34


_CGROUP_PROGRAMS = {
    CgroupHook.INET_INGRESS: ProgramKind.CGROUP_SKB,
    CgroupHook.INET_EGRESS: ProgramKind.CGROUP_SKB,
    CgroupHook.SOCK_CREATE: ProgramKind.CGROUP_SOCK,
    CgroupHook.SOCK_OPS: ProgramKind.SOCK_OPS,
    CgroupHook.INET4_CONNECT: ProgramKind.CGROUP_SOCK_ADDR,
    CgroupHook.INET6_CONNECT: ProgramKind.CGROUP_SOCK_ADDR,
    CgroupHook.SOCK_RELEASE: ProgramKind.CGROUP_SOCK,
}


def cast_macros(*structs: str) -> dict[str, str]:
    """Return what lets programs read members of kernel *structs* behind mere addresses without a call.

    That takes bpf_rdonly_cast() (kernel/bpf/helpers.c, since Linux 6.2), and a kernel that compiles programs.
    """
    cast, numbers = btf.type_number("bpf_rdonly_cast"), {name: btf.type_number(name) for name in structs}
    if cast is None or None in numbers.values() or not _are_compiled():
        return {}
    types = {f"NETLAB_NUMBER_{name}": str(number) for name, number in numbers.items()}
    return {"NETLAB_CAST": str(objects.KERNEL_FUNCTION + cast), **types}


def _are_compiled() -> bool:
    with suppress(OSError):
        return _COMPILED.read_text(encoding="ascii").strip() != "0"
    return False


def layout_check(name: str, layout: np.dtype[np.void]) -> str:
    """Return C that fails to compile unless `struct NAME` has exactly the size and offsets of *layout*."""
    fields: Mapping[str, tuple[Any, ...]] = layout.fields or {}
    checks = [
        f'_Static_assert(__builtin_offsetof(struct {name}, {field}) == {offset}, "{field} has moved");'
        for field, (_, offset, *_) in fields.items()
    ]
    size = f'_Static_assert(sizeof(struct {name}) == {layout.itemsize}, "{name} has grown");'
    return "\n".join([*checks, size])


def number_check(name: str, number: int) -> str:
    """Return C that fails to compile unless what C calls *name* is *number*."""
    return f'_Static_assert({name} == {number:#x}, "{name} is another number");'


class Unit(Closes):
    """Compiled functions with their maps in the kernel, attached and read through descriptors.

    Parameters
    ----------
    name
        What errors call it.
    made
        What the compiler made.
    """

    def __init__(self, name: str, made: Object) -> None:
        self.name = name
        self._links: list[int] = []
        self._uprobes: list[int] = []
        self._functions: dict[str, int] = {}
        self._rings: list[RingBuffer] = []
        self._loaded = Loaded(made)

    def attach_raw_tracepoint(self, function: str, event: str) -> None:
        """Run *function* at the kernel's raw tracepoint *event* until this program is closed."""
        loaded = self._load(function, ProgramKind.RAW_TRACEPOINT)
        name = ctypes.create_string_buffer(event.encode())
        self._open_tracepoint(function, event, loaded, ctypes.addressof(name))

    def attach_typed_tracepoint(self, function: str, event: str) -> None:
        """Run *function*, whose arguments have the types that BTF tells, at the raw tracepoint *event*."""
        loaded = self._load(function, ProgramKind.TRACING, _TRACE_RAW_TP, btf.tracepoint_type(event))
        self._open_tracepoint(function, event, loaded, 0)

    def _open_tracepoint(self, function: str, event: str, loaded: int, name: int) -> None:
        link = syscall.bpf(Command.RAW_TRACEPOINT_OPEN, struct.pack("=QII", name, loaded, 0))
        if link < 0:
            raise ProgramError(
                f"{function} could not be attached to the raw tracepoint {event}: {syscall.last_error()}",
                fix="netlab.doctor() tells what this kernel allows",
            )
        self._links.append(link)

    def attach_cgroup(self, function: str, cgroup: Path, hook: CgroupHook) -> None:
        """Run *function* on *hook* for every process in *cgroup* until this program is closed.

        The link goes with its descriptor, as BPF_PROG_ATTACH does not (kernel/bpf/cgroup.c).
        """
        loaded = self._load(function, _CGROUP_PROGRAMS[hook], hook)
        directory = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY)
        try:
            link = syscall.bpf(Command.LINK_CREATE, struct.pack("=IIII", loaded, directory, hook, 0))
        finally:
            os.close(directory)
        if link < 0:
            raise ProgramError(
                f"{function} could not be attached to the cgroup {cgroup}: {syscall.last_error()}"
            )
        self._links.append(link)

    def load_uprobe(self, function: str) -> None:
        """Load *function*, which may then be attached at many places."""
        self._load(function, ProgramKind.KPROBE, uprobes.attach_type())

    def attach_uprobes(self, file: int, places: Iterable[Place]) -> None:
        """Run functions at *places* of an open *file*, in this order, until this program is closed."""
        placed: list[int] = []
        try:
            for place in places:
                placed += uprobes.attach(self._functions[place.function], file, place)
        except BaseException:
            uprobes.close(placed)
            raise
        self._uprobes += placed

    def map(self, name: str, key: str | np.dtype[np.void], value: str | np.dtype[np.void]) -> Map:
        """Return one of the program's maps."""
        descriptor, entries = self._loaded.tables[name]
        return Map(descriptor, entries, np.dtype(key), np.dtype(value))

    def ring(self, name: str, record: np.dtype[np.void]) -> RingBuffer:
        """Return a reader of one of the program's ring buffers; it is closed with the program."""
        descriptor, size = self._loaded.tables[name]
        self._rings.append(RingBuffer(descriptor, size, record))
        return self._rings[-1]

    def descriptor(self, name: str) -> int:
        """Return the descriptor of one of the program's maps; it is closed with the program."""
        return self._loaded.tables[name][0]

    def usage(self) -> list[Usage]:
        """Return what each loaded function and each map costs."""
        functions = [usage.of(name, "program", descriptor) for name, descriptor in self._functions.items()]
        tables = self._loaded.tables.items()
        return [*functions, *(usage.of(name, "map", descriptor) for name, (descriptor, _) in tables)]

    def misses(self, *functions: str) -> int:
        """Return how often the kernel did not run one of *functions*, because it ran already on that CPU."""
        loaded = [(name, self._functions[name]) for name in functions if name in self._functions]
        return sum(usage.of(name, "program", descriptor).misses or 0 for name, descriptor in loaded)

    def detach(self) -> None:
        """Stop every function from running; maps and rings can still be read."""
        while self._links:
            os.close(self._links.pop())
        placed, self._uprobes = self._uprobes, []
        uprobes.close(placed)

    def close(self) -> None:
        """Detach and unload everything; safe to call again."""
        self.detach()
        while self._rings:
            self._rings.pop().close()
        self._loaded.close()

    def _load(self, function: str, kind: ProgramKind, hook: int = 0, checked_against: int = 0) -> int:
        try:
            self._functions[function] = self._loaded.load(function, kind, hook, checked_against)
        except ProgramError as error:
            reason = compiler.cause(error.log) or error.problem
            raise ProgramError(
                f"the kernel did not accept {function} of {self.name}: {reason[:200]}",
                fix="The error's `log` has every line",
                log=error.log,
            ) from error
        return self._functions[function]


class Program(Unit):
    """Files of `bpf/` compiled as one.

    Parameters
    ----------
    names
        File names in `bpf/`, without the suffix; as one unit, the kernel's types are parsed once for all.
    settings
        Macros put in front of the source. Values come from validated numbers only, never from text as given.
    layouts
        C struct name to the dtype netlab reads it with.
    numbers
        C name of a constant to the number that netlab takes it for.
    sizes
        Map to how large it is made instead of as the C says: entries, or the bytes of a ring.
    """

    def __init__(
        self,
        *names: str,
        settings: Mapping[str, str],
        layouts: Mapping[str, np.dtype[np.void]],
        numbers: Mapping[str, int] = MappingProxyType({}),
        sizes: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        macros = "".join(f"#define {macro} {value}\n" for macro, value in settings.items())
        checks = "\n".join(
            [
                *(layout_check(struct, layout) for struct, layout in layouts.items()),
                *(number_check(name, number) for name, number in numbers.items()),
            ]
        )
        unit = " + ".join(f"bpf/{name}.c" for name in names)
        made = _object(unit, macros + _source(names) + checks, btf.header_tree(_everything()))
        super().__init__(unit, made.sized(sizes))


def _object(name: str, text: str, headers: Path) -> Object:
    """Return what the compiler makes of *text*, now or the last time that it was asked for just this."""

    def made() -> Object:
        with compiler.compiled(name, text, headers) as unit:
            return Object.of(load_bcc().lib, unit.module)

    digest = hashlib.sha256(compiler.identity(text, headers).encode()).hexdigest()
    return objects.kept(headers.parent / "objects" / f"{digest[:32]}.json", made)


def sources() -> Path:
    """Return the directory of the C files: in the wheel beside the package, in a checkout at the top."""
    package = Path(str(importlib.resources.files("netlab")))
    shipped = package / "_bpf"
    return shipped if shipped.is_dir() else package.parent / "bpf"


def _source(names: Iterable[str]) -> str:
    """Return the C files with those they include before them: BCC rewrites map methods only in one file."""
    files: list[str] = []
    for name in names:
        _put_in_order(f"{name}.c", files)
    return _INCLUDE.sub("", "".join(map(source, files)))


def _put_in_order(file: str, files: list[str]) -> None:
    """Put *file* behind those it includes, each once."""
    for included in _INCLUDE.findall(source(file)):
        _put_in_order(included, files)
    if file not in files:
        files.append(file)


def source(file: str) -> str:
    """Return a file of `bpf/` as C that says where it is from."""
    return f'#line 1 "bpf/{file}"\n{(sources() / file).read_text(encoding="utf-8")}'


def _everything() -> str:
    """Return all C files, whatever a capture needs of them, so that there is one header tree for them all."""
    return "".join(file.read_text(encoding="utf-8") for file in sorted(sources().glob("*.[ch]")))
