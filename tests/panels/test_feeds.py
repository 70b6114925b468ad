"""Foreign text in every place of a panel, and a feed that is no capture but has its few methods."""

from __future__ import annotations

import ipywidgets
import pandas as pd
import pytest
from loops import run, until

from netlab.errors import BadInput
from netlab.panels import LiveConnections, LivePath
from netlab.panels.live import State
from netlab.schemas import CONNECTIONS

HOSTILE = ["<script>alert(1)</script>", "gpj.\u202eexe", "\x1b]0;title\x07", "n" * 10_000, "\"' onclick='x"]
THEN = pd.Timestamp("2026-01-01T12:00:00Z")
MOST_BYTES = 40_000  # of one widget, whatever the rows hold
TEXTS = ("process", "cmdline", "cgroup", "container", "remote_name", "reason", "host")


class Rows:
    """A feed with the rows it was given, as a recording has them."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self.state = "new"
        self._frame = frame

    def start(self) -> None:
        self.state = "running"

    def pause(self) -> None:
        self.state = "paused"

    def resume(self) -> None:
        self.state = "running"

    def stop(self) -> None:
        self.state = "stopped"

    def connections(self) -> pd.DataFrame:
        return self._frame


def shown_by(widget: ipywidgets.Widget) -> list[str]:
    """Return every text that a widget and those inside send to the browser."""
    inner = [text for child in getattr(widget, "children", ()) for text in shown_by(child)]
    state = widget.get_state()
    return [
        *inner,
        *(str(state[name]) for name in ("value", "description", "tooltip", "view") if name in state),
    ]


@pytest.mark.parametrize("text", HOSTILE, ids=["tag", "bidi", "terminal", "long", "quotes"])
def test_foreign_text_is_escaped_and_bounded_in_all_of_the_panel(text: str) -> None:
    foreign = {name: [text] for name in TEXTS if name in CONNECTIONS.names}
    ends = {"protocol": ["tcp"], "remote_address": ["192.0.2.1"], "remote_port": [443], "netns": [1]}

    async def work() -> None:
        panel = LiveConnections(Rows(CONNECTIONS.frame({**ends, **foreign}))).start()
        await until(lambda: panel.table.view["rows"])
        panel.table.asked = {**panel.table.asked, "selected": panel.table.view["rows"][0]["key"]}
        await until(lambda: panel.inquiry.way.value)
        panel.inquiry._trace.click()
        html = [panel._head.value, panel._foot.value, panel._details.value]
        html += [panel.inquiry.way.value, panel.inquiry._fault.value]

        assert not any("<script" in one or "onclick='" in one for one in html)
        for one in shown_by(panel):
            assert not set(one) & set("\u202e\x1b\x07")
            assert len(one) < MOST_BYTES
        panel.close()

    run(work())


def test_a_feed_that_ends_by_itself_ends_the_panel_with_its_rows() -> None:
    async def work() -> None:
        rows = Rows(CONNECTIONS.frame({"protocol": ["tcp", "udp"]}))
        panel = LiveConnections(rows).start()
        rows.stop()
        await until(lambda: panel.state is State.STOPPED)
        assert panel.table.view["total"] == 2
        panel.close()

    run(work())


class Past(Rows):
    """The same of another time."""

    def now(self) -> pd.Timestamp:
        return THEN


def test_a_recording_counts_from_its_own_moment_and_nothing_is_asked_of_its_rows() -> None:
    async def work() -> None:
        ends = {"protocol": ["tcp"], "remote_address": ["192.0.2.1"], "remote_port": [443], "netns": [1]}
        opened = [THEN - pd.Timedelta(seconds=1.5)]
        panel = LiveConnections(Past(CONNECTIONS.frame({**ends, "opened_at": opened}))).start()
        await until(lambda: panel.table.view["rows"])
        assert "new 1/s" in panel._head.value
        panel.table.asked = {**panel.table.asked, "selected": panel.table.view["rows"][0]["key"]}
        assert "192.0.2.1" in panel._details.value
        assert panel.inquiry._trace.layout.display == "none"
        panel.close()

    run(work())


def test_what_is_no_feed_is_refused_at_once() -> None:
    with pytest.raises(BadInput, match="cannot follow DataFrame"):
        LiveConnections(CONNECTIONS.empty())  # type: ignore[arg-type]
    with pytest.raises(BadInput):
        LivePath(80)  # type: ignore[arg-type]
