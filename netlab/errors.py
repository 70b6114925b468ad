"""The errors netlab raises.

::

    NetlabError
    ├── BadInput            an argument that cannot be right (also a ValueError)
    ├── CapabilityError     this process, kernel or host lacks something (also a PermissionError)
    ├── KernelError         the kernel refused an operation or answered what netlab cannot read
    │   └── ProgramError    an eBPF program did not compile, verify or attach
    ├── CaptureError        a capture cannot do this in its present state
    ├── ProbeError          a path could not be probed
    ├── DecodeError         bytes from the wire that are not what they claim to be
    ├── BundleError         a recording that cannot be read or written
    └── LabError            the practice network could not be built or removed

Every message says what failed, on what, and how to fix it. A notebook shows it under the cell's own line,
without the way through netlab, which `%xmode Verbose` shows, too.
"""

from __future__ import annotations

import sys
from copy import copy
from types import TracebackType


class NetlabError(Exception):
    """The root of everything netlab raises on purpose.

    Parameters
    ----------
    problem
        What failed and on what, in one sentence without a full stop.
    fix
        What the reader can do about it; shown after the problem.
    """

    def __init__(self, problem: str, *, fix: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.problem}. {self.fix}" if self.fix else self.problem

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.problem,), {**self.__dict__}

    def _render_traceback_(self) -> list[str]:
        """Return what IPython, which asks for it, shows of this error."""
        style = sys.modules["IPython"].get_ipython().InteractiveTB
        error, way = self, self.__traceback__
        if style.mode != "Verbose":
            error, way = copy(self), _before_netlab(way)  # a copy has no cause, which would be shown, too
        shown: list[str] = style.structured_traceback(type(error), error, way, tb_offset=style.tb_offset)
        return shown


def _before_netlab(way: TracebackType | None) -> TracebackType | None:
    """Return the part of a traceback that leads to netlab: the lines of whoever called it."""
    if way is None or way.tb_frame.f_globals.get("__name__", "").partition(".")[0] == "netlab":
        return None
    return TracebackType(_before_netlab(way.tb_next), way.tb_frame, way.tb_lasti, way.tb_lineno)


class BadInput(NetlabError, ValueError):  # noqa: N818 - the name says what the caller gave
    """An argument that cannot be right, refused before anything is attached or sent."""


class CapabilityError(NetlabError, PermissionError):
    """The process, the kernel or the host lacks something that the call needs."""


class KernelError(NetlabError):
    """The kernel refused an operation, or answered something netlab cannot read."""


class ProgramError(KernelError):
    """An eBPF program did not compile, verify or attach; `log` has the compiler's or verifier's words."""

    def __init__(self, problem: str, *, fix: str = "", log: str = "") -> None:
        super().__init__(problem, fix=fix)
        self.log = log


class CaptureError(NetlabError):
    """A capture cannot do this in its present state."""


class ProbeError(NetlabError):
    """A path could not be probed."""


class DecodeError(NetlabError):
    """Bytes from the wire that are not what they claim to be."""


class BundleError(NetlabError):
    """A recording that cannot be read or written."""


class LabError(NetlabError):
    """The practice network could not be built or removed."""
