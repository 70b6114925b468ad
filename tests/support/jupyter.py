"""A real JupyterLab in a real browser that can reach nothing but this machine."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from playwright.sync_api import Browser, Page, expect, sync_playwright

_TOKEN = "netlab"  # noqa: S105 - of a server on loopback that lives as long as a test
_OFFLINE = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
_READY_MS = 120_000
_DONE = re.compile(r"\[\d+\]:")
_KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}


@dataclass
class Notebook:
    """A notebook that is open in the browser, and what went wrong in the browser so far."""

    page: Page
    complaints: list[str] = field(default_factory=list)

    def choose(self, *menu: str) -> None:
        """Choose an entry of JupyterLab's menus, such as "Run", "Run All Cells"."""
        for place, name in enumerate(menu):
            labels = self.page.locator(".lm-MenuBar-itemLabel, .lm-Menu-itemLabel")
            entry = labels.filter(has_text=re.compile(f"^{re.escape(name)}$")).locator("visible=true")
            entry.hover() if 0 < place < len(menu) - 1 else entry.click()

    def show_in(self, theme: str) -> None:
        """Switch JupyterLab to a theme, such as "JupyterLab Dark"."""
        self.choose("Settings", "Theme", theme)
        self.page.locator(f"body[data-jp-theme-name='{theme}']").wait_for(state="attached", timeout=_READY_MS)

    def run_above(self, number: int) -> None:
        """Run all cells before one, as the menu does; return when the last of them is done."""
        self.page.locator(".jp-CodeCell").nth(number).locator(".cm-content").click()
        self.choose("Run", "Run All Above Selected Cell")
        prompts = self.page.locator(".jp-CodeCell .jp-InputArea .jp-InputPrompt")
        for place in range(number):
            expect(prompts.nth(place)).to_have_text(_DONE, timeout=_READY_MS)

    def value(self, number: int) -> str:
        """Return a cell's value as text."""
        cell = self.page.locator(".jp-CodeCell").nth(number)
        return cell.locator(".jp-OutputArea-executeResult pre").inner_text().strip()

    def run(self, number: int) -> str:
        """Run a cell; return its value as text, empty for a widget, once it has one."""
        cell = self.page.locator(".jp-CodeCell").nth(number)
        cell.locator(".cm-content").click()
        self.page.keyboard.press("Shift+Enter")
        expect(cell.locator(".jp-InputPrompt")).to_have_text(_DONE, timeout=_READY_MS)
        cell.locator(".jp-OutputArea-executeResult").wait_for(timeout=_READY_MS)
        value = cell.locator(".jp-OutputArea-executeResult pre")
        return value.inner_text().strip() if value.count() else ""


@contextlib.contextmanager
def jupyterlab(directory: Path) -> Iterator[str]:
    """Serve *directory*; yield the server's address with its token left out."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    private = {
        name: str(directory / "jupyter" / name.lower())
        for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    }
    private["JUPYTERLAB_SETTINGS_DIR"] = str(_settings(directory / "settings"))
    command = [
        sys.executable,
        *("-m", "jupyterlab", "--no-browser", "--allow-root", f"--ServerApp.root_dir={directory}"),
        *(f"--ServerApp.port={port}", "--ServerApp.port_retries=0", f"--IdentityProvider.token={_TOKEN}"),
        *("--LabApp.news_url=", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"),
    ]
    with (directory / "jupyter.log").open("wb") as log:
        server = subprocess.Popen(command, env=os.environ | private, stdout=log, stderr=log)
        try:
            _wait_for(f"http://127.0.0.1:{port}/api/status?token={_TOKEN}", server)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(30)


def _settings(directory: Path) -> Path:
    """Write the settings of somebody who has been asked about news before."""
    file = directory / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    file.parent.mkdir(parents=True)
    file.write_text('{"fetchNews": "false"}', encoding="utf-8")
    return directory


def _wait_for(url: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _READY_MS / 1000
    while True:
        assert server.poll() is None, "JupyterLab has ended"
        try:
            urllib.request.urlopen(url, timeout=10).close()  # noqa: S310 - of this machine
        except OSError:
            assert time.monotonic() < deadline, "JupyterLab does not answer"
            time.sleep(0.2)
        else:
            return


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """Start Debian's Chromium."""
    program = shutil.which("chromium")
    assert program, "chromium is not installed: `make test` does it"
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", _OFFLINE])
        yield chromium
        chromium.close()


def opened(chromium: Browser, address: str, directory: Path, cells: list[str]) -> Notebook:
    """Write a notebook with *cells* and open it, its kernel ready."""
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(cell) for cell in cells], metadata=_KERNEL
    )
    nbformat.write(notebook, directory / "try.ipynb")
    page = chromium.new_page(viewport={"width": 1700, "height": 1700})
    shown = Notebook(page)
    page.on("pageerror", lambda error: shown.complaints.append(str(error)))
    page.on("requestfailed", lambda request: shown.complaints.append(f"failed: {request.url}"))
    page.on("console", lambda said: shown.complaints.append(said.text) if said.type == "error" else None)
    page.goto(f"{address}/lab/tree/try.ipynb?token={_TOKEN}")
    page.get_by_text("Python 3 (ipykernel) | Idle").wait_for(timeout=_READY_MS)
    return shown
