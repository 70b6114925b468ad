"""A capture that is interrupted at whatever moment: it says what it is, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from loopback import Echo

import netlab
from netlab.kernel.ringbuf import RingBuffer
from netlab.tracer import snapshot
from netlab.tracer.session import Capture

# A file that an interrupt came upon before its `with` did is closed all the same, and Python says so.
CLOSED_LATE = "ignore::pytest.PytestUnraisableExceptionWarning"
pytestmark = [pytest.mark.privileged, pytest.mark.filterwarnings(CLOSED_LATE)]
MOMENTS = 8


def held() -> list[str]:
    """Return the descriptors of this process that a capture holds."""
    targets = [str(file.readlink()) for file in Path("/proc/self/fd").iterdir() if file.is_symlink()]
    return sorted(target for target in targets if "bpf" in target or "event" in target)


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("netlab-")}


@contextlib.contextmanager
def interrupted_after(seconds: float) -> Iterator[None]:
    """Interrupt the main thread once, as Ctrl-C does, if the block takes that long."""

    def interrupt(*_: object) -> None:
        signal.raise_signal(signal.SIGINT)

    usual = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, usual)


def duration_s(work: Callable[[], object]) -> float:
    begun = time.monotonic()
    work()
    return time.monotonic() - begun


def test_a_start_that_is_interrupted_at_any_moment_leaves_nothing_behind() -> None:
    with netlab.capture():
        pass  # the first one takes longer
    capture = netlab.capture()
    whole_s = duration_s(capture.start)
    capture.stop()
    before, times = held(), 0
    for delay_s in np.linspace(0.001, whole_s, MOMENTS):
        capture = netlab.capture()
        try:
            with interrupted_after(delay_s):
                capture.start()
        except KeyboardInterrupt:
            times += capture.state == "new"
        if capture.state == "running":  # it was too late
            capture.stop()
        assert capture.state in {"new", "stopped"}
        assert (held(), threads()) == (before, set())

    assert times


def test_a_start_for_which_there_are_too_few_descriptors_leaves_none_behind() -> None:
    with netlab.capture(nat=False):
        pass  # what is opened once for all is there by now
    before, limits = held(), resource.getrlimit(resource.RLIMIT_NOFILE)
    for more in range(2, 26, 4):
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (len([*Path("/proc/self/fd").iterdir()]) + more, limits[1])
        )
        try:
            with pytest.raises((netlab.NetlabError, OSError)):
                netlab.capture(nat=False).start()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert (held(), threads()) == (before, set())


def test_a_stop_without_descriptors_left_fails_once_leaves_nothing_behind_and_keeps_what_was_seen(
    echo: Echo,
) -> None:
    before, limits = held(), resource.getrlimit(resource.RLIMIT_NOFILE)
    capture = netlab.capture(port=echo.port, nat=False, backfill=False).start()
    echo.talk(4, 5)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1, limits[1]))
    try:
        with pytest.raises((netlab.NetlabError, OSError)):
            capture.stop()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    capture.stop()

    assert capture.state == "stopped"
    assert (held(), threads()) == (before, set())
    rows = capture.connections()
    assert len(rows) == 2
    assert netlab.coverage(rows)["detail"].str.contains("Too many open files").any()


def test_a_stop_that_is_interrupted_at_any_moment_can_be_made_again(echo: Echo) -> None:
    def started() -> Capture:
        capture = netlab.capture(port=echo.port, nat=False).start()
        echo.talk(4, 5)
        return capture

    before = held()
    started().stop()
    capture = started()
    whole_s, times = duration_s(capture.stop), 0
    for delay_s in np.linspace(0.0005, whole_s, MOMENTS):
        capture = started()
        try:
            with interrupted_after(delay_s):
                capture.stop()
        except KeyboardInterrupt:
            times += 1
        capture.stop()
        assert capture.state == "stopped"
        assert len(capture.connections()) == 2
        assert (held(), threads()) == (before, set())

    assert times


def test_an_interrupt_in_the_middle_of_a_look_loses_no_row(
    echo: Echo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "netlab.tracer.live._DRAIN_EVERY_S", 60
    )  # so that the look takes over what was reported
    read = RingBuffer.read

    def read_and_interrupt(ring: RingBuffer) -> npt.NDArray[np.void]:
        records = read(ring)
        if len(records):
            signal.raise_signal(signal.SIGINT)
        return records

    with netlab.capture(port=echo.port, nat=False) as capture:
        echo.talk(4, 5)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.connect(("127.0.0.1", echo.port))
            client.send(b"datagram")
        with monkeypatch.context() as patch:
            patch.setattr(RingBuffer, "read", read_and_interrupt)
            with pytest.raises(KeyboardInterrupt):
                capture.connections()

    assert sorted(capture.connections()["protocol"]) == ["tcp", "tcp", "udp"]


def test_a_signal_handler_that_stops_the_capture_in_the_middle_of_an_answer_waits_for_it(
    echo: Echo, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = RingBuffer.read

    def read_and_signal(ring: RingBuffer) -> npt.NDArray[np.void]:
        if threading.current_thread() is threading.main_thread():
            signal.raise_signal(signal.SIGUSR1)
        return read(ring)

    before = held()
    capture = netlab.capture(port=echo.port, nat=False).start()
    usual = signal.signal(signal.SIGUSR1, lambda *_: capture.stop())
    try:
        echo.talk(4, 5)
        with monkeypatch.context() as patch:
            patch.setattr(RingBuffer, "read", read_and_signal)
            answer = capture.connections()
    finally:
        signal.signal(signal.SIGUSR1, usual)

    assert len(answer) == len(capture.connections()) == 2
    assert capture.state == "stopped"
    assert (held(), threads()) == (before, set())


def test_a_start_that_a_signal_handler_stops_is_whole_and_then_stopped(
    echo: Echo, monkeypatch: pytest.MonkeyPatch
) -> None:
    take, before = snapshot.take, held()

    def take_and_signal(*spaces: Any, **options: Any) -> snapshot.Snapshot:
        signal.raise_signal(signal.SIGUSR1)
        return take(*spaces, **options)

    capture = netlab.capture(port=echo.port, nat=False)
    usual = signal.signal(signal.SIGUSR1, lambda *_: capture.stop())
    try:
        with monkeypatch.context() as patch:
            patch.setattr("netlab.tracer.snapshot.take", take_and_signal)
            capture.start()
    finally:
        signal.signal(signal.SIGUSR1, usual)

    assert capture.state == "stopped"
    assert capture.connections().empty
    assert (held(), threads()) == (before, set())
