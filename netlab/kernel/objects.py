"""Compiled eBPF programs as data: what the compiler made, kept, and given to the kernel as often as needed.

The compiler takes most of a capture's start. What it makes depends on nothing but the C, the kernel's types
and the compiler, so it is kept in the user's cache, beside the types. In the instructions a map is a number,
its place among the object's maps; the kernel wants the descriptor of one that is there (BPF_PSEUDO_MAP_FD in
include/uapi/linux/bpf.h), which each loading makes anew.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import stat
import struct
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np

from netlab.closing import Closes
from netlab.errors import ProgramError
from netlab.kernel import syscall
from netlab.kernel.syscall import Command, ProgramKind

_INSTRUCTION = np.dtype([("code", "u1"), ("registers", "u1"), ("offset", "i2"), ("immediate", "i4")])
_LOAD_64 = 0x18  # BPF_LD | BPF_IMM | BPF_DW, whose source register says what the number is
_MAP = 1 << 4 if sys.byteorder == "little" else 1  # BPF_PSEUDO_MAP_FD in the nibble of the source register
_SOURCE = 0xF0 if sys.byteorder == "little" else 0x0F
_CALL = 0x85  # BPF_JMP | BPF_CALL, of a helper by its number
_KERNEL_CALL = 2 << 4 if sys.byteorder == "little" else 2  # BPF_PSEUDO_KFUNC_CALL in the source register
KERNEL_FUNCTION = 1 << 30  # to be added to a kernel function's number in BTF: no helper has such a number
_LOG_BYTES = 1 << 24
_NAME_BYTES = 15
_KEPT = 64  # objects in the cache, the oldest of which go


@dataclass(frozen=True, slots=True)
class MapSpec:
    """A map as BPF_MAP_CREATE makes it."""

    name: str
    kind: int  # enum bpf_map_type
    key_size: int
    value_size: int
    max_entries: int
    flags: int

    @classmethod
    def of(cls, name: str, descriptor: int) -> Self:
        """Ask the kernel what the map behind *descriptor* was made as."""
        info = ctypes.create_string_buffer(24)  # the beginning of struct bpf_map_info
        request = struct.pack("=IIQ", descriptor, len(info), ctypes.addressof(info))
        if syscall.bpf(Command.OBJ_GET_INFO_BY_FD, request):
            raise ProgramError(f"the map {name} cannot be read: {syscall.last_error()}")
        kind, _, *sizes = struct.unpack("=IIIIII", info)
        return cls(name, kind, *sizes)


@dataclass(frozen=True, slots=True)
class Object:
    """Functions and the maps they use; nothing of it is in the kernel."""

    maps: tuple[MapSpec, ...]
    functions: dict[str, bytes]  # instructions by name
    license: str
    kernel_version: int

    @classmethod
    def of(cls, lib: Any, module: Any) -> Self:
        """Take what BCC has compiled out of its *module*, whose maps have descriptors already."""
        tables = {name: lib.bpf_table_fd(module, name.encode()) for name in names_of(lib, module, "table")}
        places = {descriptor: place for place, descriptor in enumerate(tables.values())}
        functions = {}
        for name in names_of(lib, module, "function"):
            start = lib.bpf_function_start(module, name.encode())
            code = ctypes.string_at(start, lib.bpf_function_size(module, name.encode()))
            functions[name] = _with_maps(code, places.__getitem__)
        return cls(
            tuple(MapSpec.of(name, descriptor) for name, descriptor in tables.items()),
            functions,
            lib.bpf_module_license(module).decode(),
            lib.bpf_module_kern_version(module),
        )

    def sized(self, sizes: Mapping[str, int]) -> Self:
        """Return it with the maps that *sizes* names as large as it says: entries, or the bytes of a ring."""
        maps = (replace(spec, max_entries=sizes.get(spec.name, spec.max_entries)) for spec in self.maps)
        return replace(self, maps=tuple(maps))

    def as_json(self) -> str:
        """Return it as text."""
        return json.dumps(
            {
                "maps": [asdict(spec) for spec in self.maps],
                "functions": {name: code.hex() for name, code in self.functions.items()},
                "license": self.license,
                "kernel_version": self.kernel_version,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return what `as_json` wrote."""
        said = json.loads(text)
        return cls(
            tuple(MapSpec(**spec) for spec in said["maps"]),
            {name: bytes.fromhex(code) for name, code in said["functions"].items()},
            said["license"],
            said["kernel_version"],
        )


