"""`%netlab` and `%%bpf` in a real kernel of Jupyter's."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager, start_new_kernel
from programs import alive, held_by, wait_until

import netlab

CONNECTS = """
struct event { __be16 port; u32 pid; char process[16]; };
BPF_PERF_OUTPUT(connects);
BPF_HASH(ports, u16);
int cgroup__inet4_connect(struct bpf_sock_addr *ctx) {
    struct event e = {};
    e.port = ctx->user_port;
    e.pid = bpf_get_current_pid_tgid() >> 32;
    bpf_get_current_comm(e.process, sizeof(e.process));
    connects.perf_submit(ctx, &e, sizeof(e));
    ports.increment(e.port);
    return 0;
}
"""
REFUSED = "import socket; sock = socket.socket(); sock.connect_ex(('127.0.0.1', 9)); sock.close()"
# Another thread of the kernel's connects while the cell of the probe is busy.
BEGIN = """
import socket, threading
done = threading.Event()
def connect_again_and_again():
    with open("/proc/thread-self/comm", "w") as name:
        name.write(NAME)
    while not done.wait(0.05):
        with socket.socket() as sock:
            sock.connect_ex(("127.0.0.1", 9))
threading.Thread(target=connect_again_and_again).start()
"""
END = "done.set()"


class Kernel:
    """A kernel with netlab's magics."""

    def __init__(self, manager: KernelManager, client: BlockingKernelClient) -> None:
        self._manager, self._client = manager, client
        self.pid = manager.provisioner.pid
        self.run("%load_ext netlab")

    def run(self, cell: str) -> list[dict[str, Any]]:
        """Run *cell* and return the content of every output, updates of a display too."""
        outputs: list[dict[str, Any]] = []

        def keep(message: dict[str, Any]) -> None:
            if message["msg_type"] in {
                "stream",
                "display_data",
                "update_display_data",
                "execute_result",
                "error",
            }:
                outputs.append(message["content"])

        self._client.execute_interactive(cell, output_hook=keep, timeout=120)
        return outputs

    def value(self, cell: str) -> str:
        """Run *cell* and return its value as text."""
        (*_, last) = self.run(cell)
        assert "ename" not in last, last
        return str(last["data"]["text/plain"])

    def error(self, cell: str) -> dict[str, Any]:
        (*_, last) = self.run(cell)
        assert "ename" in last, last
        return last

    def begin(self, cell: str) -> str:
        """Start *cell* and do not wait for it."""
        return str(self._client.execute(cell))

    def shown(self, words: str) -> None:
        """Wait until the cell that was begun shows *words*."""
        text = ""
        while not re.search(words, text):
            content = self._client.get_iopub_msg(timeout=60)["content"]
            text = content.get("data", {}).get("text/plain", "")

    def interrupt(self) -> None:
        self._manager.interrupt_kernel()

    def completed(self, line: str) -> list[str]:
        return list(self._client.complete(line, reply=True, timeout=60)["content"]["matches"])


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    manager, client = start_new_kernel(
        kernel_name="python3", extra_arguments=["--HistoryManager.enabled=False"], stderr=subprocess.DEVNULL
    )
    try:
        yield Kernel(manager, client)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        manager.cleanup_resources()


def test_importing_netlab_imports_no_ipython() -> None:
    code = "import sys, netlab; print('IPython' in sys.modules, callable(netlab.load_ipython_extension))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert run.stdout.split() == ["False", "True"]


@pytest.mark.privileged
def test_a_cell_of_c_becomes_a_frame_and_shows_its_rows(kernel: Kernel) -> None:
    kernel.run(BEGIN.replace("NAME", "'meanwhile'"))
    outputs = kernel.run(f"%%bpf --seconds 1 seen counted=ports{CONNECTS}")
    kernel.run(END)

    assert re.match(r"running after 0\.\d of 1 s; connects: ", outputs[0]["data"]["text/plain"])
    assert re.match(r"ended after 1\.\d of 1 s; connects: ", outputs[-1]["data"]["text/plain"])
    assert any("<td>meanwhile</td>" in each["data"]["text/html"] for each in outputs[1:])
    assert (
        kernel.value("mine = seen[seen['process'] == 'meanwhile']; mine['port'].unique().tolist()") == "[9]"
    )
    assert int(kernel.value("len(mine)")) > 5
    assert kernel.value("int(counted['value'].sum()) == len(seen)") == "True"
    assert kernel.value("import netlab; netlab.coverage(seen).empty") == "True"
    assert held_by(kernel.pid) == set()


