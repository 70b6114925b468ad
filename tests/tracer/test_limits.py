"""How large the programs' maps are made."""

from __future__ import annotations

import re

from netlab.kernel import bpf
from netlab.tracer.limits import Limits

_SIZED = re.compile(
    r"^BPF_(?:TABLE\((?:[^,]+, ){3}|\w+\()(netlab_\w+),.*\bNETLAB_SIZED\);|^BPF_.*\bNETLAB_SIZED\b",
    re.MULTILINE,
)


def test_every_map_whose_size_the_programs_leave_open_is_given_one() -> None:
    files = (bpf.source(file.name) for file in bpf.sources().glob("*.[ch]"))
    assert sorted(name for text in files for name in _SIZED.findall(text)) == sorted(Limits().sizes())
