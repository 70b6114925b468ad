"""What works on this host. Data only."""

from __future__ import annotations

from netlab.frames import Column, Kind, Schema

_TEXT = Kind.TEXT
_CATEGORY = Kind.CATEGORY

DOCTOR = Schema(
    "doctor",
    (
        Column("capability", _TEXT, "what netlab can do"),
        Column("state", _CATEGORY, "yes, no or unknown"),
        Column("why", _TEXT, "what was found"),
        Column("fix", _TEXT, "the command that changes it; missing when nothing needs fixing"),
    ),
)