class Loaded(Closes):
    """The maps of an object in the kernel, and those of its functions that were asked for."""

    def __init__(self, made: Object) -> None:
        self._object = made
        self._functions: dict[str, int] = {}
        self._maps: dict[str, int] = {}
        _lift_memlock()
        try:
            for spec in made.maps:
                self._maps[spec.name] = _create(spec)
        except BaseException:
            self.close()
            raise
        self.tables = {spec.name: (self._maps[spec.name], spec.max_entries) for spec in made.maps}

    def load(self, function: str, kind: ProgramKind, hook: int = 0, checked_against: int = 0) -> int:
        """Give *function* to the kernel, as a program of a kind for one hook, and return its descriptor.

        If its arguments have types, *checked_against* is the number in BTF of what it attaches to.

        Raises
        ------
        ProgramError
            If the kernel does not take it; the error's log has what its verifier wrote.
        """
        descriptors = list(self._maps.values())
        code = _with_maps(_with_calls(self._object.functions[function]), descriptors.__getitem__)
        asked = partial(self._asked, function, code, kind, hook, checked_against)
        loaded, _ = asked(log_bytes=0)
        if loaded < 0:  # once more, for the reason: to write it down takes long
            loaded, log = asked(log_bytes=_LOG_BYTES)
            if loaded < 0:
                raise ProgramError(syscall.last_error(), log=log)
        self._functions[function] = loaded
        return loaded

    def _asked(
        self,
        function: str,
        code: bytes,
        kind: ProgramKind,
        hook: int,
        checked_against: int,
        *,
        log_bytes: int,
    ) -> tuple[int, str]:
        instructions, license_text = (
            ctypes.create_string_buffer(text) for text in (code, self._object.license.encode())
        )
        log = ctypes.create_string_buffer(log_bytes or 1)
        request = struct.pack(
            "=IIQQIIQII16sII36xI4x",  # up to attach_btf_id
            kind,
            len(code) // _INSTRUCTION.itemsize,
            ctypes.addressof(instructions),
            ctypes.addressof(license_text),
            int(log_bytes > 0),
            log_bytes,
            ctypes.addressof(log) if log_bytes else 0,
            self._object.kernel_version,
            0,
            function.encode()[:_NAME_BYTES],
            0,
            hook,
            checked_against,
        )
        return syscall.bpf(Command.PROG_LOAD, request), log.value.decode(errors="replace")

    def close(self) -> None:
        """Give the kernel everything back; what is attached still holds its own. Safe to call again."""
        for held in (self._functions, self._maps):
            while held:
                os.close(held.popitem()[1])


def kept(place: Path, compiled: Callable[[], Object]) -> Object:
    """Return the object that is kept at *place*, or else the *compiled* one, which is kept from then on.

    A cache that cannot be written, or holds something else, only costs the time to compile again. So does a
    file that somebody else has written, or may: it would be run with this process's privileges.
    """
    with suppress(OSError, ValueError, KeyError, TypeError), place.open(encoding="ascii") as file:
        if _is_own(os.fstat(file.fileno())):
            found = Object.from_json(file.read())
            os.utime(place)
            return found
    made = compiled()
    with suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        scratch = place.with_suffix(f".{os.getpid()}")
        scratch.touch(mode=0o600)
        scratch.write_text(made.as_json(), encoding="ascii")
        scratch.rename(place)  # whoever reads sees all of it
        _forget_oldest(place.parent)
    return made


def _is_own(file: os.stat_result) -> bool:
    return file.st_uid == os.geteuid() and not file.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _forget_oldest(directory: Path) -> None:
    files = sorted(directory.glob("*.json"), key=lambda file: file.stat().st_mtime_ns)
    for file in files[:-_KEPT]:
        file.unlink(missing_ok=True)


def names_of(lib: Any, module: Any, what: str) -> list[str]:
    """Return the names of the functions or tables (*what*) of one of BCC's modules."""
    name_of, count = getattr(lib, f"bpf_{what}_name"), getattr(lib, f"bpf_num_{what}s")
    name_of.restype, name_of.argtypes = ctypes.c_char_p, [ctypes.c_void_p, ctypes.c_size_t]
    count.restype, count.argtypes = ctypes.c_size_t, [ctypes.c_void_p]  # BCC's Python declares not all
    return [name_of(module, place).decode() for place in range(count(module))]


def _with_maps(code: bytes, number: Callable[[int], int]) -> bytes:
    """Return the instructions with each map's number replaced."""
    instructions = np.frombuffer(code, _INSTRUCTION).copy()
    # The second half of a 64-bit load has no code, so it is never taken for one.
    loads = (instructions["code"] == _LOAD_64) & (instructions["registers"] & _SOURCE == _MAP)
    instructions["immediate"][loads] = [number(old) for old in instructions["immediate"][loads].tolist()]
    return instructions.tobytes()


def _with_calls(code: bytes) -> bytes:
    """Return the instructions with calls of kernel functions made such, which clang takes for helpers."""
    instructions = np.frombuffer(code, _INSTRUCTION).copy()
    calls = (instructions["code"] == _CALL) & (instructions["immediate"] >= KERNEL_FUNCTION)
    instructions["registers"][calls] |= _KERNEL_CALL
    instructions["immediate"][calls] -= KERNEL_FUNCTION
    return instructions.tobytes()


def _lift_memlock() -> None:
    """Lift the locked-memory limit, which kernels before 5.11 charge maps to; others do not mind it."""
    import resource  # not on every system that this module is imported on

    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def _create(spec: MapSpec) -> int:
    request = struct.pack(
        "=IIIIIII16s",
        spec.kind,
        spec.key_size,
        spec.value_size,
        spec.max_entries,
        spec.flags,
        0,
        0,
        spec.name.encode()[:_NAME_BYTES],
    )
    descriptor = syscall.bpf(Command.MAP_CREATE, request)
    if descriptor < 0:
        code = ctypes.get_errno()
        fix = "Give the capture a smaller map (max_open, max_processes)" if code == errno.ENOMEM else ""
        raise ProgramError(f"the map {spec.name} could not be made: {os.strerror(code)}", fix=fix)
    return descriptor
