"""What the paths of control groups say about containers."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import example, given, strategies as st

from netlab.kernel import cgroups

CASES = tomllib.loads((Path(__file__).parents[1] / "data/kernel/cgroups.toml").read_text())
ID = "3d5f0a1b" * 8

names = st.one_of(
    st.text(st.characters(exclude_characters="/")),
    st.sampled_from(
        ["", "..", "lxc", "lxc.payload", "docker", "supervisor", "conmon", f"docker-{ID}.scope", ID]
    ),
)
paths = st.lists(names).map(lambda parts: "/" + "/".join(parts))


@pytest.mark.parametrize("case", CASES)
def test_the_container_is_read_from_the_cgroup(case: str) -> None:
    text, expected = (CASES[case][key].replace("ID", ID) for key in ("cgroup", "container"))

    assert (cgroups.membership(text).container or "") == expected


@pytest.mark.parametrize("case", CASES)
def test_the_path_is_the_one_that_says_most(case: str) -> None:
    text = CASES[case]["cgroup"]
    only = text.split(":", 2)[2] if text else ""

    found = cgroups.membership(text.replace("ID", ID)).path
    assert (found or "") == CASES[case].get("path", only).replace("ID", ID)


@given(st.text())
@example("0::")
@example("0::/\n0::/\n:::")
def test_any_text_has_an_answer(text: str) -> None:
    found = cgroups.membership(text)

    assert found.path is None or found.path in text
    assert found.container is None or found.path is not None


@given(paths)
def test_a_container_is_named_by_one_part_of_the_path(path: str) -> None:
    found = cgroups.container(path)

    assert found is None or any(found in part.replace(r"\x2d", "-") for part in path.split("/"))


@given(paths, st.lists(st.text("abc", min_size=1), max_size=3))
def test_what_a_container_makes_below_itself_does_not_hide_it(above: str, below: list[str]) -> None:
    assert cgroups.container("/".join([above, f"docker-{ID}.scope", *below])) == ID
