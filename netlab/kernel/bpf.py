"""eBPF programs: the real BCC found from any Python, our C compiled, attached by descriptors.

Everything is held by file descriptors of this process and nothing is pinned, so a process that dies, by
SIGKILL too, leaves no program attached. Record layouts are numpy dtypes; the compiler itself checks each
against its C struct.
"""

from __future__ import annotations

import ctypes
import importlib.machinery
import importlib.resources
import importlib.util
import os
import resource
import struct
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from enum import IntEnum
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from netlab.closing import Closes
from netlab.errors import CapabilityError, ProgramError
from netlab.kernel import btf, capabilities, heap, syscall, usage
from netlab.kernel.maps import Map
from netlab.kernel.ringbuf import RingBuffer
from netlab.kernel.usage import Usage

_BPF_LINK_CREATE = 28
# BTF headers warn by the thousand; a call to what is not declared would only fail later, in the verifier.
# Debug information, which BCC asks for, takes a sixth of the compiler's time, and clang's passes
# a fifth: BCC has LLVM optimize all of it in the end.
_FLAGS = (
    "-Wno-everything",
    "-Werror=implicit-function-declaration",
    "-g0",
    "-Xclang",
    "-disable-llvm-passes",
)


class CgroupHook(IntEnum):
    """Where on a cgroup a program runs: the attach types of include/uapi/linux/bpf.h."""

    INET_INGRESS = 0
    INET_EGRESS = 1
    SOCK_CREATE = 2
    SOCK_OPS = 3
    INET4_CONNECT = 10
    INET6_CONNECT = 11
    SOCK_RELEASE = 34


_CGROUP_PROGRAMS = {  # enum bpf_prog_type
    CgroupHook.INET_INGRESS: 8,
    CgroupHook.INET_EGRESS: 8,
    CgroupHook.SOCK_CREATE: 9,
    CgroupHook.SOCK_OPS: 13,
    CgroupHook.INET4_CONNECT: 18,
    CgroupHook.INET6_CONNECT: 18,
    CgroupHook.SOCK_RELEASE: 9,
}


def load_bcc() -> ModuleType:
    """Return BCC's Python module, from the system's Python when this one has none.

    `pip install bcc` is an unrelated package, so a module without `BPF` does not count.
    """
    loaded = sys.modules.get("bcc")
    if loaded is not None and hasattr(loaded, "BPF"):
        return loaded
    home = capabilities.bcc_home()
    spec = home and importlib.machinery.PathFinder.find_spec("bcc", [str(home)])
    if not spec or spec.loader is None:
        raise CapabilityError("BCC is not installed", fix=_INSTALL)
    module = importlib.util.module_from_spec(spec)
    sys.modules["bcc"] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules["bcc"]
        raise CapabilityError(f"BCC at {home} cannot be imported: {error}", fix=_INSTALL) from error
    return module


_INSTALL = "Run: apt-get install python3-bpfcc (not pip: PyPI's bcc is another package)"


def layout_check(name: str, layout: np.dtype[np.void]) -> str:
    """Return C that fails to compile unless `struct NAME` has exactly the size and offsets of *layout*."""
    fields: Mapping[str, tuple[Any, ...]] = layout.fields or {}
    checks = [
        f'_Static_assert(__builtin_offsetof(struct {name}, {field}) == {offset}, "{field} has moved");'
        for field, (_, offset, *_) in fields.items()
    ]
    size = f'_Static_assert(sizeof(struct {name}) == {layout.itemsize}, "{name} has grown");'
    return "\n".join([*checks, size])


