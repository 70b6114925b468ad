"""The numbers of bpf(2)."""

from __future__ import annotations

from enum import IntEnum

import pytest

from netlab.kernel import btf
from netlab.kernel.syscall import Command, ProgramKind


@pytest.mark.parametrize(
    ("numbers", "enum", "prefix"),
    [(Command, "bpf_cmd", "BPF_"), (ProgramKind, "bpf_prog_type", "BPF_PROG_TYPE_")],
)
def test_every_number_is_the_running_kernels(numbers: type[IntEnum], enum: str, prefix: str) -> None:
    told = btf.enumerators(enum)

    assert {number: told[number] for number in numbers} == {n: prefix + n.name for n in numbers}
