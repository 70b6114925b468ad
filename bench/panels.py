"""Live panels in a real notebook kernel: what 10,000 rows cost it, and what 50 of each panel leave behind."""

from __future__ import annotations

import ast
import json
import queue
import statistics
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

ROWS, CELLS, PANELS = 10_000, 60, 50
MOST_REFRESH_S, MOST_CELL_S, MOST_PER_S = 0.1, 0.2, 4
_LONGEST_S, _LISTEN_S = 900, 5

# Half of the rows are refused attempts, the others the two ends of connections that go on.
_BEGIN = f"""
    import asyncio, gc, os, resource, socket, threading, time
    import ipywidgets, netlab.panels
    from netlab.panels import LiveConnections, LiveConntrack, LiveDNS, LivePath, LiveRequests

    class Timed(LiveConnections):
        def _read(self, feed):
            before = time.thread_time()
            seen = super()._read(feed)
            self.reading_s = time.thread_time() - before
            return seen

        def _show(self, seen):
            before = time.thread_time()
            super()._show(seen)
            spent.append((time.monotonic(), self.reading_s, time.thread_time() - before, len(seen)))

    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    spent = []
    server = socket.create_server(("127.0.0.1", 0), backlog=4096)
    port = server.getsockname()[1]
    panel = Timed(port=port).start()
    kept = []
    for _ in range({ROWS} // 4):
        kept += [socket.create_connection(("127.0.0.1", port)), server.accept()[0]]
    for _ in range({ROWS} // 2):
        with socket.socket() as sock:
            sock.connect_ex(("127.0.0.2", port))
"""
_SPENT = "spent"
_END = "panel.close(); spent.clear(); del panel; [sock.close() for sock in (*kept, server)]; kept.clear()"
_LEFT = f"""
    def left():
        gc.collect()
        tasks, widgets = len(asyncio.all_tasks()), len(ipywidgets.widget._instances)
        return [threading.active_count(), len(os.listdir("/proc/self/fd")), tasks, widgets]

    def path():
        return LivePath("127.0.0.1")

    async def once():
        for make in (LiveConnections, LiveRequests, LiveDNS, LiveConntrack, path):
            make().start().close()
            await asyncio.sleep(0.02)

    await once()
    await asyncio.sleep(1)
    before = left()
    for _ in range({PANELS}):
        await once()
    await asyncio.sleep(1)
    before, left()
"""


@contextmanager
def _kernel() -> Iterator[BlockingKernelClient]:
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel()
    client = manager.blocking_client()
    try:
        client.start_channels()
        client.wait_for_ready(timeout=_LONGEST_S)
        yield client
    finally:
        client.stop_channels()
        manager.shutdown_kernel()


def _value(client: BlockingKernelClient, code: str) -> Any:
    """Run a cell; return its value."""
    values = []

    def heard(message: dict[str, Any]) -> None:
        if message["msg_type"] == "execute_result":
            values.append(ast.literal_eval(message["content"]["data"]["text/plain"]))

    reply = client.execute_interactive(textwrap.dedent(code), timeout=_LONGEST_S, output_hook=heard)
    assert reply["content"]["status"] == "ok", reply["content"]
    return values[0] if values else None


def _cells(client: BlockingKernelClient) -> list[float]:
    """Return how many seconds each of some cells took to answer."""
    took = []
    for _ in range(CELLS):
        start = time.perf_counter()
        _value(client, "6 * 7")
        took.append(time.perf_counter() - start)
        time.sleep(0.11)  # not in step with the refreshes
    return took


def _traffic(client: BlockingKernelClient) -> float:
    """Return how many bytes a second the panel sends to the browser."""
    _published(client)
    time.sleep(_LISTEN_S)
    return sum(_published(client)) / _LISTEN_S


def _published(client: BlockingKernelClient) -> list[int]:
    """Take what the kernel has published; return the sizes of the widgets' messages."""
    sizes = []
    while True:
        try:
            message = client.get_iopub_msg(timeout=0.05)
        except queue.Empty:
            return sizes
        if message["msg_type"] == "comm_msg":
            sizes.append(len(json.dumps(message["content"])))


def measure() -> list[tuple[str, float, str]]:
    with _kernel() as client:
        _value(client, _BEGIN)
        deadline = time.monotonic() + _LONGEST_S
        while not (seen := _value(client, _SPENT)) or seen[-1][3] < ROWS:
            assert time.monotonic() < deadline, "the rows never came"
            time.sleep(1)
        _value(client, "spent.clear()")
        took, bytes_per_s = _cells(client), _traffic(client)
        spent = _value(client, _SPENT)
        _value(client, _END)
        before, after = _value(client, _LEFT)
    reading, showing = (statistics.median(one[place] for one in spent) for place in (1, 2))
    longest = max(one[1] + one[2] for one in spent)
    per_s = (len(spent) - 1) / (spent[-1][0] - spent[0][0])
    return [
        (
            f"panel of {spent[-1][3]:,} rows: CPU time of a refresh / its target of 0.1 s",
            (reading + showing) / MOST_REFRESH_S,
            f"medians: reading {_ms(reading)}, showing {_ms(showing)}; longest {_ms(longest)}",
        ),
        ("… its refreshes a second / at most 4", per_s / MOST_PER_S, f"{bytes_per_s / 1000:.0f} kB/s sent"),
        (
            "… the longest answer to a cell meanwhile / its target of 0.2 s",
            max(took) / MOST_CELL_S,
            f"{_ms(max(took))}, median {_ms(statistics.median(took))} of {CELLS} cells",
        ),
        (
            f"threads, descriptors, tasks and widgets after {PANELS} of each panel / before",
            sum(after) / sum(before),
            f"{before} before, {after} after",
        ),
    ]


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms"


if __name__ == "__main__":
    print(*measure(), sep="\n")
