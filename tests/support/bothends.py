"""The rows of the requests to servers at known ports, as each end has them."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
from loopback import LOOPBACK

OWN = (
    "CLIENT",
    "HELLO",
    "MONITOR",
    "PING",
    "CONNECT",
    "PREPARE",
    "ApiVersions",
    "Metadata",
    "GetTelemetry",
)  # of the clients' libraries: in no log


@dataclass(frozen=True)
class BothEnds:
    """A capture's rows, and the servers' ports by name and family."""

    ports: dict[tuple[str, int], int]
    requests: pd.DataFrame

    def rows(self, server: str, family: int, direction: str = "outgoing") -> pd.DataFrame:
        """Return what is in the client's log as it was seen at one end, in the order of time."""
        rows = self.all_rows(server, family, direction)
        return rows[~rows["operation"].str.startswith(OWN)].reset_index(drop=True)

    def all_rows(self, server: str, family: int, direction: str = "outgoing") -> pd.DataFrame:
        """Return what was asked of one server as it was seen at one end."""
        end, rows = "remote" if direction == "outgoing" else "local", self.requests
        rows = rows[(rows[f"{end}_port"] == self.ports[server, family]) & (rows["direction"] == direction)]
        return rows[rows[f"{end}_address"] == LOOPBACK[family]]

    def least(self) -> int:
        """Return how many rows there are at that end which has the fewest."""
        return min(len(self.rows(*which, way)) for which in self.ports for way in ("outgoing", "incoming"))
