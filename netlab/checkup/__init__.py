"""netlab.doctor(): what works here, what does not, why, and the command that changes it.

Each check tries the real operation where that is cheap and leaves nothing behind; the rest are facts of this
host. (The module is not called `doctor`: importing it would put the module in the function's place.)
"""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from netlab.agent import delegation
from netlab.checkup import network, packages, programs, room
from netlab.checkup.finding import Finding, State
from netlab.errors import CapabilityError, KernelError
from netlab.schemas import DOCTOR


def doctor() -> pd.DataFrame:
    """Say what netlab can do on this host, in this process and network namespace, and what it cannot.

    Nothing is changed and nothing is sent: sockets and eBPF programs that are opened to try it are closed at
    once.

    What an agent of this host does for this process counts as working; the reason says so.

    Returns
    -------
    DataFrame
        One row per capability: `capability`, `state` (yes, no, unknown), `why`, and the `fix`, missing where
        nothing needs fixing.

    Examples
    --------
    >>> import netlab
    >>> netlab.doctor().columns.tolist()
    ['capability', 'state', 'why', 'fix']
    """
    findings = {capability: _examined(check) for capability, check in _CHECKS.items()}
    refused = [name for name in _DELEGATED if name in findings and findings[name].state is State.NO]
    if refused and delegation.reachable():
        findings |= {name: _delegated(findings[name]) for name in refused}
    return DOCTOR.frame(
        {
            "capability": list(findings),
            "state": [finding.state.value for finding in findings.values()],
            "why": [finding.why for finding in findings.values()],
            "fix": [finding.fix for finding in findings.values()],
        }
    )


def _examined(check: Callable[[], Finding]) -> Finding:
    """Run *check*; what nobody thought of makes an unknown, never an error."""
    try:
        return check()
    except (CapabilityError, KernelError) as error:
        return Finding(State.NO, error.problem, error.fix)
    except Exception as error:  # noqa: BLE001 - a broken host is what the doctor is called to
        return Finding(State.UNKNOWN, f"the check itself failed: {type(error).__name__}: {error}")


def _delegated(here: Finding) -> Finding:
    """Return what an agent makes of what does not work *here*."""
    return Finding(State.YES, f"the agent at {delegation.usual_socket()} does it; here {here.why}")


_CHECKS: dict[str, Callable[[], Finding]] = {
    "list open sockets": network.open_sockets,
    "name the owner of every socket": network.owners,
    "follow connection attempts (eBPF)": programs.attempts,
    "join by socket cookie (cgroup v2)": programs.cookies,
    "read requests inside TLS (uprobes)": programs.clear_text,
    "list tracked connections and NAT": network.conntrack,
    "track each new connection (table, ports of NAT)": room.room,
    "count bytes of tracked connections": network.accounting,
    "date tracked connections": network.timestamps,
    "look into other network namespaces": network.namespaces,
    "trace paths (raw sockets)": network.raw_sockets,
    "trace paths by echo requests without raw sockets": network.ping_sockets,
    "build a practice network": network.practice,
    "build a simulated internet": network.simulated,
    "draw plots (matplotlib)": packages.importable("matplotlib", "plot"),
    "show panels (ipywidgets)": packages.importable("ipywidgets", "notebook"),
    "save recordings (Parquet)": packages.parquet,
    "kprobes (not needed)": programs.kprobes,
}
_DELEGATED = (
    "follow connection attempts (eBPF)",
    "join by socket cookie (cgroup v2)",
    "list tracked connections and NAT",
)
