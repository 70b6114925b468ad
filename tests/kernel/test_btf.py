"""The header tree against the kernel's own type information."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from netlab.kernel import bpf, btf

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
READ |= {"task_struct", "fib6_info", "fib6_result", "flowi4", "flowi6", "sk_buff", "net_device"}


def true_layout() -> list[str]:
    """Return a C assertion for each member of the structs that the programs read, from BTF."""
    run = subprocess.run(
        ["bpftool", "-j", "btf", "dump", "file", str(btf.VMLINUX)], capture_output=True, check=True
    )
    structs = [t for t in json.loads(run.stdout)["types"] if t["kind"] == "STRUCT" and t["name"] in READ]
    assert {struct["name"] for struct in structs} == READ
    return [
        f"_Static_assert(__builtin_offsetof(struct {struct['name']}, {member['name']})"
        f' == {member["bits_offset"] // 8}, "{struct["name"]}.{member["name"]} is elsewhere");'
        for struct in structs
        for member in struct["members"]
        if member["name"] != "(anon)" and not member.get("bitfield_size")
    ]


@pytest.mark.privileged
def test_every_member_is_where_the_kernel_has_it() -> None:
    os.environ["BCC_KERNEL_SOURCE"] = str(btf.header_tree())
    checks = true_layout()

    compiled = bpf.load_bcc().BPF(text="\n".join(checks).encode(), cflags=["-Wno-everything"])

    assert len(checks) > 500
    compiled.cleanup()


@pytest.mark.privileged
@pytest.mark.parametrize(
    ("struct", "field", "there"),
    [("tcp_sock", "bytes_retrans", True), ("tcp_sock", "chrono_stat", True), ("tcp_sock", "cookies", False)],
)
def test_a_field_is_found_only_where_the_kernel_has_it(struct: str, field: str, there: bool) -> None:
    assert btf.has_field(struct, field) == there
