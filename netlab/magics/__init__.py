"""`%load_ext netlab`: `%netlab` for the calls one types often, `%%bpf` for a probe of one's own.

The only package that knows IPython's magics. Both are thin: they read a line of words, call what is public in
netlab, and hand back its frames.
"""

from __future__ import annotations

from typing import Any

from netlab.magics.cell import bpf_magic
from netlab.magics.completion import IDENTIFIER, matcher
from netlab.magics.line import Calls

_LINE, _CELL = "netlab", "bpf"


def load(shell: Any) -> None:
    """Add `%netlab` and `%%bpf` to *shell*, an IPython shell."""
    unload(shell)
    calls = Calls()
    shell.register_magic_function(calls, "line", _LINE)
    shell.register_magic_function(bpf_magic(shell), "cell", _CELL)
    shell.Completer.custom_matchers.append(matcher(f"%{_LINE}", calls.complete))


def unload(shell: Any) -> None:
    """Take the magics away again, and stop the capture that `%netlab` started."""
    calls = shell.magics_manager.magics["line"].pop(_LINE, None)
    if isinstance(calls, Calls):
        calls.close()
    matchers = shell.Completer.custom_matchers
    matchers[:] = [each for each in matchers if getattr(each, "matcher_identifier", "") != IDENTIFIER]
    shell.magics_manager.magics["cell"].pop(_CELL, None)
