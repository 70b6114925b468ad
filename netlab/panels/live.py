"""What every panel has in common: a feed that is started and stopped, and a task that shows what it says."""

from __future__ import annotations

import asyncio
import time
from abc import abstractmethod
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from enum import StrEnum
from typing import Any, Generic, Protocol, Self, TypeVar, runtime_checkable

import ipywidgets as widgets
import pandas as pd
import traitlets

from netlab.errors import CaptureError
from netlab.panels import cells, parts
from netlab.panels.words import UNSAVED, clock, fault

_EVERY_S = 0.25  # nobody reads faster
_REST = 3  # a refresh that takes long is followed by this many times as long without one


class State(StrEnum):
    """Where a panel is in its life."""

    NEW = "not started"
    STARTING = "starting …"
    RUNNING = "live"
    PAUSED = "paused"
    STOPPING = "stopping …"
    STOPPED = "stopped"
    FAILED = "failed"


_IDLE = {State.NEW, State.STOPPED, State.FAILED}
_AT_WORK = {State.RUNNING, State.PAUSED}


class Feed(Protocol):
    """What a panel follows. Beside this, each panel asks only for what its own feed's class says."""

    @property
    def state(self) -> str:
        """One of new, running, paused, stopped."""

    def start(self) -> object:
        """Begin; returns when it has begun, or raises."""

    def pause(self) -> None:
        """Leave out what is new from now on."""

    def resume(self) -> None:
        """Take in what is new again."""

    def stop(self) -> None:
        """End, and keep what was seen; safe to call again."""


@runtime_checkable
class Dated(Protocol):
    """A feed of the past, such as a recording that is played: what it shows is of another time than now."""

    def now(self) -> pd.Timestamp:
        """Return the moment that is shown."""


F = TypeVar("F", bound=Feed)
Seen = TypeVar("Seen")


