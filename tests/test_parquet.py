from __future__ import annotations

import contextlib
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings, strategies as st

from netlab import parquet
from netlab.schemas import CONNTRACK

ROWS = 40
GOOD = parquet.write(
    CONNTRACK.frame(
        {
            "protocol": ["tcp", "udp"] * (ROWS // 2),
            "src": [f"192.0.2.{row}" for row in range(ROWS)],
            "packets": np.ma.masked_less(np.arange(ROWS), 7),
        }
    ),
    CONNTRACK,
)


def read(data: bytes, most_bytes: int = 1 << 20) -> object:
    return parquet.read([data], CONNTRACK, rows=ROWS, missing=[], most_bytes=most_bytes, made_by="0")


@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=6))
@settings(max_examples=400, deadline=None)
def test_damaged_bytes_are_refused_or_read_but_never_crash_later(damage: list[tuple[int, int]]) -> None:
    data = bytearray(GOOD)
    for place, byte in damage:
        data[place] = byte

    with contextlib.suppress(ValueError, OSError, KeyError, pa.ArrowException):
        assert len(str(read(bytes(data)))) > 0


def test_more_rows_than_memory_allows_are_refused() -> None:
    with pytest.raises(ValueError, match="most_bytes"):
        read(GOOD, most_bytes=ROWS * len(CONNTRACK.columns))


MANY = """
import resource

from netlab import parquet
from netlab.schemas import CONNECTIONS

piece = parquet.write(CONNECTIONS.frame({"cookie": [1], "process": ["curl"]}), CONNECTIONS, {})


def read(pieces):
    return parquet.read(
        [piece] * pieces, CONNECTIONS, rows=None, missing=[], most_bytes=1 << 30, made_by="0"
    )


def peak_bytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


read(100)
before = peak_bytes()
assert len(read(800)) == 800
print(peak_bytes() - before)
"""


def test_many_small_parts_take_little_more_memory_than_few() -> None:
    done = subprocess.run([sys.executable, "-c", MANY], capture_output=True, text=True, check=True)

    assert int(done.stdout) < 60 << 20  # a recording of a day has some 17,000 parts