@pytest.mark.alone  # others' connects would push it out of the rows that are shown
@pytest.mark.privileged
def test_hostile_names_are_shown_as_text(kernel: Kernel) -> None:
    kernel.run(BEGIN.replace("NAME", r"'<b>\u202e&x'"))
    outputs = kernel.run(f"%%bpf --seconds 1 seen{CONNECTS}")
    kernel.run(END)

    shown = "".join(each["data"]["text/html"] for each in outputs)
    assert "&lt;b&gt;\\u202e&amp;x" in shown
    assert "<b>" not in shown
    assert "\u202e" not in shown


@pytest.mark.privileged
def test_without_a_name_the_frame_is_the_cells_value(kernel: Kernel) -> None:
    text = kernel.value(
        "%%bpf --seconds 0.5\nBPF_HASH(ports, u16);\nRAW_TRACEPOINT_PROBE(sys_exit) { return 0; }"
    )

    assert "Columns: [key, value]" in text


@pytest.mark.privileged
def test_an_interrupt_ends_the_probe_and_keeps_its_rows(kernel: Kernel) -> None:
    kernel.run(BEGIN.replace("NAME", "'meanwhile'"))
    kernel.begin(f"%%bpf --seconds 600 seen{CONNECTS}")
    kernel.shown("connects: [1-9]")
    kernel.interrupt()
    kernel.run(END)

    assert "interrupted after" in kernel.value("import netlab; netlab.coverage(seen)['detail'][0]")
    assert int(kernel.value("len(seen)")) > 0
    assert held_by(kernel.pid) == set()


@pytest.mark.privileged
def test_an_interrupt_is_the_end_where_no_time_was_said(kernel: Kernel) -> None:
    kernel.begin(f"%%bpf seen{CONNECTS}")
    kernel.shown("running")
    kernel.interrupt()

    assert kernel.value("import netlab; netlab.coverage(seen).empty") == "True"


