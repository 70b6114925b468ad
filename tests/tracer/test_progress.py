"""What is shown while a capture's time runs."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

CAPTURE = "import netlab\nwith netlab.capture(protocol='tcp', duration_s=2.5): pass"


@pytest.mark.privileged
def test_seconds_have_one_digit_behind_the_point() -> None:
    run = subprocess.run(
        [sys.executable, "-c", CAPTURE], stderr=subprocess.PIPE, text=True, check=True, timeout=60
    )

    shown = re.findall(r"\| (\S+) of 2.5 s", run.stderr)
    assert len(shown) > 5
    assert all(re.fullmatch(r"\d\.\d", seconds) for seconds in shown)
