"""conntrack(): 200,000 entries to a DataFrame, against the raw dump, conntrack(8) and pyroute2.

Then 1,000 to 1,000,000 entries, the memory it takes, and 20,000 new flows a second heard as events.

The entries are put into a network namespace of this benchmark's own by ctnetlink. Each run measures all in
turn, and a ratio is the median over the runs. Needs root.
"""

from __future__ import annotations

import os
import socket
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from pyroute2 import Conntrack, NFCTSocket

import netlab
from netlab.kernel import netlink, netns

ENTRIES = 200_000
FEWER = 4_000  # for pyroute2, whose time grows in proportion: 200,000 would take most of a minute
RUNS = 7
NETFILTER = 12
NEW, GET = 0x100, 0x101  # (NFNL_SUBSYS_CTNETLINK << 8) | IPCTNL_MSG_CT_NEW or IPCTNL_MSG_CT_GET
REQUEST, ACK, DUMP, CREATE = 0x001, 0x004, 0x300, 0x400
DONE = 3
BATCH = 400  # messages in one send
SIZES = (1_000, 10_000, 100_000, 1_000_000)
MOST = Path("/proc/sys/net/netfilter/nf_conntrack_max")
STORM = Path(__file__).parent.parent / "tests" / "support" / "storm.py"
RULES = """
table ip bench {
    chain out {
        type filter hook output priority 0
        ct state new accept
    }
}
"""


def measure() -> list[tuple[str, float, str]]:
    with filled(ENTRIES):
        times = timed(
            {"DataFrame": dataframe, "raw receive of the dump": raw, "conntrack -L": conntrack_tool}
        )
        # Of a machine that others use, too, the processor's time says more than the wall clock's.
        used = timed({"DataFrame": dataframe, "raw receive of the dump": raw}, clock=time.thread_time)
    with filled(FEWER):  # apart: the millions of objects it makes slow down what follows
        times |= timed({"pyroute2 Conntrack": pyroute2_entries, "pyroute2 NFCTSocket": pyroute2_messages})
    what, ratio, detail = row(used, "DataFrame", "raw receive of the dump", "target at most 1.5")
    return [*compared(times), (f"{what}, processor time", ratio, detail), *scaled(), *stormed()]


def compared(times: dict[str, list[float]]) -> list[tuple[str, float, str]]:
    scaled = f"in proportion from {FEWER} entries; target at least 50"
    return [
        row(times, "DataFrame", "raw receive of the dump", "target at most 1.5"),
        row(times, "conntrack -L", "DataFrame", "its output thrown away; target above 1"),
        row(times, "pyroute2 Conntrack", "DataFrame", scaled),
        row(times, "pyroute2 NFCTSocket", "DataFrame", scaled),
    ]


def scaled() -> list[tuple[str, float, str]]:
    """Time and memory for 1,000 to 1,000,000 entries; a ratio of times is per entry, to that of 100,000."""
    seconds, memory = {}, {}
    with most_entries(1_200_000):
        for entries in SIZES:
            with filled(entries):
                tasks = {"frame": lambda: len(netlab.conntrack()), "raw": partial(raw, entries)}
                runs = timed(tasks, runs=3)
                seconds[entries] = {name: entries * statistics.median(taken) for name, taken in runs.items()}
                memory[entries] = peak()
    usual = {name: taken / 100_000 for name, taken in seconds[100_000].items()}
    times = [
        (
            f"{entries:,} conntrack entries: time of each / at 100,000",
            took["frame"] / entries / usual["frame"],
            f"{took['frame']:.3f} s; raw: {took['raw'] / entries / usual['raw']:.2f}, {took['raw']:.3f} s",
        )
        for entries, took in seconds.items()
    ]
    entries = SIZES[-1]
    grown, dump = memory[entries]
    detail = f"{grown / 1e6:.0f} MB / {dump / 1e6:.0f} MB; target at most 4"
    return [*times, (f"{entries:,} conntrack entries: peak memory / the dump's bytes", grown / dump, detail)]