class LivePanel(widgets.VBox, Generic[F, Seen]):
    """Buttons, a state, an error if there is one, and below them what a subclass shows of its feed.

    Parameters
    ----------
    make
        Returns the feed to follow; asked again when a stopped panel is started again.
    body
        The widgets that show it.
    duration_s
        After how long the feed ends by itself, if it does: it is shown beside the state.
    """

    state = traitlets.UseEnum(State, default_value=State.NEW)
    _closed = True  # until it is made: ipywidgets closes what failed in the making, too

    def __init__(
        self, make: Callable[[], F], body: Sequence[widgets.Widget], *, duration_s: float | None = None
    ) -> None:
        self._make = make
        self._duration_s = duration_s
        self._began_s = 0.0
        self.feed: F | None = None
        self.error: Exception | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._follower: asyncio.Task[None] | None = None
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="netlab-panel")
        self._closed = self._owned = False
        self._start = widgets.Button(description="Start", icon="play")
        self._pause = widgets.Button(description="Pause", icon="pause")
        self._stop = widgets.Button(description="Stop", icon="stop")
        self._says, self._age = widgets.HTML(), widgets.HTML()
        self._fault = widgets.HTML()
        self._start.on_click(lambda _: self.start_soon())
        self._pause.on_click(lambda _: self._spawn(self._pausing()))
        self._stop.on_click(lambda _: self._spawn(self._stopping()))
        buttons = widgets.HBox([self._start, self._pause, self._stop, self._says, self._age])
        super().__init__([buttons, self._fault, *body])
        self.add_class("netlab-panel")
        self.observe(lambda _: self._show_state(), "state")
        self._show_state()
        cells.adopt(self)

    def start(self) -> Self:
        """Begin; returns when the feed has begun, or raises. The panel shows it from then on."""
        self._refuse_closed()
        if self.state not in _IDLE:
            raise CaptureError(f"this panel is {self.state}: it cannot start", fix="Stop it first")
        _running_loop()
        try:
            self._begin()
        except Exception as error:
            self._fail(error)
            raise
        self._follow_from_now()
        return self

    def start_soon(self) -> None:
        """Begin in the background, as the button does: what goes wrong is shown in the panel."""
        self._spawn(self._starting())

    def stop(self) -> None:
        """End the feed, unless it ran before the panel, and show what it saw; safe to call again."""
        if self.state in _AT_WORK and self.feed is not None:
            self._end_feed()
            self._end_following()
            self._show(self._read(self.feed))
            self.state = State.STOPPED
        if not self._closed:
            parts.tell(self)

    def pause(self) -> None:
        """Leave out what is new from now on; what it began with goes on."""
        if self.state is State.RUNNING and self.feed is not None:
            self.feed.pause()
            self.state = State.PAUSED

    def resume(self) -> None:
        """Take in what is new again."""
        if self.state is State.PAUSED and self.feed is not None:
            self.feed.resume()
            self.state = State.RUNNING

    def raise_if_failed(self) -> None:
        """Raise what ended the panel, if anything did: for notebooks that are tested."""
        if self.error is not None:
            raise self.error

    def __repr__(self) -> str:
        """Return what stands for the panel where there is no kernel, as on GitHub."""
        return f"<netlab {type(self).__name__} {UNSAVED}: {self.state.value}>"

    def close(self) -> None:
        """End the feed and take all of the panel out of the notebook; safe to call again."""
        if self._closed:
            return
        self._closed = True
        self._end_tasks()
        try:
            self._end_feed()
        finally:
            self._worker.shutdown(wait=False, cancel_futures=True)
            for widget in parts.whole(self):
                widgets.VBox.close(widget) if widget is self else widget.close()

    @abstractmethod
    def _read(self, feed: F) -> Seen:
        """Return what is to be shown; runs outside of the notebook's thread."""

    @abstractmethod
    def _show(self, seen: Seen) -> None:
        """Show it."""

    def _begin(self) -> None:
        feed = self._make()
        self._owned = feed.state == "new"
        if self._owned:
            feed.start()
        self.feed = feed
        if self._closed:  # meanwhile, in the notebook's thread, which then had no feed to end
            self._end_feed()

    def _end_feed(self) -> None:
        if self._owned and self.feed is not None:
            self.feed.stop()

    def _follow_from_now(self) -> None:
        self.error, self._fault.value = None, ""
        self._began_s = time.monotonic()
        self.state = State.RUNNING
        self._follower = self._spawn(self._following())

    async def _following(self) -> None:
        feed, loop = self.feed, _running_loop()
        while feed is not None:
            began_s = time.monotonic()
            last = feed.state == "stopped"  # asked before the read, which then has all of it
            seen = await loop.run_in_executor(self._worker, self._read, feed)
            self._show(seen)
            self._age.value = clock(time.monotonic() - self._began_s, self._duration_s)
            if last:
                self.state = State.STOPPED
                return
            await asyncio.sleep(max(_EVERY_S, _REST * (time.monotonic() - began_s)))

    async def _starting(self) -> None:
        if self.state not in _IDLE:
            return
        self.state = State.STARTING
        await _running_loop().run_in_executor(self._worker, self._begin)
        self._follow_from_now()

    async def _pausing(self) -> None:
        self.resume() if self.state is State.PAUSED else self.pause()

    async def _stopping(self) -> None:
        if self.state not in _AT_WORK or self.feed is None:
            return
        self.state = State.STOPPING
        await _running_loop().run_in_executor(self._worker, self._end_feed)
        self._end_following()
        self._show(await _running_loop().run_in_executor(self._worker, self._read, self.feed))
        self.state = State.STOPPED

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None:
        """Run *work* in the notebook's loop; what it raises is shown in the panel."""
        if self._closed:
            work.close()
            return None
        task = _running_loop().create_task(work)
        self._tasks.add(task)  # the loop itself holds it weakly
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and isinstance(error := task.exception(), Exception) and not self._closed:
            self._fail(error)

    def _shown(self, work: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, Any]], None]:
        """Return *work* as an observer that shows what it raises: ipywidgets would only log it."""

        def observer(change: dict[str, Any]) -> None:
            try:
                work(change)
            except Exception as error:  # noqa: BLE001 - whatever it is, the panel is where it is looked for
                self._fail(error)

        return observer

    def _fail(self, error: Exception) -> None:
        self.error = error
        self._fault.value = fault(error)
        self.state = State.FAILED
        self._end_tasks()
        with suppress(Exception):  # what failed first is what is shown
            self._end_feed()

    def _end_following(self) -> None:
        if self._follower is not None:
            self._follower.cancel()

    def _end_tasks(self) -> None:
        for task in list(self._tasks):
            task.cancel()

    def _refuse_closed(self) -> None:
        if self._closed:
            raise CaptureError("this panel is closed", fix="Make a new one")

    def _show_state(self) -> None:
        self._says.value = f'<span role="status">{self.state.value}</span>'
        self._start.disabled = self.state not in _IDLE
        self._pause.disabled = self._stop.disabled = self.state not in _AT_WORK
        paused = self.state is State.PAUSED
        self._pause.description, self._pause.icon = ("Resume", "play") if paused else ("Pause", "pause")


def _running_loop() -> asyncio.AbstractEventLoop:
    try:
        return asyncio.get_running_loop()
    except RuntimeError as error:
        raise CaptureError(
            "a panel needs the event loop of a notebook",
            fix="Use it in Jupyter; netlab.capture() works anywhere",
        ) from error
