"""Panels as their user has them: JupyterLab in Chromium, with no other network than this machine."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from jupyter import Notebook, browser, jupyterlab, opened
from playwright.sync_api import Locator, expect

from netlab.lab.plan import PORTS

FORWARDED = str(PORTS.forwarded)
PICTURES = Path(__file__).parents[2] / "build" / "panels"

NETWORK = """
import netlab.panels
net = netlab.lab.practice()
net.client.inode > 0
"""
MAKE = """
panel = netlab.panels.LiveConnections(netns=net.client.netns, nat=net.gateway.netns)
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
    kept.append(socket.create_connection((net.gateway.address4, net.ports.forwarded)))
[sock.send(bytes(1000 * number)) for number, sock in enumerate(kept[:20], 1)]
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
PLAIN = """
panel = netlab.panels.LiveConnections(port=9)
panel.start()
"""
CELLS = [NETWORK, MAKE, TRAFFIC, ANSWER, LEFT, PLAIN]
GONE = """panel => [getComputedStyle(panel.querySelector('[role=status]'), '::after').content,
                    [...panel.querySelectorAll('*'), panel].filter(part =>
                        getComputedStyle(part, '::before').content.includes('\\uf127')).length]"""


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Notebook]:
    directory = tmp_path_factory.mktemp("lab")
    with jupyterlab(directory) as address, browser() as chromium:
        yield opened(chromium, address, directory, CELLS)


def panel_of(notebook: Notebook) -> Locator:
    return notebook.page.locator(
        ".jp-OutputArea-output > .netlab-panel, .jp-OutputArea-output > * > .netlab-panel"
    )


def path_of(notebook: Notebook) -> Locator:
    return notebook.page.locator(".netlab-panel .netlab-panel")


def rows(notebook: Notebook) -> Locator:
    return notebook.page.locator(".netlab-table tbody tr")


def state_of(panel: Locator) -> Locator:
    return panel.get_by_role("status").first


def run(notebook: Notebook, cell: str) -> str:
    return notebook.run(CELLS.index(cell))


def picture(notebook: Notebook, name: str) -> None:
    """Keep how the panel looks, in both themes, for whoever reviews a change."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    for theme in ("JupyterLab Dark", "JupyterLab Light"):
        notebook.show_in(theme)
        panel_of(notebook).screenshot(path=PICTURES / f"{name}-{theme.split()[1].lower()}.png")


@pytest.mark.privileged
def test_an_investigation_in_the_panel(notebook: Notebook) -> None:
    page, panel = notebook.page, panel_of(notebook)
    notebook.run_above(CELLS.index(ANSWER))
    assert notebook.value(CELLS.index(TRAFFIC)) == "21"

    expect(rows(notebook).first).to_contain_text("ECONNREFUSED", timeout=30_000)
    picture(notebook, "connections")

    page.locator(".netlab-search").fill("established outgoing")
    expect(page.locator(".netlab-note").last).to_have_text("21 of 51 rows")
    page.get_by_role("button", name="Sent", exact=True).click()
    expect(rows(notebook).first).to_contain_text("20.0 kB")
    page.get_by_role("button", name="Sent ▼").click()
    expect(rows(notebook).nth(1)).to_contain_text("1.00 kB")

    rows(notebook).nth(2).click()
    facts = page.locator(".netlab-facts")
    expect(facts).to_contain_text("2000 bytes")
    page.keyboard.press("ArrowDown")
    expect(facts).to_contain_text("3000 bytes")
    assert run(notebook, ANSWER) == "42"  # the kernel is free while the panel is live

    page.locator(".netlab-search").fill(FORWARDED)
    rows(notebook).first.click()
    expect(page.locator(".netlab-way")).to_contain_text("becomes 198.18.4.2:80", timeout=30_000)
    picture(notebook, "selected")

    page.get_by_role("button", name="Trace the path to 198.18.4.2:80 (tcp)").click()
    expect(page.locator(".netlab-hops tbody tr").last).to_contain_text("end to end", timeout=30_000)
    expect(page.locator(".netlab-hops")).to_contain_text("198.18.4.2")
    expect(page.locator(".netlab-course")).to_be_visible()
    expect(page.locator(".netlab-ends")).to_contain_text(re.compile(r"\d\d rounds"), timeout=30_000)
    picture(notebook, "path")
    path_of(notebook).get_by_role("button", name="Stop").click()
    expect(state_of(path_of(notebook))).to_have_text("stopped")
    page.get_by_role("button", name="Close the path").click()
    expect(path_of(notebook)).to_have_count(0)

    page.get_by_role("button", name="Pause").click()
    expect(state_of(panel)).to_have_text("paused")
    page.get_by_role("button", name="Stop").click()
    expect(state_of(panel)).to_have_text("stopped")

    assert page.evaluate("window.owned") is None
    assert notebook.complaints == []


@pytest.mark.privileged
def test_running_the_cell_again_ends_the_panel_it_made_and_close_takes_it_away(notebook: Notebook) -> None:
    run(notebook, MAKE)
    expect(state_of(panel_of(notebook))).to_have_text("live", timeout=60_000)
    run(notebook, MAKE)
    expect(panel_of(notebook)).to_have_count(1)
    expect(state_of(panel_of(notebook))).to_have_text("live", timeout=60_000)

    assert run(notebook, LEFT) == "([], 0)"
    assert notebook.complaints == []


@pytest.mark.privileged
def test_a_panel_whose_kernel_is_gone_says_that_it_is_not_live(notebook: Notebook) -> None:
    run(notebook, PLAIN)
    panel = panel_of(notebook).last
    expect(state_of(panel)).to_have_text("live", timeout=60_000)

    notebook.choose("Kernel", "Restart Kernel…")
    notebook.page.locator(".jp-Dialog button.jp-mod-accept").click()

    expect(panel).to_have_class(re.compile("jupyter-widgets-disconnected"), timeout=60_000)
    said, marks = panel.evaluate(GONE)
    assert "the kernel that made this is gone" in said
    assert marks == 0
    expect(panel.get_by_role("button", name="Pause")).to_be_hidden()
    picture(notebook, "gone")
    notebook.page.get_by_text("Python 3 (ipykernel) | Idle").wait_for(timeout=60_000)
