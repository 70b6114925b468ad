from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

import netlab
from netlab import checks
from netlab.errors import BadInput, NetlabError

anything = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()


@given(st.integers(1, 65535))
def test_a_port_passes_as_it_is(number: int) -> None:
    assert checks.port(number) == number


@given(anything.filter(lambda value: not (type(value) is int and 1 <= value <= 65535)))
def test_what_is_no_port_is_refused_by_name(value: object) -> None:
    with pytest.raises(BadInput) as caught:
        checks.port(value, "source port")

    assert caught.value.problem.startswith(f"source port {value!r} is not a whole number from 1 to 65535")
    assert caught.value.fix


@given(st.integers(), st.integers(), st.integers())
def test_a_whole_number_passes_exactly_within_its_limits(value: int, low: int, high: int) -> None:
    if low <= value <= high:
        assert checks.whole("ttl", value, low, high) == value
    else:
        with pytest.raises(BadInput, match="ttl"):
            checks.whole("ttl", value, low, high)


@pytest.mark.parametrize("value", [True, 2.0, "2", None])
def test_a_whole_number_is_an_int_and_nothing_like_it(value: object) -> None:
    with pytest.raises(BadInput):
        checks.whole("ttl", value, 0, 255)


@pytest.mark.parametrize(
    ("value", "number"), [(1, 1.0), (0.25, 0.25), (1e9, 1e9), (np.int64(2), 2.0), (np.float32(0.5), 0.5)]
)
def test_a_positive_number_becomes_a_float(value: float, number: float) -> None:
    found = checks.positive("timeout", value, unit="seconds")

    assert (found, type(found)) == (number, float)


@pytest.mark.parametrize("value", [0, -1, float("nan"), True, "1", None])
def test_what_is_not_above_zero_is_refused_with_the_unit(value: object) -> None:
    with pytest.raises(BadInput, match="number of seconds above 0") as caught:
        checks.positive("timeout", value, unit="seconds")

    assert "seconds" in caught.value.fix


@pytest.mark.parametrize(("value", "fits"), [(60, True), (60.5, False), (float("inf"), False)])
def test_a_positive_number_may_have_a_most(value: float, *, fits: bool) -> None:
    if fits:
        assert checks.positive("timeout", value, unit="seconds", most=60) == value
    else:
        with pytest.raises(BadInput, match="at most 60"):
            checks.positive("timeout", value, unit="seconds", most=60)


def test_a_known_word_passes() -> None:
    assert checks.choice("protocol", "udp", ["tcp", "udp"]) == "udp"


@pytest.mark.parametrize(
    ("value", "advice"),
    [
        ("tpc", "Did you mean 'tcp'?"),
        ("UDP", "Known: tcp, udp"),
        (6, "Known: tcp, udp"),
        (None, "Known: tcp, udp"),
        (["tcp"], "Did you mean 'tcp'?"),
    ],
)
def test_an_unknown_word_is_refused_with_the_nearest_or_with_all(value: object, advice: str) -> None:
    with pytest.raises(BadInput) as caught:
        checks.choice("protocol", value, ["tcp", "udp"])

    assert str(caught.value) == f"protocol {value!r} is not known. {advice}"


@checks.options
def probe(target: str, *, port: int = 443, **others: Any) -> str:
    """Probe."""
    return f"{target}:{port}{others}"


def test_known_options_pass_through() -> None:
    assert probe("host", port=80) == "host:80{}"
    assert (probe.__name__, probe.__doc__) == ("probe", "Probe.")


def test_an_unknown_option_is_refused_with_the_nearest_good_name() -> None:
    with pytest.raises(BadInput, match=r"probe\(\) has no option 'prot'\. Did you mean 'port'\?"):
        probe("host", prot=80)


def test_bad_input_is_also_a_value_error_and_one_of_ours() -> None:
    with pytest.raises(ValueError, match="port") as caught:
        checks.port(0)

    assert isinstance(caught.value, NetlabError)


@pytest.mark.parametrize(
    ("ask", "fix"),
    [
        (netlab.request_stats, "Pass what cap.requests() returned"),
        (netlab.dns_stats, "Pass what cap.dns() returned"),
        (netlab.protocol_stats, "or call cap.protocol_stats()"),
        (netlab.with_gateway, "Capture.connections() or netlab.connections() returned"),
        (
            lambda it: netlab.with_nat(it, it),
            "Capture.connections() or netlab.connections() returned",
        ),
        (lambda it: netlab.concat([it]), "Pass at least one, as netlab returned them"),
    ],
)
def test_a_capture_in_place_of_its_frame_is_refused_with_what_to_pass(
    ask: Callable[[Any], object], fix: str
) -> None:
    with pytest.raises(BadInput) as caught:
        ask(object())

    assert "takes frames, not object objects" in caught.value.problem
    assert fix in caught.value.fix


@pytest.mark.parametrize("value", [0.5, 0.95, np.float64(0.999)])
def test_a_number_passes_within_its_limits_and_at_them(value: float) -> None:
    assert checks.between("confidence", value, 0.5, 0.999) == value


@pytest.mark.parametrize("value", [0.49, 1, float("nan"), True, "0.9", None])
def test_a_number_beyond_its_limits_is_refused_with_them(value: object) -> None:
    with pytest.raises(BadInput, match=r"is not a number from 0\.5 to 0\.999") as caught:
        checks.between("confidence", value, 0.5, 0.999)

    assert caught.value.fix == "Give confidence from 0.5 to 0.999"
