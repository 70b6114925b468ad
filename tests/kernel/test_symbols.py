"""Names of kernel functions are those of its source, whatever the compiler made of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from netlab.kernel.symbols import Symbols, spans


@pytest.mark.privileged  # the kernel hides addresses from others
def test_a_copy_that_the_compiler_has_made_has_the_name_of_its_function() -> None:
    lines = [line.split() for line in Path("/proc/kallsyms").read_text().splitlines()]
    code = [(int(address, 16), name) for address, kind, name, *_ in lines if kind in "tT"]
    copies = {address: name for address, name in code if ".isra." in name or ".constprop." in name}

    names = Symbols().names(np.array(list(copies), np.uint64))

    assert len(copies) > 100
    assert names.tolist() == [name.partition(".")[0] for name in copies.values()]


@pytest.mark.privileged
def test_a_function_is_where_an_address_in_it_is_named_after_it() -> None:
    (start, size), unknown = spans("skb_release_data", "no_such_function")

    assert (
        Symbols().names(np.array([start, start + size - 1], np.uint64)).tolist() == ["skb_release_data"] * 2
    )
    assert unknown == (0, 0)
