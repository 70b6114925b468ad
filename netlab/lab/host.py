"""One host of the practice network: a network namespace, and how to run things in it."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from netlab.errors import LabError
from netlab.kernel import netns

_RUN_S = 60.0


@dataclass(frozen=True, slots=True)
class Host:
    """A host: its name in the plan, the namespace it is, and its address toward the client."""

    name: str
    netns: str
    address4: str
    address6: str

    @property
    def inode(self) -> int:
        """The inode of the network namespace, as in the `netns` column of netlab's frames."""
        return netns.inode(self.netns)

    def entered(self) -> AbstractContextManager[None]:
        """Run a block with the calling thread inside this host: sockets opened there are this host's.

        Examples
        --------
        >>> import netlab, socket
        >>> with netlab.lab.practice() as net, net.client.entered():  # doctest: +SKIP
        ...     socket.create_connection((net.web.address4, net.ports.http)).close()
        """
        return netns.entered(self.netns)

    def run(self, command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[Any]:
        """Run *command* inside this host and wait for it.

        Parameters
        ----------
        command
            The program and its arguments.
        options
            As of `subprocess.run`. Unless told otherwise the output is captured as text and the command is
            killed after 60 s.

        Raises
        ------
        subprocess.TimeoutExpired
            If it took longer.
        LabError
            If the host has been removed.
        """
        defaults = {"timeout": _RUN_S, "text": True, "check": False}
        if not {"stdout", "stderr", "capture_output"} & options.keys():
            defaults["capture_output"] = True
        self._exists()
        with self.entered():
            return subprocess.run(command, **{**defaults, **options})  # noqa: PLW1510 - `check` is among them

    def popen(self, command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Start *command* inside this host; it is killed when the network is closed.

        Parameters
        ----------
        command
            The program and its arguments.
        options
            As of `subprocess.Popen`.
        """
        self._exists()
        with self.entered():
            return subprocess.Popen(command, **options)

    def _exists(self) -> None:
        if self.netns not in netns.names():
            raise LabError(
                f"{self.name} of the practice network does not exist any more",
                fix="Use it inside the `with netlab.lab.practice()` block",
            )