def peak() -> tuple[int, int]:
    """Return by how many bytes a process grows while it lists the entries, and how long their dump is."""
    code = (
        "import re, netlab\n"
        "from pathlib import Path\n"
        "def kib(name):\n"
        "    return int(re.search(name + r':\\s+(\\d+)', Path('/proc/self/status').read_text())[1])\n"
        "netlab.conntrack(port=1, mark=1)\n"
        "Path('/proc/self/clear_refs').write_text('5')  # VmHWM begins anew\n"
        "before = kib('VmRSS')\n"
        "netlab.conntrack()\n"
        "print(1024 * (kib('VmHWM') - before))\n"
    )
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    dump = netlink.dump(NETFILTER, GET, bytes(4), doing="list conntrack entries")
    return int(said), dump.words.nbytes


def stormed() -> list[tuple[str, float, str]]:
    """Hear new flows for 10 s at 20,000 a second: each heard or counted."""
    flows = 200_000
    with most_entries(1_200_000), filled(0):
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        subprocess.run(["sysctl", "-qw", "net.netfilter.nf_conntrack_udp_timeout=3600"], check=True)
        subprocess.run(["nft", "-f", "-"], check=True, text=True, input=RULES)
        used = time.process_time()
        with netlab.conntrack_events() as events:
            start = time.perf_counter()
            subprocess.run([sys.executable, str(STORM), str(flows), "20000"], check=True)
            took = time.perf_counter() - start
        used = time.process_time() - used
        heard = int((events.events().event == "new").sum())
        gaps = netlab.coverage(events.events())
        lost = int(gaps[gaps["kind"] == "lost"]["count"].sum())
        same = set(events.table().id) == set(netlab.conntrack().id)
    table = "equals" if same else "IS NOT"
    detail = f"{heard:,} heard, {lost:,} counted as lost, in {took:.1f} s; the table {table} a dump"
    return [
        ("200,000 new flows: heard or counted / sent", (heard + lost) / flows, detail),
        ("200,000 new flows: processor time of listening / wall time", used / took, "20,000 a second"),
    ]


@contextmanager
def most_entries(most: int) -> Iterator[None]:
    """Let namespaces track so many connections for the time of the block."""
    usual = MOST.read_text()
    MOST.write_text(str(max(most, int(usual))))
    try:
        yield
    finally:
        MOST.write_text(usual)


def row(times: dict[str, list[float]], one: str, other: str, note: str) -> tuple[str, float, str]:
    """Compare two tasks run by run: a slow moment of the machine then counts for both."""
    ratio = statistics.median(first / second for first, second in zip(times[one], times[other], strict=True))
    first, second = (ENTRIES * statistics.median(times[name]) for name in (one, other))
    return f"200,000 conntrack entries: {one} / {other}", ratio, f"{first:.2f} s / {second:.2f} s; {note}"


