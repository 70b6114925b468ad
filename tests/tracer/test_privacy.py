"""Secrets that real clients say to real servers, searched as bytes in all that netlab makes of it."""

from __future__ import annotations

import contextlib
import logging
import pickle
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import httpx
import pandas as pd
import pyarrow as pa
import pytest
from confidences import SAYERS, TENANT, ZONE, Said, servers
from ipywidgets import Widget
from loops import run, until

import netlab
from netlab.agent.app import Table
from netlab.agent.formats import Format
from netlab.errors import CaptureError
from netlab.panels import LiveDNS, LiveRequests
from netlab.tracer.session import Capture
from tests.support.agents import running
from tests.support.programs import wait_until

pytestmark = pytest.mark.privileged

FRAMES = ("connections", "failures", "requests", "tls", "dns", "dns_stats", "names", "cost", "debug_nat")
SHOWN = ("/orders/*", "shop.v1.Cart", "user:*", "pg_class", "parcels")
# What rules of one's own hide: not in the captures that everybody shares, nor in the list of these rules.
UNRULED = {"tenant", "host", "server name", "name", "mixed name", "alias"}
TENANTS = ("/tenant/orders", "tenant:*", "tenant.v1.Cart", "tenant")


@dataclass(frozen=True)
class Made:
    """What netlab made of a capture, as bytes."""

    said: Said
    pieces: dict[str, bytes]
    recording: Path
    agent: dict[str, bytes]  # what it answered, by request, and what it wrote into its log


