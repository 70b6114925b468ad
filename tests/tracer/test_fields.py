"""Attempt records read field by field."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from netlab.tracer.fields import Fields
from netlab.tracer.layout import ATTEMPT


def some(count: int) -> npt.NDArray[np.void]:
    """Return records of random bytes."""
    raw = np.random.default_rng(count).integers(0, 256, (count, ATTEMPT.itemsize), np.uint8)
    return raw.view(ATTEMPT).ravel()


@pytest.mark.parametrize("count", [0, 1, 2047, 2048, 5000])
def test_each_field_is_that_of_the_records_in_the_order_asked_for(count: int) -> None:
    records = some(count)
    order = np.random.default_rng(1).permutation(count)

    straight, turned = Fields(records), Fields(records, order)

    assert len(straight) == len(turned) == count
    for name in ATTEMPT.names or ():
        np.testing.assert_array_equal(straight[name], records[name])
        np.testing.assert_array_equal(turned[name], records[name][order])
