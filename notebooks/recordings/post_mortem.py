"""Make `post_mortem.netlab`: an incident on the practice network, written down while it goes on.

First all is well; then db's port 80 refuses; then the link from r3 to web goes down. `make notebooks` runs
this as root.
"""

from __future__ import annotations

import time
from pathlib import Path

import netlab
from netlab.lab.traffic import Request

_PAUSE_S = 0.3
NOTES = "Shop outage. Customers began to complain about missing stock; the pages went a little later."
REFUSING = """
table inet incident {
    chain refused {
        type filter hook input priority -1
        tcp dport 80 reject with tcp reset
    }
}
"""


def main() -> None:
    """Build the network, break it, and record what its client sees."""
    target = Path(__file__).with_suffix(".netlab")
    with netlab.lab.practice() as net:
        asked = [Request("page", net.web.address4, 80), Request("stock", net.db.address4, 80)]
        with (
            netlab.capture(netns=net.client.inode, drops=True) as capture,
            netlab.record(target, capture, every_s=0.5, notes=NOTES, overwrite=True),
        ):
            for stage in range(3):
                if stage == 1:
                    net.db.run(["nft", "-f", "-"], input=REFUSING, check=True)
                if stage == 2:
                    net.routers[2].run(["ip", "link", "set", "web", "down"], check=True)
                for _ in range(4):
                    netlab.lab.drive(net, asked)
                    time.sleep(_PAUSE_S)
        with net.client.entered():
            ways = {
                f"way_to_{host.name}": netlab.traceroute(host.address4, protocol="tcp", port=80)
                for host in (net.web, net.db)
            }
    netlab.save(target, append=True, **ways)


if __name__ == "__main__":
    main()
