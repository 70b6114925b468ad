"""Every public function has an example, and the examples run."""

from __future__ import annotations

import doctest
from collections.abc import Callable
from typing import Any

import pytest

import netlab

FUNCTIONS = [
    value
    for name in netlab.__all__
    if callable(value := getattr(netlab, name)) and not isinstance(value, type)
]
EXAMPLES = [
    *FUNCTIONS,
    netlab.lab.practice,
    netlab.lab.simulated,
    netlab.lab.load_shape,
    pytest.param(netlab.lab.clean, marks=pytest.mark.alone),  # others leave what it removes
    netlab.lab.drive,
    netlab.panels.LiveConnections,
    netlab.panels.LiveConntrack,
    netlab.panels.LiveDNS,
    netlab.panels.LivePath,
    netlab.panels.LiveRequests,
    *(getattr(netlab.fleet, name) for name in netlab.fleet.__all__),
    *(getattr(netlab.path, name) for name in netlab.path.__all__),
]


@pytest.mark.privileged
@pytest.mark.parametrize("function", EXAMPLES, ids=lambda function: function.__name__)
def test_the_example_in_the_docstring_runs(
    function: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    found = doctest.DocTestFinder(recurse=False).find(function, function.__name__, globs={"netlab": netlab})
    results = [doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test) for test in found]

    assert sum(result.attempted for result in results) > 0
    assert sum(result.failed for result in results) == 0, capsys.readouterr().out
