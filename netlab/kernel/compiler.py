"""BCC's compiler: C against the running kernel's types, in this process, one unit at a time."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

from netlab.errors import CapabilityError, ProgramError
from netlab.kernel import capabilities, heap

# BTF headers warn by the thousand; a call to what is not declared would only fail later, in the verifier.
# Debug information, which BCC asks for, takes a sixth of the compiler's time. Clang's passes take a fifth,
# half of that with -O1; BCC has LLVM optimize all again, but without any the largest filters need more stack
# than there is, and LLVM ends the process for that. Strict aliasing is not a rule that the kernel keeps.
_FLAGS = ("-Wno-everything", "-Werror=implicit-function-declaration", "-g0", "-O1", "-fno-strict-aliasing")


def require_bcc() -> Path:
    """Return where BCC's Python module is found.

    Raises
    ------
    CapabilityError
        If it is not installed.
    """
    home = capabilities.bcc_home()
    if home is None:
        raise CapabilityError("BCC is not installed", fix=_INSTALL)
    return home


def load_bcc() -> ModuleType:
    """Return BCC's Python module, from the system's Python when this one has none.

    `pip install bcc` is an unrelated package, so a module without `BPF` does not count.
    """
    loaded = sys.modules.get("bcc")
    if loaded is not None and hasattr(loaded, "BPF"):
        return loaded
    home = require_bcc()
    spec = importlib.machinery.PathFinder.find_spec("bcc", [str(home)])
    if spec is None or spec.loader is None:
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


@contextmanager
def compiled(name: str, text: str, headers: Path) -> Iterator[Any]:
    """Compile C; inside the block there is BCC's object for it, whose `module` the functions of `lib` read.

    Parameters
    ----------
    name
        What errors call it.
    text
        The C.
    headers
        The header tree to compile it against.
    """
    bcc = load_bcc()
    with _explained(f"{name} did not compile on this kernel"), _compiled_against(headers):
        unit = _without_autoload(bcc)(text=text.encode(), cflags=list(_FLAGS))
    try:
        yield unit
    finally:
        with _COMPILER:
            unit.cleanup()
        heap.trim()


def identity(text: str, headers: Path) -> str:
    """Return what decides what the compiler makes of *text*: that, the types, and the compiler itself."""
    home = require_bcc()
    library = f"{home} {(home / 'bcc' / '__init__.py').stat().st_mtime_ns}"
    return "\n".join([library, str(headers), *_FLAGS, text])


def _without_autoload(bcc: ModuleType) -> Any:
    """Return BCC's class for one unit, but that leaves attaching what is named for it to its user."""
    return type("Unattached", (bcc.BPF,), {"_trace_autoload": lambda _: None})


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
            reason = cause(words) or str(failure)
            raise ProgramError(
                f"{problem}: {reason[:200]}", fix="The error's `log` has every line", log=words
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


def cause(words: str) -> str:
    """Return the line that says why: clang marks it, the verifier puts it before its closing statistics."""
    lines = [line.strip() for line in words.splitlines() if line.strip()]
    marked = [line for line in lines if "error:" in line]
    before_statistics = [line for line, after in pairwise(lines) if after.startswith("processed ")]
    return next(iter(marked + before_statistics), "")
