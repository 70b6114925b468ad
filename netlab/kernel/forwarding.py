"""What a network namespace does with packets that it only passes on, by its switches."""

from __future__ import annotations

from pathlib import Path

# Those of the reading thread's namespace.
_FORWARDS = Path("/proc/sys/net/ipv6/conf/all/forwarding")
_FILTERS = {4: "iptables", 6: "ip6tables"}


def forwards(family: int) -> bool:
    """Tell whether this namespace forwards at all; of IPv4 its route look-ups tell that already."""
    return family == 4 or _is_on(_FORWARDS, unknown=True)


def filters_bridged(family: int) -> bool:
    """Tell whether what a bridge passes from port to port is translated as if it were routed (br_netfilter).

    A bridge may have a switch of its own besides (nf_call_iptables), which is not looked at.
    """
    return _is_on(Path(f"/proc/sys/net/bridge/bridge-nf-call-{_FILTERS[family]}"), unknown=False)


def _is_on(switch: Path, *, unknown: bool) -> bool:
    try:
        return switch.read_text(encoding="ascii").strip() != "0"
    except OSError:
        return unknown
