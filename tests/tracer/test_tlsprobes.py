"""Probes in the TLS libraries of a host."""

from __future__ import annotations

import mmap
import resource
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import netlab

pytestmark = pytest.mark.privileged

LIBRARY = next(Path("/usr/lib").glob("*/libssl.so.3"))
COPIES, MOST_OPEN = 60, 512  # a library takes a dozen descriptors


@pytest.fixture
def libraries(tmp_path: Path) -> Iterator[None]:
    """Have as many processes' libraries as there are on a host with so many containers."""
    with ExitStack() as mapped:
        for number in range(COPIES):
            place = tmp_path / str(number)
            place.mkdir()
            copy = Path(shutil.copy(LIBRARY, place / LIBRARY.name))
            with copy.open("rb") as file:
                mapped.enter_context(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        yield


@pytest.fixture
def few_files() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (MOST_OPEN, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.usefixtures("libraries", "few_files")
def test_files_are_left_for_others_to_open_and_what_is_not_probed_is_counted() -> None:
    with netlab.capture(protocols="http", clear_text=True) as capture:
        open_files = len(list(Path("/proc/self/fd").iterdir()))
        coverage = netlab.coverage(capture.requests())

    assert open_files < MOST_OPEN - MOST_OPEN // 8
    assert coverage.loc[coverage["detail"].str.contains("libraries are not probed"), "count"].item() > 0
