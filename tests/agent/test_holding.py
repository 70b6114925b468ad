"""What the agent holds for clients, where one of the things does not end in order."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from netlab.agent.holding import Held, Holding
from tests.support.programs import wait_until


@dataclass(slots=True)
class Thing(Held):
    kind = "thing"
    ended: bool = False

    def end(self) -> None:
        self.ended = True
        if self.name == "unruly":
            raise OSError("the disk is gone")

    def has_ended(self) -> bool:
        return self.ended


def test_what_does_not_end_in_order_keeps_nothing_else_and_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with Holding(idle_s=0.1) as holding:
        things = [holding.keep(lambda name=name: Thing(name, {})) for name in ("unruly", "orderly")]
        wait_until(holding.is_empty)
        later = holding.keep(lambda: Thing("later", {}))
        wait_until(later.has_ended)

    assert all(thing.ended for thing in things)
    assert "thing unruly did not end in order" in caplog.text


def test_closing_ends_everything_also_behind_what_does_not_end_in_order() -> None:
    with Holding() as holding:
        things = [holding.keep(lambda name=name: Thing(name, {})) for name in ("first", "unruly")]

    assert all(thing.ended for thing in things)
