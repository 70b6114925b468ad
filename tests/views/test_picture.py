from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree as ET

import matplotlib as mpl
import nbformat
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from nbclient import NotebookClient
from pictures import assert_legible, attempts, trace, words

from netlab.frames import Gap, Missing, Schema
from netlab.schemas import CONNECTIONS, DNS, HOPS, REQUESTS
from netlab.tracer.graph import connection_graph
from netlab.views.connections import plot_connections
from netlab.views.dns import plot_dns
from netlab.views.hops import plot_hops
from netlab.views.path import plot_path
from netlab.views.requests import plot_requests
from netlab.views.timeline import plot_timeline

HOSTILE = "$x^2_{$ \\input{/etc/passwd} <script>&amp;\n\u202e"
DRAW: dict[str, Callable[[], Figure]] = {
    "hops": lambda: plot_hops(
        trace([["10.1.0.1"], ["192.0.2.7"]], target=HOSTILE, names={"10.1.0.1": HOSTILE})
    ),
    "path": lambda: plot_path(
        trace([["10.1.0.1"], ["192.0.2.7"]], target=HOSTILE, names={"10.1.0.1": HOSTILE})
    ),
    "connections": lambda: plot_connections(
        attempts(
            [{"at_s": 0, "end_s": 1, "process": HOSTILE, "remote_name": HOSTILE, "error": HOSTILE, "pid": 7}]
        )
    ),
    "dns": lambda: plot_dns(DNS.frame({"rcode": ["timeout"], "server_address": [HOSTILE]})),
    "requests": lambda: plot_requests(REQUESTS.frame({"outcome": ["answered"], "resource": [HOSTILE]})),
    "timeline": lambda: plot_timeline(
        attempts([{"at_s": 0, "end_s": 1, "process": HOSTILE, "remote_name": HOSTILE, "error": HOSTILE}])
    ),
}
EACH = pytest.mark.parametrize("draw", DRAW.values(), ids=DRAW)


def rendered(picture: Figure, form: str) -> bytes:
    out = io.BytesIO()
    picture.savefig(out, format=form)
    return out.getvalue()


@EACH
def test_pictures_can_be_written_as_png_and_svg(draw: Callable[[], Figure]) -> None:
    assert rendered(draw(), "png").startswith(b"\x89PNG")
    assert ET.fromstring(rendered(draw(), "svg")).tag.endswith("svg")  # noqa: S314 - our own


@EACH
def test_foreign_text_is_no_formula_whatever_the_user_set(draw: Callable[[], Figure]) -> None:
    with mpl.rc_context({"text.usetex": True, "text.parse_math": True}):
        picture = draw()
        picture.canvas.draw()
        foreign = [text for text in picture.findobj(mpl.text.Text) if text.get_text()]

        assert any("$x" in text.get_text() for text in foreign)
        assert not any(text.get_usetex() or text.get_parse_math() for text in foreign)


@EACH
def test_foreign_text_adds_no_element_to_an_svg(draw: Callable[[], Figure]) -> None:
    with mpl.rc_context({"svg.fonttype": "none"}):  # text as text, as users who want to search it do
        svg = ET.fromstring(rendered(draw(), "svg"))  # noqa: S314 - our own

    assert not [element for element in svg.iter() if "script" in element.tag]


@EACH
@pytest.mark.parametrize("dots_per_inch", [72, 100, 144])
def test_no_text_is_cut_off_whatever_the_dots_per_inch(
    draw: Callable[[], Figure], dots_per_inch: int
) -> None:
    picture = draw()
    picture.set_dpi(dots_per_inch)
    picture.canvas.draw()
    width, height = picture.get_size_inches() * dots_per_inch
    texts = [text for text in picture.findobj(mpl.text.Text) if text.get_text() and text.get_visible()]

    boxes = {text.get_text(): text.get_window_extent() for text in texts}

    assert {text for text, box in boxes.items() if box.x0 < 0 or box.x1 > width} == set()
    assert {text for text, box in boxes.items() if box.y0 < 0 or box.y1 > height} == set()


@EACH
def test_pyplot_keeps_no_picture(draw: Callable[[], Figure]) -> None:
    before = plt.get_fignums()

    draw()

    assert plt.get_fignums() == before


@EACH
def test_notebooks_get_svg_and_the_same_in_png_at_its_size(draw: Callable[[], Any]) -> None:
    shown, about = draw()._repr_mimebundle_()

    size = about["image/png"]
    png = shown["image/png"]
    svg = ET.fromstring(shown["image/svg+xml"])  # noqa: S314 - our own
    assert int.from_bytes(png[16:20]) == pytest.approx(size["width"], abs=1)  # the IHDR chunk's width
    assert int.from_bytes(png[20:24]) == pytest.approx(size["height"], abs=1)
    assert float(svg.get("width", "").removesuffix("pt")) == pytest.approx(size["width"], abs=1)


@EACH
def test_the_svg_for_notebooks_is_the_same_each_time_and_holds_no_foreign_text(
    draw: Callable[[], Any],
) -> None:
    svg = draw().svg()

    assert svg == draw().svg()
    assert "script" not in svg
    assert "<text" not in svg


EMPTY: dict[str, tuple[Callable[[pd.DataFrame], Figure], Schema]] = {
    "connections": (plot_connections, CONNECTIONS),
    "dns": (plot_dns, DNS),
    "hops": (plot_hops, HOPS),
    "path": (plot_path, HOPS),
    "requests": (plot_requests, REQUESTS),
    "timeline": (plot_timeline, CONNECTIONS),
}


@pytest.mark.parametrize(("draw", "schema"), EMPTY.values(), ids=EMPTY)
def test_the_picture_of_an_empty_frame_does_not_hide_what_was_lost(
    draw: Callable[[pd.DataFrame], Figure], schema: Schema
) -> None:
    lost = Missing("rows", Gap.LOST, 500, "the buffer was full")

    shown, whole = draw(schema.empty([lost])), draw(schema.empty())

    assert "1 gap in this data: see netlab.coverage()" in words(shown)
    assert not any("gap" in text for text in words(whole))
    assert_legible(shown)


SETUP = """
import netlab
from netlab.schemas import HOPS
hops = HOPS.frame({"target": ["a"], "target_address": ["192.0.2.7"], "run": [0], "flow": [0], "ttl": [1],
                   "address": ["192.0.2.7"], "rtt_ms": [1.0], "reached": [True]})
from netlab.views.connections import plot_connections
from netlab.views.hops import plot_hops
"""


def images(*cells: str) -> list[list[list[str]]]:
    """Run *cells* in a real kernel and return the image types of each output of each."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    return [
        [sorted(kind for kind in output.get("data", {}) if "image" in kind) for output in cell.outputs]
        for cell in notebook.cells
    ]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of jupyter_client and zmq
def test_a_notebook_shows_a_picture_exactly_once_with_or_without_pyplot() -> None:
    shown = images(
        SETUP, "plot_hops(hops)", "picture = plot_hops(hops)", "import matplotlib.pyplot", "plot_hops(hops)"
    )

    once = [["image/png", "image/svg+xml"]]
    assert shown == [[], once, [], [], once]


def test_a_frame_that_lost_its_coverage_is_not_drawn_as_one_that_lacks_nothing() -> None:
    lossy = CONNECTIONS.empty([Missing("connections", Gap.LOST, 500, "the buffer was full")])
    both = pd.concat([lossy, attempts([{"at_s": 0, "end_s": 1}])])

    assert any("what this data misses is not known" in text for text in words(plot_timeline(both)))
    assert "coverage" in [gap["what"] for gap in connection_graph(both).graph["coverage"]]
