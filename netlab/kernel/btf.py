"""A kernel header tree made from the running kernel's BTF, for BCC on hosts without kernel headers.

BCC wants a header tree to compile against and takes the place of one from BCC_KERNEL_SOURCE. The tree made
here holds one real header, `vmlinux.h`, with the types of the running kernel; the files that BCC includes by
name are empty. Offsets are therefore right by construction, which foreign headers cannot promise.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from itertools import count
from pathlib import Path
from types import MappingProxyType

from netlab.errors import CapabilityError, KernelError
from netlab.kernel.reach import reached

VMLINUX = Path("/sys/kernel/btf/vmlinux")
_TREE_VERSION = 3  # raise it when the files below change, so that old caches are not used

_EMPTY = (
    *(
        f"include/uapi/linux/{name}.h"
        for name in ("bpf", "if_packet", "if_ether", "if_vlan", "ptrace", "types")
    ),
    *(f"include/linux/{name}.h" for name in ("version", "log2", "types", "bpf", "bpf_common")),
    *(f"arch/{arch}/include/asm/page.h" for arch in ("x86", "arm64", "s390", "powerpc", "riscv")),
)

# What BCC 0.26 to 0.35 call by number though an older kernel's BTF lacks it (include/uapi/linux/bpf.h).
_HELPERS = {"cgrp_storage_get": 210, "cgrp_storage_delete": 211}

# What BCC's own header (src/cc/export/helpers.h) needs of the types, besides enumerators: those begin alike.
_BCC = """
    struct bpf_stack_build_id struct bpf_cgroup_storage_key bool true false size_t uintptr_t va_list
    __s8 __s16 __s32 __s64 __u8 __u16 __u32 __u64 s8 s16 s32 s64 u8 u16 u32 u64 __be16 __be32 __be64 __wsum
"""
_BCC_ENUMERATOR = re.compile(r"^\t(_*BPF_\w+) =", re.MULTILINE)

_KCONFIG = """\
/* Made by netlab from the running kernel's BTF; BCC includes this file first. */
#define _UAPI__LINUX_BPF_H__
#define _UAPI__LINUX_BPF_COMMON_H__
#define BPF_NO_PRESERVE_ACCESS_INDEX
#define CONFIG_BPF_SYSCALL 1
#define PAGE_SIZE {page_size}
#include "vmlinux.h"
#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + ((c) > 255 ? 255 : (c)))
#define LINUX_VERSION_CODE {version_code}
{helpers}
"""


def header_tree(source: str | None = None) -> Path:
    """Return the header tree for the running kernel, made once per build and kept in the user's cache.

    Parameters
    ----------
    source
        C that names the types it needs: the tree then has those alone, which compile in a third of the time.
    """
    whole = _cache() / f"headers-{platform.release()}-{_build()}"
    if source is None:
        return _made(whole, lambda: _with_named_padding(_bpftool(*_DUMP, "format", "c")))
    tree = whole.with_name(f"{whole.name}-{_digest(source)}")
    return _made(tree, lambda: _needed(source))


_TYPES, _CONFIG = "include/vmlinux.h", "include/linux/kconfig.h"
_END = b"\n/* nothing is missing */\n"
ELSEWHERE = "Set XDG_CACHE_HOME to a directory that can be written, with some 10 MB of room"
_DUMP = ("btf", "dump", "file", str(VMLINUX))


def _needed(source: str) -> str:
    types = _types()
    return reached(types, " ".join([source, _BCC, *_BCC_ENUMERATOR.findall(types)]))


def _made(tree: Path, types: Callable[[], str]) -> Path:
    if _is_whole(tree):
        return tree
    try:
        tree.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=tree.parent) as scratch:
            _write_tree(Path(scratch) / "tree", types())
            if tree.is_dir() and not _is_whole(tree):
                tree.rename(Path(scratch) / "damaged")
            _publish(Path(scratch) / "tree", tree)
    except OSError as error:
        raise CapabilityError(
            f"the kernel's types cannot be kept in {tree.parent}: {error.strerror}",
            fix=ELSEWHERE,
        ) from error
    return tree


def _is_whole(tree: Path) -> bool:
    """Tell whether *tree* is there to its end: after a power failure files may be empty, or cut off.

    What is missing would look as if this kernel did not have it.
    """
    with suppress(OSError):
        return all((tree / file).read_bytes().endswith(_END) for file in (_TYPES, _CONFIG))
    return False


def unkept() -> Path | None:
    """Return where types are to be kept, if nothing can be written there and this kernel's are not there."""
    place = _cache()
    there = next(directory for directory in (place, *place.parents) if directory.exists())
    is_made = any(place.glob(f"headers-{platform.release()}-{_build()}*"))
    return None if is_made or os.access(there, os.W_OK | os.X_OK) else place


def has_field(struct: str, field: str) -> bool:
    """Tell whether the running kernel's *struct* has a member named *field*."""
    return re.search(rf"\b{re.escape(field)}(\[\d+\])?(: \d+)?;", _definition(struct)) is not None


