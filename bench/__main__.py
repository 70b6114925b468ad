"""Every measurement, as a table of ratios: `python -m bench [name …]`; `python -m bench soak` takes longer.

Each ratio is of two things measured in turn in this very run; absolute times on a shared machine mean little.
"""

from __future__ import annotations

import importlib
import signal
import sys

from bench import soak

NAMES = (
    "conntrack",
    "sockets",
    "maps",
    "gateways",
    "start",
    "tracer",
    "streams",
    "requests",
    "scale",
    "simulated",
    "rtt",
    "many",
    "peers",
    "balancer",
    "multipath",
    "verdicts",
    "panels",
    "fleet",
    "agent",
)


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # what was made is removed on the way out
    if sys.argv[1:2] == ["soak"]:
        soak.main(sys.argv[2:])
        return
    chosen = sys.argv[1:] or NAMES
    for name in chosen:
        if name not in NAMES:
            sys.exit(f"there is no measurement {name!r}: {', '.join(NAMES)}")
    print(f"{'what':<78} {'ratio':>8}  detail")
    for name in chosen:
        for what, ratio, detail in importlib.import_module(f"bench.{name}").measure():
            print(f"{what:<78} {ratio:>8.3g}  {detail}", flush=True)


main()
