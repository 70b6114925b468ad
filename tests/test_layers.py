"""The house of docs/architecture.md: a room imports only from rooms below it, and the door is light."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import netlab

PACKAGE = Path(netlab.__file__).parent
LAYERS = [  # from the ground up; rooms in one row do not know each other
    {"netlab.errors", "netlab.lazy", "netlab.__version__"},
    {"netlab.bars", "netlab.checks", "netlab.closing", "netlab.columns", "netlab.foreign", "netlab.turns"},
    {"netlab.frames", "netlab.addresses", "netlab.console"},
    {"netlab.schemas"},
    {"netlab.wire"},
    {"netlab.kernel", "netlab.protocols"},
    {"netlab.path", "netlab.tracer", "netlab.probes"},
    {"netlab.parquet"},
    {"netlab.bundle"},
    {"netlab.agent"},
    {"netlab.lab", "netlab.checkup"},
    {"netlab.fleet"},
    {"netlab.views"},
    {"netlab.accessor"},
    {"netlab.panels"},
    {"netlab.magics"},
    {"netlab.demo"},
    {"netlab.cli"},
    {"netlab.__main__"},
]
HEIGHT = {room: height for height, rooms in enumerate(LAYERS) for room in rooms}
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def room_of(module: str) -> str:
    return ".".join(module.split(".")[:2])


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_rooms(path: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "netlab":
            rooms |= {f"netlab.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("netlab."):
            rooms.add(room_of(node.module))
        elif isinstance(node, ast.Import):
            rooms |= {room_of(alias.name) for alias in node.names if alias.name.startswith("netlab.")}
    return rooms


def imported_packages(path: Path) -> set[str]:
    """Return the packages that a module imports, wherever in it."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    names = {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    names |= {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return {name.partition(".")[0] for name in names}


def loaded_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_room_imports_only_from_rooms_below_it(path: Path) -> None:
    room = room_of(name_of(path))

    higher = {other for other in imported_rooms(path) - {room} if HEIGHT[other] >= HEIGHT[room]}

    assert higher == set()


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_views_draw_and_only_panels_have_widgets(path: Path) -> None:
    found, room = imported_packages(path), room_of(name_of(path))

    assert "scapy" not in found
    assert room == "netlab.views" or "matplotlib" not in found
    assert room == "netlab.panels" or not found & {"anywidget", "ipywidgets"}


def foreign_after(statement: str) -> set[str]:
    """Return which packages a statement loads that are not Python's own, and were not there before."""
    loaded = {module.partition(".")[0] for module in loaded_after(statement) - loaded_after("pass")}
    return {name for name in loaded - sys.stdlib_module_names if not name.startswith("_")}


def test_importing_netlab_loads_none_of_its_rooms() -> None:
    loaded = loaded_after("import netlab")

    assert foreign_after("import netlab") == {"netlab"}
    assert not {name for name in loaded if name.startswith("netlab.")}


@pytest.mark.parametrize(
    ("use", "allowed"),
    [
        ("netlab.capture, netlab.connections, netlab.nat, netlab.load, netlab.probe, netlab.doctor", set()),
        ("netlab.traceroute, netlab.path_graph, netlab.connection_graph", {"networkx"}),
        ("netlab.lab.practice", {"networkx", "pyroute2", "psutil"}),
    ],
)
def test_a_call_loads_what_it_needs_and_nothing_that_draws(use: str, allowed: set[str]) -> None:
    frames = {"netlab", "numpy", "pandas", "pyarrow", "dateutil", "six", "cython_runtime"}
    frames |= {"cloudpickle"}  # pyarrow loads it where something else has brought it

    assert foreign_after(f"import netlab; {use}") - frames - allowed == set()


def test_every_public_name_can_be_imported() -> None:
    assert [name for name in netlab.__all__ if getattr(netlab, name, None) is None] == []


def test_no_module_hides_a_public_function_of_its_name() -> None:
    functions = set(netlab.__all__) - {"fleet", "lab", "panels", "path", "schemas"}

    assert functions & {path.stem for path in PACKAGE.glob("*.py")} == set()


def typed_names(path: Path) -> set[str]:
    """Return the names that a package has for type checkers only."""
    blocks = [
        node
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    imports = [node for block in blocks for node in block.body if isinstance(node, ast.ImportFrom)]
    return {alias.asname or alias.name for node in imports for alias in node.names}


@pytest.mark.parametrize("room", ["", "bundle", "fleet", "lab", "panels", "path"])
def test_type_checkers_know_every_name_that_is_imported_when_it_is_used(room: str) -> None:
    package = importlib.import_module(f"netlab.{room}".rstrip("."))
    known = typed_names(PACKAGE / room / "__init__.py")

    assert set(package.__all__) - known == set()
