"""What this host did not hear of the answers, or could not place, and what it could not send at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from netlab.frames import Gap, Missing
from netlab.path import crowding

_NAMED = 3
_ELSEWHERE = (
    "came from {}, which was not asked, and count as none, as clients take it: the host answers from another "
    "address, or who translates addresses on the way there is not on the way back"
)


class Listener(Protocol):
    """Sockets that count what they miss."""

    @property
    def dropped(self) -> int:
        """How many packets the kernel dropped because they were not read in time."""

    @property
    def held(self) -> int:
        """How many probes had to wait for this host's own queue."""

    @property
    def unreadable(self) -> int:
        """How many packets were not what they claim to be."""

    @property
    def strangers(self) -> Mapping[str, int]:
        """How many answers came from which address that nobody had asked."""


def losses(listener: Listener) -> list[Missing]:
    """Return what *listener* has missed."""
    strangers = listener.strangers
    who = ", ".join(sorted(strangers)[:_NAMED]) + (" and others" if len(strangers) > _NAMED else "")
    lost = [
        Missing("probes", Gap.APPROXIMATE, listener.held, crowding.WHAT),
        Missing(
            "answers", Gap.LOST, listener.dropped, "the sockets' buffers were full: this host was too busy"
        ),
        Missing("answers", Gap.UNSEEN, listener.unreadable, "packets that are not what they claim to be"),
        Missing("answers of the target", Gap.UNSEEN, sum(strangers.values()), _ELSEWHERE.format(who)),
    ]
    return [item for item in lost if item.count]
