"""What works on this host. Data only."""

from __future__ import annotations

from netlab.frames import Column, Schema
from netlab.schemas.kinds import CATEGORY, TEXT

DOCTOR = Schema(
    "doctor",
    (
        Column("capability", TEXT, "what netlab can do"),
        Column("state", CATEGORY, "yes, no or unknown"),
        Column("why", TEXT, "what was found"),
        Column("fix", TEXT, "the command that changes it; missing when nothing needs fixing"),
    ),
)
