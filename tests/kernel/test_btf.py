"""The header tree against the kernel's own type information."""

from __future__ import annotations

import ctypes
import json
import os
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from netlab.kernel import btf, compiler, syscall

READ = {
    "sock",
    "sock_common",
    "inet_sock",
    "inet_connection_sock",
    "tcp_sock",
    "ipv6_pinfo",
    "net",
    "netns_ipv6",
}
READ |= {"task_struct", "fib6_info", "fib6_result", "flowi4", "flowi6", "sk_buff", "net_device", "mm_struct"}
READ |= {"css_set", "cgroup", "cgrp_cset_link", "kernfs_node", "pid", "cred", "dst_entry", "iphdr", "ipv6hdr"}
Struct = dict[str, Any]


def structs() -> tuple[list[Struct], dict[int, Struct]]:
    """Return the structs that the programs read, and every type by its number."""
    run = subprocess.run(
        ["bpftool", "-j", "btf", "dump", "file", str(btf.VMLINUX)], capture_output=True, check=True
    )
    types = {each["id"]: each for each in json.loads(run.stdout)["types"]}
    read = [each for each in types.values() if each["kind"] == "STRUCT" and each["name"] in READ]
    assert {struct["name"] for struct in read} == READ
    return read, types


def members(struct: Struct, types: dict[int, Struct], base: int = 0) -> Iterator[tuple[str, int]]:
    """Yield members and offsets, of nameless structs inside too; bit-fields have no address."""
    for member in struct["members"]:
        offset = base + member["bits_offset"]
        if member["name"] == "(anon)":
            yield from members(types[member["type_id"]], types, offset)
        elif not member.get("bitfield_size"):
            yield member["name"], offset // 8


@pytest.mark.privileged
@pytest.mark.kernels
def test_every_member_is_read_from_where_the_kernel_has_it() -> None:
    """What offsetof says is not enough: clang has been seen to compute another address than that."""
    read, types = structs()
    places = [(each["name"], *place) for each in read for place in members(each, types)]
    stores = "".join(
        f"at->of[{number}] = (u64)&((struct {name} *)base)->{member} - (u64)base;\n"
        for number, (name, member, _) in enumerate(places)
    )
    source = f"""
        struct netlab_places {{ u64 of[{len(places)}]; }};
        BPF_ARRAY(netlab_at, struct netlab_places, 1);
        int netlab_find(struct bpf_raw_tracepoint_args *ctx) {{
            u32 zero = 0;
            struct netlab_places *at = netlab_at.lookup(&zero);
            void *base = (void *)bpf_get_current_task();
            if (!at)
                return 0;
            {stores}
            return 0;
        }}
    """
    os.environ["BCC_KERNEL_SOURCE"] = str(btf.header_tree(source))
    program = compiler.load_bcc().BPF(text=source.encode(), cflags=["-Wno-everything"])
    loaded = program.load_func(b"netlab_find", 17)  # BPF_PROG_TYPE_RAW_TRACEPOINT
    test_run = struct.pack("=IIIIQQIIIIQQII", loaded.fd, *[0] * 13)
    assert syscall.bpf(10, test_run) == 0  # BPF_PROG_TEST_RUN
    found = list(program[b"netlab_at"][ctypes.c_int(0)].of)
    program.cleanup()

    assert len(places) > 1000
    wrong = [
        f"{name}.{member}: {offset}, read from {place}"
        for (name, member, offset), place in zip(places, found, strict=True)
        if offset != place
    ]
    assert wrong == []


@pytest.mark.privileged
@pytest.mark.parametrize(
    ("struct", "field", "there"),
    [("tcp_sock", "bytes_retrans", True), ("tcp_sock", "chrono_stat", True), ("tcp_sock", "cookies", False)],
)
def test_a_field_is_found_only_where_the_kernel_has_it(struct: str, field: str, there: bool) -> None:
    assert btf.has_field(struct, field) == there


@pytest.mark.privileged
@pytest.mark.parametrize("file", ["include/vmlinux.h", "include/linux/kconfig.h"])
@pytest.mark.parametrize("part", [0, 0.5])
def test_a_header_tree_that_is_damaged_is_made_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, file: str, part: float
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    damaged = btf.header_tree("struct sock sk;") / file
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[: int(len(whole) * part)])

    assert (btf.header_tree("struct sock sk;") / file).read_bytes() == whole