class Unit(Closes):
    """C compiled as one, with its maps, attached functions and descriptors.

    Parameters
    ----------
    name
        What errors call it.
    text
        The C.
    headers
        The header tree to compile it against.
    """

    def __init__(self, name: str, text: str, headers: Path) -> None:
        bcc = load_bcc()
        _raise_memlock()
        self.name = name
        self._links: list[int] = []
        self._functions: dict[str, int] = {}
        self._rings: list[RingBuffer] = []
        with _explained(f"{name} did not compile on this kernel"), _compiled_against(headers):
            self._bpf = _without_autoload(bcc)(text=text.encode(), cflags=list(_FLAGS))
        heap.trim()
        self._lib = bcc.lib

    def attach_raw_tracepoint(self, function: str, event: str) -> None:
        """Run *function* at the kernel's raw tracepoint *event* until this program is closed."""
        loaded = self._load(function, self._bpf.RAW_TRACEPOINT)
        link = self._lib.bpf_attach_raw_tracepoint(loaded, event.encode())
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
            link = syscall.bpf(_BPF_LINK_CREATE, struct.pack("=IIII", loaded, directory, hook, 0))
        finally:
            os.close(directory)
        if link < 0:
            raise ProgramError(
                f"{function} could not be attached to the cgroup {cgroup}: {syscall.last_error()}"
            )
        self._links.append(link)

    def map(self, name: str, key: str | np.dtype[np.void], value: str | np.dtype[np.void]) -> Map:
        """Return one of the program's maps."""
        descriptor, entries = self._table(name)
        return Map(self._lib, descriptor, entries, np.dtype(key), np.dtype(value))

    def ring(self, name: str, record: np.dtype[np.void]) -> RingBuffer:
        """Return a reader of one of the program's ring buffers; it is closed with the program."""
        descriptor, size = self._table(name)
        self._rings.append(RingBuffer(descriptor, size, record))
        return self._rings[-1]

    def usage(self) -> list[Usage]:
        """Return what each loaded function and each map costs."""
        functions = [usage.of(name, "program", descriptor) for name, descriptor in self._functions.items()]
        maps = [usage.of(name, "map", self._table(name)[0]) for name in self._table_names()]
        return [*functions, *maps]

    def misses(self, *functions: str) -> int:
        """Return how often the kernel did not run one of *functions*, because it ran already on that CPU."""
        loaded = [(name, self._functions[name]) for name in functions if name in self._functions]
        return sum(usage.of(name, "program", descriptor).misses or 0 for name, descriptor in loaded)

    def _table_names(self) -> list[str]:
        module, name_of = self._bpf.module, self._lib.bpf_table_name
        count = self._lib.bpf_num_tables
        name_of.restype, name_of.argtypes = ctypes.c_char_p, [ctypes.c_void_p, ctypes.c_size_t]
        count.restype, count.argtypes = ctypes.c_size_t, [ctypes.c_void_p]  # BCC's Python declares neither
        return [name_of(module, place).decode() for place in range(count(module))]

    def detach(self) -> None:
        """Stop every function from running; maps and rings can still be read."""
        while self._links:
            os.close(self._links.pop())

    def close(self) -> None:
        """Detach and unload everything; safe to call again."""
        self.detach()
        while self._rings:
            self._rings.pop().close()
        with _COMPILER:
            self._bpf.cleanup()

    def _load(self, function: str, kind: int, hook: int = -1) -> int:
        with _explained(f"the kernel did not accept {function} of {self.name}"):
            self._functions[function] = int(self._bpf.load_func(function.encode(), kind, None, hook).fd)
        return self._functions[function]

    def _table(self, name: str) -> tuple[int, int]:
        module = self._bpf.module
        return (
            self._lib.bpf_table_fd(module, name.encode()),
            self._lib.bpf_table_max_entries_id(module, self._lib.bpf_table_id(module, name.encode())),
        )


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
    """

    def __init__(
        self, *names: str, settings: Mapping[str, str], layouts: Mapping[str, np.dtype[np.void]]
    ) -> None:
        macros = "".join(f"#define {macro} {value}\n" for macro, value in settings.items())
        checks = "\n".join(layout_check(struct, layout) for struct, layout in layouts.items())
        super().__init__(
            " + ".join(f"bpf/{name}.c" for name in names),
            macros + _source(names) + checks,
            btf.header_tree(_everything()),
        )


def _without_autoload(bcc: ModuleType) -> Any:
    """Return BCC's class for one unit, but that leaves attaching what is named for it to its user."""
    return type("Unattached", (bcc.BPF,), {"_trace_autoload": lambda _: None})


def _sources() -> Path:
    """Return the directory of the C files: in the wheel beside the package, in a checkout at the top."""
    package = Path(str(importlib.resources.files("netlab")))
    shipped = package / "_bpf"
    return shipped if shipped.is_dir() else package.parent / "bpf"


def _source(names: Iterable[str]) -> str:
    """Return the C files with the shared header before them: BCC rewrites map methods only in one file."""
    files = ["netlab.h", *(f"{name}.c" for name in names)]
    return "".join(map(source, files)).replace('#include "netlab.h"\n', "\n")


def source(file: str) -> str:
    """Return a file of `bpf/` as C that says where it is from."""
    return f'#line 1 "bpf/{file}"\n{(_sources() / file).read_text(encoding="utf-8")}'


def _everything() -> str:
    """Return all C files, whatever a capture needs of them, so that there is one header tree for them all."""
    return "".join(file.read_text(encoding="utf-8") for file in sorted(_sources().glob("*.[ch]")))


def _raise_memlock() -> None:
    """Lift the locked-memory limit, which kernels before 5.11 charge maps to; others do not mind it."""
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


# LLVM inside libbcc crashes when two threads enter it, and descriptor 2 is there once for all of them.
_COMPILER = threading.Lock()


@contextmanager
def _explained(problem: str) -> Iterator[None]:
    """Turn a failure of BCC into one short error; what clang or the verifier wrote becomes its log."""
    with _COMPILER, tempfile.TemporaryFile() as log:
        sys.stderr.flush()
        stderr = os.dup(2)
        os.dup2(log.fileno(), 2)
        failure: Exception | None = None
        try:
            yield
        except Exception as error:  # noqa: BLE001 - BCC raises bare Exception
            failure = error
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
        if failure is not None:
            log.seek(0)
            words = log.read().decode(errors="replace")
            cause = _cause(words) or str(failure)
            raise ProgramError(
                f"{problem}: {cause[:200]}", fix="The error's `log` has every line", log=words
            ) from failure


@contextmanager
def _compiled_against(headers: Path) -> Iterator[None]:
    """Have BCC find the *headers*; whoever else uses it in this process has headers of their own."""
    usual = os.environ.get(_HEADERS)
    os.environ[_HEADERS] = str(headers)
    try:
        yield
    finally:
        if usual is None:
            del os.environ[_HEADERS]
        else:
            os.environ[_HEADERS] = usual


_HEADERS = "BCC_KERNEL_SOURCE"


def _cause(words: str) -> str:
    """Return the line that says why: clang marks it, the verifier puts it before its closing statistics."""
    lines = [line.strip() for line in words.splitlines() if line.strip()]
    marked = [line for line in lines if "error:" in line]
    before_statistics = [line for line, after in pairwise(lines) if after.startswith("processed ")]
    return next(iter(marked + before_statistics), "")
