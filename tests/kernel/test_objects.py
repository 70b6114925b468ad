"""What the compiler made, kept and loaded again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from programs import tcp_program

from netlab.errors import ProgramError
from netlab.kernel import btf, objects
from netlab.kernel.objects import Loaded, MapSpec, Object

pytestmark = pytest.mark.privileged
RETURNS_NOTHING = bytes.fromhex("9500000000000000")  # exit, with nothing in the register that is returned
ARRAY = MapSpec("netlab_array", 2, 4, 8, 3, 0)
USES = "from programs import tcp_program\nwith tcp_program(): print('bcc' in sys.modules)"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the directory of objects of an empty cache, but for the kernel's types, which take long."""
    usual = btf.header_tree().parent
    (tmp_path / "netlab").mkdir()
    for tree in usual.glob("headers-*"):
        (tmp_path / "netlab" / tree.name).symlink_to(tree)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "netlab" / "objects"


def needed_the_compiler() -> bool:
    support = str(Path(__file__).parent.parent / "support")
    code = f"import sys; sys.path.insert(0, {support!r})\n{USES}"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return run.stdout.strip() == "True"


@pytest.mark.usefixtures("home")
def test_what_was_compiled_once_is_loaded_without_the_compiler() -> None:
    assert needed_the_compiler()
    assert not needed_the_compiler()


def test_a_kept_object_that_is_broken_is_compiled_again(home: Path) -> None:
    with tcp_program():
        pass
    (file,) = home.iterdir()
    whole = file.read_bytes()
    for broken in (whole[:5000], b"[]"):
        file.write_bytes(broken)
        with tcp_program():
            pass
        assert file.read_bytes() == whole


@pytest.mark.usefixtures("home")
def test_what_was_kept_runs_like_what_was_compiled() -> None:
    with tcp_program() as compiled:
        made = {each.name: each.max_entries for each in compiled.usage()}
    with tcp_program() as kept:
        kept.attach_typed_tracepoint("netlab_state_changed", "inet_sock_set_state")
        loaded = {each.name: each.max_entries for each in kept.usage() if each.kind == "map"}

    assert loaded == made


def test_other_settings_are_another_object(home: Path) -> None:
    with tcp_program(), tcp_program(NETLAB_CHANGES="1"):
        pass
    assert len(list(home.iterdir())) == 2


def test_other_sizes_are_the_same_object_with_larger_maps(home: Path) -> None:
    with tcp_program(max_open=1024), tcp_program(max_open=2048) as larger:
        made = {each.name: each.max_entries for each in larger.usage() if each.kind == "map"}
    assert made["netlab_open"] == 2048
    assert len(list(home.iterdir())) == 1


def test_only_the_latest_objects_are_kept(tmp_path: Path) -> None:
    made = Object((ARRAY,), {}, "GPL", 0)

    for number in range(70):
        assert objects.kept(tmp_path / f"{number:02}.json", lambda: made) == made

    assert [file.stem for file in sorted(tmp_path.iterdir())] == [f"{n:02}" for n in range(6, 70)]


@pytest.mark.parametrize(("mode", "owner"), [(0o664, 0), (0o644, 65534)], ids=["for a group", "another's"])
def test_what_somebody_else_may_have_written_is_compiled_again(tmp_path: Path, mode: int, owner: int) -> None:
    made = Object((ARRAY,), {}, "GPL", 0)
    planted = Object((), {}, "GPL", 0)
    place = tmp_path / "object.json"
    objects.kept(place, lambda: planted)
    place.chmod(mode)
    os.chown(place, owner, -1)

    assert objects.kept(place, lambda: made) == made
    assert objects.kept(place, lambda: planted) == made


def test_a_cache_that_cannot_be_written_costs_only_time() -> None:
    made = Object((ARRAY,), {"f": RETURNS_NOTHING}, "GPL", 0)

    assert objects.kept(Path("/proc/nowhere/object.json"), lambda: made) == made


def test_the_kernel_has_each_map_as_it_was_asked_for() -> None:
    with Loaded(Object((ARRAY,), {}, "GPL", 0)) as loaded:
        descriptor, entries = loaded.tables["netlab_array"]

        assert (MapSpec.of("netlab_array", descriptor), entries) == (ARRAY, 3)


def test_a_function_that_the_kernel_does_not_take_has_the_verifiers_words() -> None:
    with (
        Loaded(Object((), {"nothing": RETURNS_NOTHING}, "GPL", 0)) as loaded,
        pytest.raises(ProgramError) as caught,
    ):
        loaded.load("nothing", 17)

    assert "R0 !read_ok" in caught.value.log


def test_a_map_that_cannot_be_made_is_named() -> None:
    with pytest.raises(ProgramError, match="netlab_array could not be made: Invalid argument"):
        Loaded(Object((MapSpec("netlab_array", 2, 8, 8, 3, 0),), {}, "GPL", 0))
