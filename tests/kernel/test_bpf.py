"""Compiling, checking, attaching and reading eBPF programs."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from programs import tcp_program

from netlab.errors import CapabilityError, KernelError, ProgramError
from netlab.kernel import bpf, btf, capabilities, compiler
from netlab.tracer.layout import ATTEMPT, NUMBERS


@pytest.mark.privileged
def test_bcc_is_found_from_a_virtual_environment() -> None:
    assert hasattr(compiler.load_bcc(), "BPF")


@pytest.mark.privileged
def test_a_layout_that_differs_from_the_c_struct_does_not_compile() -> None:
    names = list(ATTEMPT.names or ())
    swapped = [*names[:5], names[6], names[5], *names[7:]]
    moved = np.dtype([(name, ATTEMPT[name]) for name in swapped])

    with pytest.raises(ProgramError, match="has moved"):
        tcp_program(moved)


@pytest.mark.privileged
def test_a_number_that_differs_from_the_c_constant_does_not_compile() -> None:
    with pytest.raises(ProgramError, match="NETLAB_MAP_FULL is another number"):
        tcp_program(numbers=NUMBERS | {"NETLAB_MAP_FULL": NUMBERS["NETLAB_MAP_FULL"] + 1})


@pytest.mark.privileged
def test_a_compile_error_is_one_short_line_and_the_log_has_the_rest() -> None:
    with pytest.raises(ProgramError) as caught:
        tcp_program(NETLAB_CHANGES="no_such_name")

    assert "bpf/tcp.c" in str(caught.value)
    assert len(str(caught.value)) < 400
    assert "no_such_name" in caught.value.log


@pytest.mark.privileged
def test_an_unknown_tracepoint_is_refused_with_its_name() -> None:
    with tcp_program() as tcp, pytest.raises(KernelError, match="no_such_event"):
        tcp.attach_typed_tracepoint("netlab_state_changed", "no_such_event")


@pytest.mark.privileged
def test_programs_name_types_where_the_kernel_takes_their_word() -> None:
    assert bool(bpf.cast_macros("sk_buff")) == (capabilities.kernel_version() >= (6, 2))
    assert bpf.cast_macros("sk_buff", "no_such_struct") == {}


@pytest.mark.privileged
def test_a_ring_gives_every_record_once_also_across_its_end() -> None:
    wanted = 3 * (64 * 4096) // 240  # three times round
    seen = []
    with tcp_program() as tcp, socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        ring = tcp.ring("netlab_reports", ATTEMPT)
        tcp.attach_typed_tracepoint("netlab_state_changed", "inet_sock_set_state")
        port = listener.getsockname()[1]
        while sum(map(len, seen)) < wanted:
            with socket.create_connection(("127.0.0.1", port)):
                listener.accept()[0].close()
            records = ring.read()
            seen.append(records[(records["remote_port"] == port) | (records["local_port"] == port)])

    opened = np.concatenate(seen)["opened_ns"]
    assert len(opened) >= wanted
    assert len(np.unique(opened)) == len(opened)


@pytest.mark.privileged
def test_closing_twice_is_fine() -> None:
    tcp = tcp_program()
    tcp.close()
    tcp.close()


@pytest.mark.privileged
def test_the_header_tree_is_made_once_and_compiles_nothing_foreign() -> None:
    tree = btf.header_tree()

    assert btf.header_tree() == tree
    assert "struct tcp_sock {" in (tree / "include/vmlinux.h").read_text(encoding="utf-8")


@pytest.mark.privileged
def test_a_header_tree_can_be_made_in_an_empty_home(tmp_path: object) -> None:
    script = "from netlab.kernel import btf; print(btf.header_tree())"
    environment = {"PATH": "/usr/bin:/usr/sbin", "HOME": str(tmp_path)}

    run = subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    assert run.stdout.startswith(f"{tmp_path}/.cache/netlab/headers-")


@pytest.mark.privileged
def test_a_cache_that_cannot_be_written_is_refused_with_the_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")

    with pytest.raises(CapabilityError, match=r"/proc/nowhere/netlab.*XDG_CACHE_HOME"):
        btf.header_tree("struct tcp_sock")


@pytest.mark.privileged
def test_others_who_use_bcc_keep_their_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BCC_KERNEL_SOURCE", "/usr/src/theirs")
    with tcp_program():
        assert os.environ["BCC_KERNEL_SOURCE"] == "/usr/src/theirs"
    monkeypatch.delenv("BCC_KERNEL_SOURCE")
    with tcp_program():
        assert "BCC_KERNEL_SOURCE" not in os.environ


@pytest.mark.parametrize(
    ("release", "numbers"),
    [
        ("6.12.41+deb13-amd64", (6, 12, 41)),
        ("6.6.31+rpt-rpi-v8", (6, 6, 31)),
        ("6.18.0+", (6, 18, 0)),
        ("6.1-rc3", (6, 1, 0)),
    ],
)
def test_a_kernel_release_of_any_distribution_has_a_version(
    release: str, numbers: tuple[int, int, int]
) -> None:
    assert btf.version(release) == numbers


@pytest.mark.privileged
def test_programs_can_be_compiled_in_several_threads_at_once() -> None:
    def compiled() -> str:
        with tcp_program() as tcp:
            return tcp.name

    with ThreadPoolExecutor(3) as pool:
        names = [future.result() for future in [pool.submit(compiled) for _ in range(3)]]

    assert names == ["bpf/tcp.c"] * 3
