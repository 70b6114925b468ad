"""A notebook of an ordinary user, live: what needs privileges the agent does; the tables are as of root."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.support.agents import running
from tests.support.ordinary import MEMBER, OWN_NETWORKS, in_sight

pytestmark = pytest.mark.privileged
ROOT = Path(__file__).parents[2]
NBVAL = ["--nbval", "--nbval-current-env"]


def test_a_member_of_the_group_sees_in_notebook_01_what_root_saw(reachable: Path) -> None:
    books, home = reachable / "notebooks", reachable / "home"
    shutil.copytree(ROOT / "notebooks", books, ignore=shutil.ignore_patterns("__pycache__", "recordings"))
    home.mkdir(mode=0o777)
    home.chmod(0o777)
    for place in ("/run/netns", "/run/netlab"):
        Path(place).mkdir(exist_ok=True)
    with running(reachable, "--group", "games") as (path, _):
        environment = {
            **{name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"},
            **dict.fromkeys(("HOME", "IPYTHONDIR", "MPLCONFIGDIR", "JUPYTER_RUNTIME_DIR"), str(home)),
            "NETLAB_AGENT": str(path),
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        pytest_ = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *NBVAL]
        sanitized = [f"--nbval-sanitize-with={books}/sanitize.cfg", str(books / "01_first_look.ipynb")]
        run = subprocess.run(
            [*in_sight(Path(sys.base_prefix)), *MEMBER, *OWN_NETWORKS, *pytest_, *sanitized],
            cwd=books,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=200,
        )
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://agent") as web:
            captures = web.get("/captures").json()

    assert run.returncode == 0, run.stdout + run.stderr
    own = [one["state"] for one in captures if one["name"] != "shared"]
    assert own == ["stopped"]  # it was live: there is no recording to read instead