def timed(
    tasks: dict[str, Callable[[], int]], *, runs: int = RUNS, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Run every task in turn, *runs* times after one to warm up, and return its seconds per entry."""
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for run in range(runs + 1):
        for name, task in tasks.items():
            start = clock()
            entries = task()
            elapsed = clock() - start
            if run:
                times[name].append(elapsed / entries)
    return times


def dataframe() -> int:
    entries = len(netlab.conntrack())
    assert entries == ENTRIES
    return entries


def raw(entries: int = ENTRIES) -> int:
    """Receive the dump into one buffer, block over block, and look only for its end."""
    buffer, end = bytearray(1 << 16), struct.Struct("=IH")
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETFILTER) as kernel:
        kernel.send(struct.pack("=IHHII", 20, GET, REQUEST | DUMP, 1, 0) + bytes(4))
        while True:
            got = kernel.recv_into(buffer)
            if end.unpack_from(buffer, got - 20) == (20, DONE):
                return entries  # which the frame of the same dump counts


def conntrack_tool() -> int:
    said = subprocess.run(
        ["conntrack", "-L"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ).stderr
    return int(said.split()[3])


def pyroute2_entries() -> int:
    with Conntrack() as kernel:
        return sum(1 for _ in kernel.dump_entries())


def pyroute2_messages() -> int:
    """Dump messages with undecoded attributes, half the way to a table; IPv4 only."""
    with NFCTSocket() as kernel:
        return sum(1 for _ in kernel.dump())


@contextmanager
def filled(entries: int) -> Iterator[None]:
    """Run the block inside a new network namespace that tracks so many connections.

    The namespace is that of a child which reads until this process ends, however that happens: one that
    stayed behind with a million entries would slow down every capture on this host.
    """
    with subprocess.Popen(
        ["unshare", "--net", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        holder.stdin.write(b"\n")
        holder.stdin.flush()
        holder.stdout.readline()  # it has its namespace
        with netns.entered(holder.pid):
            subprocess.run(["sysctl", "-qw", "net.netfilter.nf_conntrack_acct=1"], check=True)
            fill(entries)
            yield
        holder.stdin.close()


def attribute(kind: int, payload: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(payload), kind) + payload + bytes(-len(payload) % 4)


def nested(kind: int, *parts: bytes) -> bytes:
    return attribute(kind | 0x8000, b"".join(parts))


def endpoint_pair(kind: int, protocol: int, source: tuple[bytes, int], target: tuple[bytes, int]) -> bytes:
    first = 1 if len(source[0]) == 4 else 3  # CTA_IP_V4_SRC or CTA_IP_V6_SRC
    return nested(
        kind,
        nested(1, attribute(first, source[0]), attribute(first + 1, target[0])),
        nested(
            2,
            attribute(1, bytes([protocol])),
            attribute(2, source[1].to_bytes(2, "big")),
            attribute(3, target[1].to_bytes(2, "big")),
        ),
    )


def entry(number: int) -> bytes:
    """Make the body that creates one entry: seven in eight TCP, the rest UDP; one in 16 over IPv6."""
    protocol = 17 if number % 8 == 0 else 6
    spread = number.to_bytes(4, "big")
    if number % 16 == 1:
        client, server = bytes(12) + spread, socket.inet_pton(socket.AF_INET6, "2001:db8::53")
    else:
        client, server = b"\x0a" + spread[1:], bytes([203, 0, 113, number % 251])
    source, target = (client, 1024 + number % 60_000), (server, 443)
    tuples = endpoint_pair(1, protocol, source, target) + endpoint_pair(2, protocol, target, source)
    state = nested(4, nested(1, attribute(1, b"\x03"))) if protocol == 6 else b""
    family = socket.AF_INET if len(client) == 4 else socket.AF_INET6
    status = attribute(3, (0xE).to_bytes(4, "big"))  # seen-reply, assured, confirmed
    lives = attribute(7, (86_400).to_bytes(4, "big"))
    return bytes([family, 0, 0, 0]) + tuples + status + lives + attribute(8, spread) + state


def fill(entries: int) -> None:
    """Put *entries* into the calling thread's namespace."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETFILTER) as kernel:
        kernel.bind((0, 0))
        for first in range(0, entries, BATCH):
            numbers = range(first, min(first + BATCH, entries))
            kernel.send(
                b"".join(
                    struct.pack(
                        "=IHHII",
                        16 + len(body),
                        NEW,
                        REQUEST | CREATE | (ACK if number == numbers[-1] else 0),
                        number,
                        0,
                    )
                    + body
                    for number, body in ((number, entry(number)) for number in numbers)
                )
            )
            answer = kernel.recv(1 << 16)
            code = struct.unpack_from("=i", answer, 16)[0]
            if code:
                raise OSError(-code, f"entry: {os.strerror(-code)}")


if __name__ == "__main__":
    for what, ratio, detail in measure():
        print(f"{what:<68} {ratio:8.2f}  {detail}")
