"""What netlab's objects show of themselves: short, the same each time, escaped, readable with no kernel."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from IPython.core.formatters import DisplayFormatter
from nbconvert import HTMLExporter

import netlab
from netlab.panels import LiveConnections, LivePath
from netlab.schemas import CONNECTIONS

HOSTILE = "<script>alert(1)</script>\u202e"
ENDS = {"local_address": "192.0.2.1", "local_port": 1, "remote_address": "192.0.2.2", "remote_port": 2}
ROW = {"protocol": "tcp", "netns": None, "process": HOSTILE, "reason": HOSTILE, "error": HOSTILE, **ENDS}


def recording(tmp_path: Path) -> Any:
    return netlab.load(
        netlab.save(tmp_path / "one.netlab", CONNECTIONS.empty(), notes=HOSTILE, overwrite=True)
    )


MADE: dict[str, Callable[[Path], Any]] = {
    "capture": lambda _: netlab.capture(process=HOSTILE),
    "monitor": lambda _: netlab.path.monitor("127.0.0.1"),
    "explanation": lambda _: netlab.explain(ROW),
    "recording": recording,
    "connections panel": lambda _: LiveConnections(process=HOSTILE),
    "path panel": lambda _: LivePath("127.0.0.1"),
    "picture": lambda _: netlab.plot_connections(CONNECTIONS.empty()),
    "doctor": lambda _: netlab.doctor(),
}
EACH = pytest.mark.parametrize("make", MADE.values(), ids=MADE)


def shown(value: Any) -> dict[str, Any]:
    """Return what a notebook would keep of *value*, without the widget that needs a kernel."""
    data, _ = DisplayFormatter().format(value)
    data.pop("application/vnd.jupyter.widget-view+json", None)
    return {kind: part.decode("latin-1") if isinstance(part, bytes) else part for kind, part in data.items()}


@EACH
def test_a_repr_is_short_the_same_each_time_and_has_no_control_characters(
    make: Callable[[Path], Any], tmp_path: Path
) -> None:
    text = repr(make(tmp_path))

    assert text == repr(make(tmp_path))
    assert text.replace("\n", "").isprintable()
    assert len(text) < 5000
    assert not re.search("0x[0-9a-f]{6}", text)  # an address in memory


@pytest.mark.parametrize("name", [name for name in MADE if name.endswith("panel")])
def test_a_saved_panel_says_that_its_rows_are_elsewhere(name: str, tmp_path: Path) -> None:
    assert "not in a saved notebook; netlab.record() keeps it" in shown(MADE[name](tmp_path))["text/plain"]


@EACH
def test_without_a_kernel_it_is_readable_and_foreign_text_is_only_text(
    make: Callable[[Path], Any], tmp_path: Path
) -> None:
    data = shown(make(tmp_path))
    output = nbformat.v4.new_output("execute_result", data, execution_count=1)
    cell = nbformat.v4.new_code_cell("value", outputs=[output])
    page, _ = HTMLExporter().from_notebook_node(nbformat.v4.new_notebook(cells=[cell]))

    (body,) = re.findall(r'<div class="jp-OutputArea-child.*?</main>', page, re.DOTALL)
    assert "<script>alert" not in body
    assert "\u202e" not in body
    assert "image/svg+xml" in data or re.search(
        r"capture|127\.0\.0\.1|192\.0\.2\.2|connections|Live|kprobes", body
    )
