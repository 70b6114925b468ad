"""What a panel is in a notebook that was executed without a browser, as nbconvert and papermill do it."""

from __future__ import annotations

from typing import Any

import nbformat
import pandas as pd
import pytest
from nbclient import NotebookClient

import netlab
from netlab.schemas import CONNECTIONS

SHOW = """
import asyncio
import netlab, netlab.panels
panel = netlab.panels.LiveConnections(netlab.replay("{path}", speed=100)).start()
panel
"""


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("saved") / "a.netlab"
    begun = pd.Timestamp.now("UTC") - pd.Timedelta(seconds=10)
    netlab.save(path, CONNECTIONS.frame({"process": ["curl", "wget"], "opened_at": [begun, begun]}))
    return SHOW.format(path=path)


def executed(*cells: str) -> dict[str, Any]:
    """Run the cells, and return what the saved notebook says of the panel's parts, by their models."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    saved = notebook.metadata.widgets["application/vnd.jupyter.widget-state+json"]["state"].values()
    table = next(part["state"]["view"] for part in saved if part["model_name"] == "AnyModel")
    said = [part["state"].get("value", "") for part in saved if part["model_name"] == "HTMLModel"]
    return {"total": table["total"], "said": " ".join(said)}


def test_a_panel_that_was_stopped_is_saved_as_it_was_shown_last(shown: str) -> None:
    cells = [shown, "while panel.state.value != 'stopped': await asyncio.sleep(0.1)", "panel.stop()"]

    saved = executed(*cells)

    assert saved["total"] == 2
    assert "stopped" in saved["said"]


def test_a_panel_that_was_not_stopped_does_not_say_how_many_rows_there_were(shown: str) -> None:
    assert executed(shown, "await asyncio.sleep(1)")["total"] is None
