"""What many hosts tell together. Data only."""

from __future__ import annotations

from netlab.frames import Column, Schema
from netlab.schemas.connections import DELTAS
from netlab.schemas.kinds import CATEGORY, INTEGER, REAL, TEXT, TIME

FLEET_DELTAS = Schema(
    "fleet_deltas",
    (Column("at", TIME, "when the host was asked, by the clock of who recorded"), *DELTAS.columns),
)


def _end(role: str, other: str) -> tuple[Column, ...]:
    """Return the columns of one end of a connection."""
    return (
        Column(f"{role}_netns", INTEGER, f"inode of the {role}'s network namespace"),
        Column(f"{role}_pid", INTEGER, f"process id of the {role}"),
        Column(f"{role}_process", TEXT, f"the {role}'s command name"),
        Column(f"{role}_container", TEXT, f"id or name of the {role}'s container"),
        Column(f"{role}_opened_at", TIME, f"when it began, by the clock of the {role}'s host"),
        Column(f"{role}_closed_at", TIME, "when it ended, by that clock; missing while it is open"),
        Column(f"{role}_error", CATEGORY, f"errno name of the failure at the {role}"),
        Column(f"{role}_bytes_sent", INTEGER, f"payload to the {other}, as counted here", "bytes"),
        Column(f"{role}_bytes_received", INTEGER, f"payload from the {other}, as counted here", "bytes"),
        Column(f"{role}_retransmits", INTEGER, f"segments that the {role} sent again", "packets"),
        Column(f"{role}_rtt_ms", REAL, f"smoothed round-trip time, as measured by the {role}", "ms"),
        Column(f"{role}_cookie", INTEGER, f"cookie of the {role}'s socket"),
    )


JOINED = Schema(
    "joined",
    (
        Column("protocol", CATEGORY, "tcp or udp"),
        Column("ends", CATEGORY, "which ends the row has: both, client (who opened it) or server"),
        Column("client_host", TEXT, "host of the client; its columns are missing where no host had this end"),
        Column("client_address", TEXT, "the client's address as its socket sees it"),
        Column("client_port", INTEGER, "the client's port there"),
        Column("service_address", TEXT, "the address that the client called"),
        Column("service_port", INTEGER, "the port that it called"),
        Column("server_host", TEXT, "host of the server; its columns are missing where no host had this end"),
        Column("server_address", TEXT, "the server's address as its socket sees it"),
        Column("server_port", INTEGER, "the server's port there"),
        Column("peer_address", TEXT, "the client's address as the server's socket sees it"),
        Column("peer_port", INTEGER, "the client's port as the server's socket sees it"),
        *_end("client", "server"),
        *_end("server", "client"),
        Column("to_server_bytes_difference", INTEGER, "client_bytes_sent - server_bytes_received", "bytes"),
        Column("to_client_bytes_difference", INTEGER, "server_bytes_sent - client_bytes_received", "bytes"),
    ),
)