class Log(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def as_bytes(frame: pd.DataFrame) -> bytes:
    """Return a frame in every way in which it leaves a process: pickled, as Arrow, as text and as HTML."""
    table, sink = pa.Table.from_pandas(frame), pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    text = frame.to_csv() + frame.to_html() + repr(frame) + repr(frame.attrs)
    return pickle.dumps(frame) + sink.getvalue().to_pybytes() + text.encode()


def frames_of(capture: Capture) -> dict[str, pd.DataFrame]:
    """Return everything that a capture can be asked for."""
    frames = {name: getattr(capture, name)() for name in FRAMES}
    by = ("protocol", "operation", "resource", "host")
    frames["request_stats"] = netlab.request_stats(frames["requests"], by=by)
    capture.register("privacy")
    return frames | {"delta": capture.delta("privacy")}


def whole(widget: Widget) -> list[Widget]:
    """Return a widget and all that are in it."""
    return [widget, *(part for child in getattr(widget, "children", ()) for part in whole(child))]


def widgets_of(capture: Capture) -> bytes:
    """Return all that panels of a capture have given to the browser."""
    states: list[Any] = []

    async def follow() -> None:
        for panel in (LiveRequests(capture).start(), LiveDNS(capture).start()):
            await until(lambda panel=panel: panel.table.view["total"])
            panel.table.asked = panel.table.asked | {"selected": panel.table.view["rows"][0]["key"]}
            states.extend(one.get_state() for one in whole(panel))
            panel.stop()
            panel.close()

    run(follow())
    return repr(states).encode()


def answers_of(web: httpx.Client, own: str, said: Said) -> dict[str, bytes]:
    """Return what an agent answers that has the capture at *own*; then say secrets in questions, too."""
    tables = [f"{own}/{what}" for what in (*get_args(Table), "requests", "delta?client=privacy")]
    shared = ["/connections?client=privacy", "/dns", "/protocols", *(f"/protocols/{one}" for one in SAYERS)]
    wrong = [f"{own}/nothing", f"{own}/requests?protocol=none", "/captures/nobodys/dns", "/protocols/none"]
    for account in (own, ""):
        web.post(f"{account}/register", params={"client": "privacy"}).raise_for_status()
    answers = {}
    for path in (*tables, *shared, *wrong):
        for kind in (Format.JSON, Format.ARROW, Format.CSV):
            answers[f"{path} {kind}"] = web.get(path, headers={"Accept": kind}).content
    for path in ("/metrics", "/captures", own):
        answers[path] = web.get(path).content
    web.get(f"/captures/{said.new('path of a question')}/dns", params={"token": said.new("question")})
    web.post("/captures", json={"mask": {f"({said.new('rule')}": "x"}})
    return answers


@contextlib.contextmanager
def agent(place: Path, options: dict[str, Any]) -> Iterator[Callable[[Said], dict[str, bytes]]]:
    """Have an agent capture what is said in the block; yield who asks it for all, once it has seen all."""
    with (
        running(place) as (path, _),
        httpx.Client(
            transport=httpx.HTTPTransport(uds=str(path)), base_url="http://agent", timeout=60
        ) as web,
    ):
        web.get("/dns").raise_for_status()  # the capture that everybody shares begins
        name = web.post("/captures", json=options).raise_for_status().json()["name"]

        def ask(said: Said) -> dict[str, bytes]:
            last = [f"/captures/{name}/{what}" for what in ("tls", "dns")]
            wait_until(lambda: all(f"*.{ZONE}" in web.get(path).text.lower() for path in last))
            answers = answers_of(web, f"/captures/{name}", said)
            return answers | {"log": (place / "agent.log").read_bytes()}

        yield ask


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    """Let everybody say their secrets, and keep what there is of it."""
    said, log, logger = Said(), Log(), logging.getLogger("netlab")
    logger.addHandler(log)
    logger.setLevel(logging.DEBUG)
    path = tmp_path_factory.mktemp("recording") / "run.netlab"
    with servers(said, tmp_path_factory.mktemp("servers")) as ports:
        options = {
            "protocols": (*SAYERS, "http2"),
            "port": tuple(ports.values()),
            "dns_ports": (ports["dns"],),
            "mask": {f"(?i){TENANT}": "tenant"},
            "mask_names": (ZONE,),
        }
        capture = netlab.capture(**options)
        place = tmp_path_factory.mktemp("agent")
        with capture, netlab.record(path, capture, every_s=0.1), agent(place, options) as ask:
            for protocol, say in SAYERS.items():
                say(said, ports[protocol])
            pieces = {"panels": widgets_of(capture), "processes": repr(capture.debug_processes()).encode()}
            frames = {f"map {name}": frame for name, frame in capture.debug_maps().items()}
            answers = ask(said)
    frames |= frames_of(capture)  # by now, all that was said has been read
    pieces |= {name: as_bytes(frame) for name, frame in frames.items()} | {"repr": repr(capture).encode()}
    with pytest.raises(CaptureError) as refused:
        capture.events()
    pieces |= {"error": str(refused.value).encode(), "log": "\n".join(log.lines).encode()}
    yield Made(said, pieces, path, answers)
    logger.removeHandler(log)
    logger.setLevel(logging.NOTSET)


def test_secrets_are_in_no_frame_panel_map_log_error_or_repr(made: Made) -> None:
    assert {name: places for name, data in made.pieces.items() if (places := made.said.found_in(data))} == {}


def test_what_may_be_shown_is_found_where_secrets_were_looked_for(made: Made) -> None:
    requests = made.pieces["requests"]

    assert [word for word in SHOWN if word.encode() not in requests] == []
    assert [word for word in TENANTS if f",{word},".encode() not in requests] == []
    assert b"/orders/*" in made.pieces["panels"]
    for name in ("requests", "tls", "dns", "names", "panels"):
        assert f"*.{ZONE}".encode() in made.pieces[name].lower()


def test_secrets_are_in_no_member_of_a_recording_and_in_no_frame_of_its_past(made: Made) -> None:
    with netlab.replay(made.recording) as past:
        past.seek(past.end.isoformat())
        frames = [past.connections(), past.requests(), past.dns(), past.names(), past.tls()]
    frames += netlab.load(made.recording).values()
    with zipfile.ZipFile(made.recording) as bundle:
        members = b"".join(bundle.read(name) for name in bundle.namelist())
    data = made.recording.read_bytes() + members + b"".join(map(as_bytes, frames))

    assert made.said.found_in(data) == []
    assert all(word.encode() in data for word in SHOWN)


def test_secrets_are_in_nothing_that_an_agent_answers_or_writes(made: Made) -> None:
    found = {path: set(made.said.found_in(answer)) for path, answer in made.agent.items()}
    ruled = {path for path in found if path.startswith("/captures/") and path.split()[0].count("/") == 3}

    assert set().union(*(found[path] for path in {*ruled, "log"})) == set()
    assert {path: places for path, places in found.items() if places - UNRULED} == {}


def test_what_may_be_shown_is_found_where_an_agent_s_answers_were_searched(made: Made) -> None:
    (requests,) = (answer for path, answer in made.agent.items() if path.endswith(f"/requests {Format.CSV}"))

    assert [word for word in SHOWN if word.encode() not in requests] == []
    assert all(b"corp.example" in made.agent[f"/protocols/tls {kind}"] for kind in (Format.JSON, Format.CSV))
    assert b"netlab" in made.agent["/metrics"]


def test_the_frame_says_that_rules_hide_some_of_it(made: Made) -> None:
    assert b"what matches mask= is hidden (rules: 1)" in made.pieces["requests"]