@pytest.mark.privileged
@pytest.mark.parametrize(
    ("line", "cell", "said"),
    [
        ("--seconds 1", CONNECTS.replace("e.port =", "e.prt ="), "line 7: no member named 'prt'"),
        ("--seconds 1", "int kprobe__f(void *ctx) { return 0; }", "kprobe|nothing comes out"),
        ("--seconds -1", CONNECTS, "--seconds -1.0 is not a number of seconds above 0"),
        ("--second 1", CONNECTS, "unrecognized arguments: --second"),
        ("seen=port", CONNECTS, "Did you mean 'ports'"),
        ("1a", CONNECTS, "no name for a variable"),
        ("class", CONNECTS, "no name for a variable"),
        ("'a", CONNECTS, "Close the quotation"),
        ("--binary app", CONNECTS, "has no path"),
        ("x", "BPF_HASH(a, u16); BPF_HASH(b, u16);\nRAW_TRACEPOINT_PROBE(sys_exit) { return 0; }", "several"),
        ("x", "RAW_TRACEPOINT_PROBE(sys_exit) { return 0; }", "nothing comes out"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_in_short_and_leaves_nothing(
    kernel: Kernel, line: str, cell: str, said: str
) -> None:
    error = kernel.error(f"%%bpf {line}\n{cell.lstrip()}")

    assert re.search(said, error["evalue"])
    assert len(error["traceback"]) <= 7
    assert held_by(kernel.pid) == set()


@pytest.mark.privileged
def test_a_kernel_that_is_killed_leaves_nothing_attached() -> None:
    manager, client = start_new_kernel(kernel_name="python3", stderr=subprocess.DEVNULL)
    try:
        kernel = Kernel(manager, client)
        kernel.begin(f"%%bpf --seconds 600{CONNECTS}")
        wait_until(lambda: held_by(kernel.pid))
        attached = held_by(kernel.pid)
        os.kill(kernel.pid, signal.SIGKILL)
        wait_until(lambda: not alive(attached))
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        manager.cleanup_resources()


def test_a_call_returns_the_functions_own_frame(kernel: Kernel) -> None:
    assert kernel.value("found = %netlab doctor\nfound.attrs['schema']") == "'doctor'"
    assert (
        kernel.value("hops = %netlab trace 127.0.0.1 --max-ttl 2 --no-progress\nhops.attrs['schema']")
        == "'hops'"
    )
    assert kernel.value("found = %netlab connections --port 65535\nfound.attrs['schema']") == "'connections'"


@pytest.mark.privileged
def test_a_capture_is_begun_looked_at_and_ended(kernel: Kernel) -> None:
    kernel.run("cap = %netlab capture start --port 9 --protocol tcp --no-backfill")
    assert "running already" in kernel.error("%netlab capture start")["evalue"]
    kernel.run(REFUSED)

    assert kernel.value("failed = %netlab failures\nfailed['error'].tolist()") == "['ECONNREFUSED']"
    assert kernel.value("lacks = %netlab coverage\nlacks.columns[:2].tolist()") == "['what', 'kind']"
    assert kernel.value("seen = %netlab capture\nlen(seen)") == "1"
    assert kernel.value("seen = %netlab capture stop\n(len(seen), cap.state)").startswith("(1, ")
    assert held_by(kernel.pid) == set()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("conections", "Did you mean 'connections'"),
        ("connections --prt 3", "Did you mean 'port'"),
        ("trace", "missing a required argument: 'target'. %netlab help trace"),
        ("trace a b", "too many positional arguments"),
        ("trace 'a", "Close the quotation"),
        ("capture begin", "Known: start"),
        ("failures --port 3", "takes no arguments"),
        ("coverage hops", "netlab.coverage(frame)"),
        ("dns www.example", "takes no arguments"),
        ("capture start --protocols http,dms", "Did you mean 'dns'"),
        ("connections --port 443 --port 80", "--port is given twice. Several values have commas"),
        ("doctor --all", "It takes none"),
        ("connections --port http", "port"),
        ("trace 127.0.0.1 --port __import__('os').getpid()", "port"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_call_is_told_in_one_line(kernel: Kernel, line: str, said: str) -> None:
    error = kernel.error(f"%netlab {line}")

    assert said in error["evalue"]
    assert len(error["traceback"]) == 1


def test_help_names_every_call_and_says_what_one_takes(kernel: Kernel) -> None:
    assert {"connections", "trace", "capture"} <= {
        line.split()[1] for line in kernel.value("%netlab").splitlines()
    }
    assert "--max-ttl" in kernel.value("%netlab help trace")
    assert "Find the routers" in kernel.value("%netlab help trace")
    assert "--duration-s" in kernel.value("%netlab help capture")


def test_every_word_of_the_list_has_help_and_is_completed(kernel: Kernel) -> None:
    words = [line.split()[1] for line in kernel.value("%netlab").splitlines()]

    assert all(kernel.value(f"%netlab help {word}").startswith(f"%netlab {word}") for word in words)
    assert set(words) <= set(kernel.completed("%netlab help "))


@pytest.mark.parametrize(
    ("line", "first", "without"),
    [
        ("%netlab con", ["connections", "conntrack"], "trace"),
        ("hops = %netlab tra", ["trace"], "nat"),
        ("%netlab trace host --max", ["--max-ttl"], "--port"),
        ("%netlab capture st", ["start", "stop"], "trace"),
        ("%netlab help rou", ["routes"], "trace"),
    ],
)
def test_calls_and_options_are_completed(kernel: Kernel, line: str, first: list[str], without: str) -> None:
    found = kernel.completed(line)

    assert found[: len(first)] == first
    assert without not in found


def test_the_extension_can_be_loaded_again_and_taken_away() -> None:
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell()
    try:
        shell.run_line_magic("load_ext", "netlab")
        shell.run_line_magic("reload_ext", "netlab")
        assert shell.run_line_magic("netlab", "doctor").attrs["schema"] == "doctor"
        assert "--seconds N" in shell.find_magic("bpf", "cell").__doc__
        shell.run_line_magic("unload_ext", "netlab")
        assert shell.find_magic("netlab") is None
    finally:
        shell.history_manager.end_session()  # type: ignore[union-attr]
    assert Path(netlab.__file__).exists()
