"""`binder/` as mybinder.org takes it, and the notebooks as they run there, by a user without privileges."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import ordinary
import pytest

TOP = Path(__file__).parent.parent
NOTEBOOKS = TOP / "notebooks"
NOTEBOOK = "notebooks/01_first_look.ipynb"
TRIES = """
import ctypes, os, socket, subprocess
from netlab.kernel import capabilities
from netlab.kernel.syscall import ProgramKind
print(os.getuid(), sorted(capabilities.effective()))
print(capabilities.raw_socket(socket.AF_INET), capabilities.bpf_program(ProgramKind.RAW_TRACEPOINT), sep="; ")
for flag in (0x10000000, 0x40000000):
    print(ctypes.CDLL(None).unshare(flag))
"""


@pytest.fixture(scope="module")
def dockerfile(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return what repo2docker would build, and how, from what git has of this tree."""
    tree = tmp_path_factory.mktemp("binder") / "netlab"
    for part in ("binder", "notebooks", "pyproject.toml"):
        copy = shutil.copytree if (TOP / part).is_dir() else shutil.copy
        tree.mkdir(exist_ok=True)
        copy(TOP / part, tree / part)
    command = [
        "-m",
        "repo2docker",
        "--no-build",
        "--debug",
        "--user-id=1000",
        "--user-name=jovyan",
        str(tree),
    ]
    run = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=True, timeout=60)
    return run.stdout + run.stderr


def test_repo2docker_makes_an_environment_of_it(dockerfile: str) -> None:
    version = re.search(r"Building conda environment for python=(\d+)\.(\d+)", dockerfile)

    assert version
    assert (int(version[1]), int(version[2])) >= (3, 11)
    assert 'env update -p ${NB_PYTHON_PREFIX} --file "binder/environment.yml"' in dockerfile
    assert "RUN ./binder/postBuild" in dockerfile


def test_the_package_is_installed_when_its_source_is_there(dockerfile: str) -> None:
    assert dockerfile.index("COPY --chown=1000:1000 src/") < dockerfile.index("binder/environment.yml")


def test_a_build_step_that_fails_fails_the_build() -> None:
    script = TOP / "binder" / "postBuild"

    assert "\nset -euo pipefail\n" in script.read_text(encoding="utf-8")
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", script], check=True)


@pytest.mark.privileged
def test_the_ordinary_user_of_these_tests_may_do_nothing_special(tmp_path: Path) -> None:
    run = ordinary.run([sys.executable, "-c", TRIES], tmp_path, timeout_s=60)

    assert run.stdout.splitlines() == [
        "65534 []", "[Errno 1] Operation not permitted; [Errno 1] Operation not permitted", "-1", "-1",
    ]  # fmt: skip


@pytest.mark.privileged
def test_the_notebook_gives_what_it_shows_to_an_ordinary_user(tmp_path: Path) -> None:
    options = ["--nbval", "--nbval-current-env", "--nbval-sanitize-with", "notebooks/sanitize.cfg", "-q"]
    shutil.copytree(NOTEBOOKS, tmp_path / "notebooks", ignore=shutil.ignore_patterns("__pycache__"))

    run = ordinary.run([sys.executable, "-m", "pytest", *options, NOTEBOOK], tmp_path, timeout_s=120)

    assert run.returncode == 0, run.stdout
    assert re.search(r"^\d+ passed", run.stdout, re.MULTILINE), run.stdout
