"""Names of kernel functions are those of its source, whatever the compiler made of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from netlab.kernel.symbols import Symbols


@pytest.mark.privileged  # the kernel hides addresses from others
def test_a_copy_that_the_compiler_has_made_has_the_name_of_its_function() -> None:
    lines = [line.split() for line in Path("/proc/kallsyms").read_text().splitlines()]
    code = [(int(address, 16), name) for address, kind, name, *_ in lines if kind in "tT"]
    copies = {address: name for address, name in code if ".isra." in name or ".constprop." in name}

    names = Symbols().names(np.array(list(copies), np.uint64))

    assert len(copies) > 100
    assert names.tolist() == [name.partition(".")[0] for name in copies.values()]