def module_offsets(module: str, struct: str) -> dict[str, int]:
    """Return the byte offsets of the members of a kernel module's *struct*; none if it is not loaded."""
    file = VMLINUX.with_name(module)
    if not file.exists():
        return {}
    types = json.loads(_bpftool("--json", "btf", "dump", "file", str(file), "--base-btf", str(VMLINUX)))[
        "types"
    ]
    found = [one for one in types if one["kind"] == "STRUCT" and one["name"] == struct]
    return {member["name"]: member["bits_offset"] // 8 for one in found for member in one["members"]}


@cache
def enumerators(name: str) -> Mapping[int, str]:
    """Return the names of the running kernel's enum *name* by value; of two with one value the first counts.

    A kernel without this enum has no names.
    """
    pairs = re.findall(r"^\t(\w+) = (-?\d+),$", _definition(name, "enum"), re.MULTILINE)
    return MappingProxyType({int(value): word for word, value in reversed(pairs)})


@cache
def tracepoint_arguments(name: str) -> tuple[str, ...]:
    """Return the C types of what the running kernel hands to a raw tracepoint; none if it has no such one."""
    typedef = rf"^typedef void \(\*btf_trace_{re.escape(name)}\)\(void \*, (.*)\);$"
    found = re.search(typedef, _types(), re.MULTILINE)
    return tuple(found[1].split(", ")) if found else ()


@cache
def tracepoint_type(name: str) -> int:
    """Return the number in BTF of a raw tracepoint's type, by which the verifier knows its arguments.

    Raises
    ------
    KernelError
        If the running kernel has no such tracepoint.
    """
    number = type_number(f"btf_trace_{name}")
    if number is None:
        raise KernelError(f"this kernel has no tracepoint {name}")
    return number


def type_number(name: str) -> int | None:
    """Return the number in BTF of a type that programs name by it; None if this kernel does not have it."""
    return _numbers().get(name)


@cache
def _numbers() -> dict[str, int]:
    """Return the numbers of all of them, listed once per build: bpftool prints 16 MB for it."""
    kept = header_tree() / "numbers.json"
    with suppress(OSError, ValueError):
        found: dict[str, int] = json.loads(kept.read_text(encoding="utf-8"))
        return found
    listed = _NUMBERED.findall(_bpftool(*_DUMP, "format", "raw"))
    numbers = {name: int(number) for number, name in listed}
    with suppress(OSError):
        scratch = kept.with_suffix(f".{os.getpid()}")
        _write(scratch, json.dumps(numbers))
        scratch.rename(kept)  # whoever reads sees all of it
    return numbers


_NUMBERED = re.compile(
    r"^\[(\d+)\] (?:TYPEDEF|STRUCT|FUNC) '(btf_trace_\w+|sk_buff|bpf_cg_run_ctx|bpf_rdonly_cast)'",
    re.MULTILINE,
)


def definition(name: str) -> str:
    """Return the C text of "struct NAME" or "union NAME" of the running kernel, "" if it has none."""
    kind, _, tag = name.partition(" ")
    return _definition(tag, kind)


@cache
def _definition(tag: str, kind: str = "struct") -> str:
    """Return the C text of one struct or enum of the running kernel."""
    types = _types()
    start = types.find(f"\n{kind} {tag} {{\n")
    return types[start : types.find("\n};", start)] if start >= 0 else ""


@cache
def _types() -> str:
    return (header_tree() / _TYPES).read_text(encoding="utf-8")


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "netlab"


def _build() -> str:
    """Return a short name for this very build: releases repeat across builds, version strings do not."""
    return _digest(f"{_TREE_VERSION} {platform.version()} {platform.machine()}")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def version(release: str) -> tuple[int, int, int]:
    """Return the numbers that a kernel release such as 6.12.41+deb13-amd64 begins with."""
    found = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", release)
    if found is None:
        raise KernelError(f"the kernel release {release!r} does not begin with a version")
    return int(found[1]), int(found[2]), int(found[3] or 0)


def _write_tree(tree: Path, types: str) -> None:
    known = [
        f"#define BPF_FUNC_{name} {number}"
        for name, number in _HELPERS.items()
        if f"BPF_FUNC_{name} =" not in types
    ]
    major, minor, patch = version(platform.release())
    kconfig = _KCONFIG.format(
        page_size=os.sysconf("SC_PAGESIZE"),
        version_code=(major << 16) + (minor << 8) + min(patch, 255),
        helpers="\n".join(known),
    )
    for name in _EMPTY:
        _write(tree / name, "")
    for file, text in ((_TYPES, types), (_CONFIG, kconfig)):
        _write(tree / file, text + _END.decode())


def _with_named_padding(types: str) -> str:
    """Give padding of a whole word a name.

    Clang for BPF (seen with LLVM 14) takes an unnamed bit-field such as `long: 64;` into account for offsetof
    and not for the address of what comes after it, which then is read from elsewhere.
    """
    numbers = count()
    return _WHOLE_WORD.sub(lambda found: f"{found[1]} __netlab_padding_{next(numbers)};", types)


_WHOLE_WORD = re.compile(r"(?<=\t)(long(?=: 64;)|int(?=: 32;)|short(?=: 16;)|char(?=: 8;)): \d+;")


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def _publish(made: Path, tree: Path) -> None:
    """Move the finished tree to its place; another process that was faster has made the same one."""
    try:
        made.rename(tree)
    except OSError:
        if not tree.is_dir():
            raise


def _bpftool(*arguments: str) -> str:
    tool = shutil.which("bpftool", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if tool is None:
        raise CapabilityError("bpftool is not installed", fix="Run: apt-get install bpftool")
    if not VMLINUX.exists():
        raise CapabilityError(
            f"this kernel has no type information at {VMLINUX}",
            fix="Boot a kernel built with CONFIG_DEBUG_INFO_BTF=y (Debian 11+, Ubuntu 20.10+, RHEL 8.2+)",
        )
    run = subprocess.run([tool, *arguments], capture_output=True, text=True, check=False, timeout=60)
    if run.returncode:
        raise KernelError(f"bpftool {' '.join(arguments)} failed: {run.stderr.strip()[:200]}")
    return run.stdout
