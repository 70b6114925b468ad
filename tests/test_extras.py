"""What is not installed is missed when it is asked for, and the error says which extra brings it."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

PYPROJECT = (Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8")
EXTRAS = tomllib.loads(PYPROJECT)["project"]["optional-dependencies"]


@pytest.mark.parametrize(
    ("package", "use", "extra"),
    [
        ("matplotlib", "netlab.plot_hops", "plot"),
        ("ipywidgets", "netlab.panels", "notebook"),
        ("anywidget", "netlab.panels", "notebook"),
        ("IPython", "netlab.load_ipython_extension(None)", "notebook"),
        ("nbconvert", "from netlab import demo; demo._executed()", "notebook"),
        ("hpack", "netlab.capture(protocols='grpc')", "protocols"),
        ("dns", "netlab.capture(protocols='dns')", "protocols"),
        ("sqlglot", "netlab.capture(protocols='postgres')", "protocols"),
        ("distributed", "netlab.fleet.Fleet(None)", "fleet"),
        ("dask", "netlab.fleet.dataset('recorded')", "fleet"),
        ("maxminddb", "netlab.path.with_asn(netlab.traceroute('127.0.0.1'), database='any.mmdb')", "asn"),
    ],
)
def test_the_error_says_how_to_get_what_is_missing(
    package: str, use: str, extra: str, tmp_path: Path
) -> None:
    (tmp_path / "any.mmdb").touch()
    code = f"import sys; sys.modules[{package!r}] = None; import netlab; {use}"

    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    last = run.stderr.splitlines()[-1]
    assert "CapabilityError" in last, run.stderr
    assert f"-m pip install 'netlab[{extra}]'" in last
    assert extra in EXTRAS
