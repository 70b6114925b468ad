from __future__ import annotations

import dialogfuzz
import pytest


@pytest.mark.parametrize("protocol", dialogfuzz.READERS)
def test_damaged_conversations_are_read_without_failing_and_each_exchange_is_told_once(protocol: str) -> None:
    assert dialogfuzz.check(protocol, 3000) > 100


def test_damaged_beginnings_are_judged() -> None:
    assert dialogfuzz.check_classify(3000) > 1000
