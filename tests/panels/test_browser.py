"""Panels as their user has them: JupyterLab in Chromium, with no other network than this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from jupyter import Notebook, browser, jupyterlab, opened
from playwright.sync_api import Locator, expect

PICTURES = Path(__file__).parents[2] / "build" / "panels"

NETWORK = """
import netlab.panels
net = netlab.lab.practice()
net.client.inode > 0
"""
MAKE = """
panel = netlab.panels.LiveConnections(netns=net.client.netns)
panel.start()
"""
TRAFFIC = """
import socket
with open("/proc/self/comm", "w") as comm:
    comm.write("<img src=x onerr")
with net.client.entered():
    for number in range(30):
        with socket.socket() as sock:
            sock.connect_ex((net.db.address4, 9))
    kept = [socket.create_connection((net.db.address4, net.ports.tcp_echo)) for _ in range(20)]
[sock.send(bytes(1000 * number)) for number, sock in enumerate(kept, 1)]
len(kept)
"""
ANSWER = "6 * 7"
LEFT = """
panel.close()
net.close()
import ipywidgets, threading
threads = [thread.name for thread in threading.enumerate() if "netlab" in thread.name]
threads, len(ipywidgets.widget._instances)
"""
CELLS = [NETWORK, MAKE, TRAFFIC, ANSWER, LEFT]


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Notebook]:
    directory = tmp_path_factory.mktemp("lab")
    with jupyterlab(directory) as address, browser() as chromium:
        yield opened(chromium, address, directory, CELLS)


def panel_of(notebook: Notebook) -> Locator:
    return notebook.page.locator(".netlab-panel")


def rows(notebook: Notebook) -> Locator:
    return notebook.page.locator(".netlab-table tbody tr")


def run(notebook: Notebook, cell: str) -> str:
    return notebook.run(CELLS.index(cell))


def picture(notebook: Notebook, name: str) -> None:
    """Keep how the panel looks, in both themes, for whoever reviews a change."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    for theme, light in (("light", "true"), ("dark", "false")):
        notebook.page.evaluate(f"document.body.dataset.jpThemeLight = '{light}'")
        panel_of(notebook).screenshot(path=PICTURES / f"{name}-{theme}.png")
    notebook.page.evaluate("document.body.dataset.jpThemeLight = 'true'")


@pytest.mark.privileged
def test_an_investigation_in_the_panel(notebook: Notebook) -> None:
    run(notebook, NETWORK)
    run(notebook, MAKE)
    expect(panel_of(notebook)).to_be_visible(timeout=60_000)
    assert run(notebook, TRAFFIC) == "20"

    expect(rows(notebook).first).to_contain_text("ECONNREFUSED", timeout=30_000)
    picture(notebook, "connections")

    notebook.page.locator(".netlab-search").fill("established outgoing")
    expect(notebook.page.locator(".netlab-note").last).to_have_text("20 of 50 rows")
    notebook.page.get_by_role("button", name="Sent", exact=True).click()
    expect(rows(notebook).first).to_contain_text("20.0 kB")
    notebook.page.get_by_role("button", name="Sent ▼").click()
    expect(rows(notebook).first).to_contain_text("1.00 kB")

    rows(notebook).nth(1).click()
    facts = notebook.page.locator(".netlab-facts")
    expect(facts).to_contain_text("2000 bytes")
    picture(notebook, "selected")

    notebook.page.keyboard.press("ArrowDown")
    expect(facts).to_contain_text("3000 bytes")

    assert run(notebook, ANSWER) == "42"  # the kernel is free while the panel is live

    notebook.page.get_by_role("button", name="Pause").click()
    expect(panel_of(notebook).get_by_role("status")).to_have_text("paused")
    notebook.page.get_by_role("button", name="Stop").click()
    expect(panel_of(notebook).get_by_role("status")).to_have_text("stopped")

    assert notebook.page.evaluate("window.owned") is None
    assert notebook.complaints == []


@pytest.mark.privileged
def test_running_the_cell_again_ends_the_panel_it_made_and_close_takes_it_away(notebook: Notebook) -> None:
    run(notebook, MAKE)
    expect(panel_of(notebook).get_by_role("status")).to_have_text("live", timeout=60_000)
    run(notebook, MAKE)
    expect(panel_of(notebook)).to_have_count(1)
    expect(panel_of(notebook).get_by_role("status")).to_have_text("live", timeout=60_000)

    assert run(notebook, LEFT) == "([], 0)"
    assert notebook.complaints == []
