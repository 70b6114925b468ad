"""A million open attempts: from the BPF map to the DataFrame."""

from __future__ import annotations

import statistics
import struct
import time

import numpy as np

from netlab.kernel import syscall
from netlab.kernel.bpf import Program
from netlab.tracer import rows
from netlab.tracer.filters import Filter
from netlab.tracer.layout import ATTEMPT
from netlab.tracer.limits import Limits
from netlab.tracer.macros import kernel_macros
from netlab.tracer.merge import merge
from netlab.tracer.owners import Owners, Processes
from netlab.tracer.snapshot import Snapshot
from netlab.tracer.translated import NatTable

ENTRIES = 1_000_000
ROUNDS = 3
_UPDATE_BATCH = 26  # BPF_MAP_UPDATE_BATCH, include/uapi/linux/bpf.h


def measure() -> list[tuple[str, float, str]]:
    settings = Filter().macros() | kernel_macros()
    sizes = Limits(max_open=ENTRIES + ENTRIES // 8).sizes()
    with Program("tcp", settings=settings, layouts={"netlab_attempt": ATTEMPT}, sizes=sizes) as tcp:
        table = tcp.map("netlab_open", "u8", ATTEMPT)
        _fill(tcp.descriptor("netlab_open"))
        read, built = [], []
        for _ in range(ROUNDS):
            start = time.perf_counter()
            records = table.items()[1]
            middle = time.perf_counter()
            merged = merge(np.empty(0, ATTEMPT), records, Snapshot.empty(), Snapshot.empty(), now_ns=0)
            owners = Owners.of(Processes.none(), running=lambda _: {})
            frame = rows.connections(
                merged, to_utc_ns=0, now_ns=0, owners=owners, nat=NatTable.nothing(), missing=[]
            )
            end = time.perf_counter()
            assert len(frame) == ENTRIES
            read.append(middle - start)
            built.append(end - middle)
    reading, building = statistics.median(read), statistics.median(built)
    detail = (
        f"read {reading:.2f} s, {ATTEMPT.itemsize} bytes each; frame {building:.2f} s; target 0.6 s in all"
    )
    return [("1 M map entries: map and frame / reading the map", (reading + building) / reading, detail)]


def _fill(table: int) -> None:
    values = np.zeros(ENTRIES, ATTEMPT)
    numbers = np.arange(1, ENTRIES + 1)
    values["socket"] = values["cookie"] = values["opened_ns"] = numbers
    values["family"], values["direction"], values["pid"], values["pid_source"] = 2, 1, numbers % 500, 1
    values["process"] = b"bench"
    values["local_address"][:, :4] = [10, 0, 0, 1]
    values["remote_address"][:, :4] = numbers.astype(">u4").view(np.uint8).reshape(-1, 4)
    values["local_port"], values["remote_port"] = numbers % 60_000, 443
    keys = numbers.astype("u8")
    batch = struct.pack("=QQQQIIQQ", 0, 0, keys.ctypes.data, values.ctypes.data, ENTRIES, table, 0, 0)
    assert syscall.bpf(_UPDATE_BATCH, batch) == 0


if __name__ == "__main__":
    print(*measure(), sep="\n")
