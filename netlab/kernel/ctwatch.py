"""One thread that listens for conntrack entries in many network namespaces.

All of it happens in this thread: a process counts as being where its first thread is, and must not be found
in a namespace that it only listens to.
"""

from __future__ import annotations

import itertools
import select
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

from netlab.closing import Closes, uninterrupted
from netlab.errors import BadInput, CaptureError, NetlabError
from netlab.kernel import clock, descriptors, netns as namespaces
from netlab.kernel.ctlisten import LISTEN, Group, Listener
from netlab.kernel.manymsg import Receiver

T = TypeVar("T")

LOOK_AROUND_S = 1.0  # for namespaces that came and went
_DRAIN_S = 0.05  # a wake-up for each message is what would cost


class Watch(Closes):
    """Listens in the namespaces that *find* names; who inherits says what becomes of what is heard.

    Parameters
    ----------
    find
        Returns a file for each namespace, by inode.
    again
        Whether to ask it every second, to leave namespaces that are gone and join new ones.
    groups
        What to listen for.
    """

    def __init__(self, find: Callable[[], Mapping[int, Path]], *, again: bool, groups: Group) -> None:
        self._find, self._again, self._groups = find, again, groups
        self._listeners: dict[int, Listener] = {}
        self._everyone: list[Listener] = []  # also those that left: their namespaces are gone
        self._late = 0
        self._refused: dict[int, NetlabError] = {}  # why a namespace is not listened in
        self._receiver = Receiver()
        self._orders = itertools.count()
        self._stop, self._wake = threading.Event(), threading.Event()
        self._failure: NetlabError | None = None
        self._looked_around_at = self._looked_at_settings_at = 0.0
        self._waiting = select.epoll()  # hundreds of sockets, of which few have something to say
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="netlab-conntrack")
        try:
            uninterrupted(self._begin)
        except BaseException:
            self._stop.set()
            self._thread.shutdown()
            self._let_go()
            raise

    def _begin(self) -> None:
        self._thread.submit(self._start).result()
        self._thread.submit(self._listen)

    @property
    def namespaces(self) -> frozenset[int]:
        """The network namespaces listened in at this moment, by inode."""
        return frozenset(self._listeners.copy())

    def close(self) -> None:
        """Stop listening and keep what was heard; safe to call again."""
        if self._stop.is_set():
            return
        try:
            self._done(partial(self._take_all, settle=True))
        finally:
            self._stop.set()
            self._thread.shutdown()
            self._let_go()

    def abandon(self) -> None:
        """In a forked child, which has no such thread, let go of the copies of the sockets."""
        self._stop.set()
        self._let_go()

    def _let_go(self) -> None:
        self._waiting.close()
        for listener in self._listeners.values():
            listener.close()

    def _all(self) -> list[Listener]:
        return self._everyone.copy()

    def _failures(self) -> list[NetlabError]:
        """Return why namespaces are not listened in, or what was lost there not made up for."""
        unanswered = [listener.unanswered for listener in self._all()]
        return [*self._refused.copy().values(), *(error for error in unanswered if error)]

    def _catch_up(self, *, settle: bool) -> None:
        """Take what was told until now; with *settle* make up for what was lost, too."""
        if not self._stop.is_set():
            self._done(partial(self._take_all, settle=settle))
        if self._failure:
            raise self._failure

    def _done(self, work: Callable[[], T]) -> T:
        """Have the thread do *work* now, and not after its next wait for messages."""
        self._wake.set()
        return self._thread.submit(work).result()

    # What follows runs in the thread.

    @abstractmethod
    def _joined(self, listener: Listener) -> None:
        """Take what the first dump found in a namespace."""

    @abstractmethod
    def _take_from(self, listener: Listener, *, settle: bool) -> None:
        """Take what waits in one namespace; with *settle* make up at once for what was lost or never told."""

    def _gone(self, listener: Listener) -> None:
        """Know that a namespace is gone."""

    def _start(self) -> None:
        for inode, file in self._find().items():
            self._join(inode, file)
        if self._refused and not self._listeners:
            raise next(iter(self._refused.values()))
        self._looked_around_at = time.monotonic()

    def _join(self, inode: int, file: Path) -> bool:
        """Listen in one more namespace, if that can be; to enter the own one takes no privilege."""
        own = inode == namespaces.inode()
        try:
            if self._listeners:
                descriptors.leave_some(self._waiting.fileno(), doing=LISTEN)
            with namespaces.entered(None if own else file):
                listener = Listener(self._groups, elsewhere=not own)
        except NetlabError as error:
            if not (self._again and isinstance(error, BadInput)):  # else it is gone by now
                self._refused[inode] = error
            return False
        self._refused.pop(inode, None)
        self._listeners[inode] = listener
        self._everyone.append(listener)
        self._waiting.register(listener, select.EPOLLIN)
        listener.resync(next(self._orders), first=True)
        self._joined(listener)
        return True

    def _listen(self) -> None:
        """Take what waits, wait a moment, and queue for the next turn behind what others ask for."""
        if self._stop.is_set() or self._failure:
            return
        try:
            self._take(settle=False)
            if time.monotonic() - self._looked_at_settings_at >= LOOK_AROUND_S:
                self._look_at_settings()
            if self._again and time.monotonic() - self._looked_around_at >= LOOK_AROUND_S:
                self._look_around()
        except NetlabError as error:
            self._failure = error
            return
        except Exception as error:  # noqa: BLE001 - whatever ends it has to be told
            self._failure = CaptureError(f"listening for conntrack entries ended: {error!r}")
            return
        self._wake.wait(_DRAIN_S)
        self._wake.clear()
        with suppress(RuntimeError):  # the interpreter is ending
            self._thread.submit(self._listen)

    def _look_at_settings(self) -> None:
        for listener in self._listeners.values():
            listener.look()
        self._looked_at_settings_at = time.monotonic()

    def _take_all(self, *, settle: bool) -> None:
        """Take what waits, knowing whether the kernel tells of everything."""
        self._look_at_settings()
        self._take(settle=settle)

    def _take(self, *, settle: bool) -> None:
        asked_ns = clock.now_ns()
        waiting = {socket for socket, _ in self._waiting.poll(0, len(self._listeners) or 1)}
        for listener in self._listeners.values():
            if settle or listener.stale or listener.fileno() in waiting:
                self._take_from(listener, settle=settle)
            else:
                listener.quiet(asked_ns)

    def _look_around(self) -> None:
        """Leave the namespaces that are gone, which our sockets alone keep, and join new ones."""
        there = self._find()
        for inode in set(self._listeners) - set(there):
            listener = self._listeners.pop(inode)
            listener.look()
            self._take_from(listener, settle=False)
            self._waiting.unregister(listener)
            listener.close()
            self._gone(listener)
            if listener.is_uneventful:
                self._everyone.remove(listener)
        for inode in set(there) - set(self._listeners):
            self._late += self._join(inode, there[inode])
        self._looked_around_at = time.monotonic()
