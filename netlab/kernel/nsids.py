"""Which network namespace an id stands for: interfaces name the namespace of their other end by such ids.

Every namespace numbers those that it has to do with on its own. RTM_GETNSID tells the number of a namespace
that one has a descriptor of, so the namespaces that can be found here are asked for one by one
(net/core/net_namespace.c).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from netlab.kernel import netlink, rtnetlink
from netlab.kernel.nlattr import attribute

_GET_NSID = 90
_BODY = 4  # struct rtgenmsg, padded
_NSID, _BY_DESCRIPTOR = (1,), 3  # NETNSA_NSID, NETNSA_FD
_NONE = -1  # NETNSA_NSID_NOT_ASSIGNED


def known(files: Mapping[int, Path]) -> dict[int, int]:
    """Return the inodes of namespaces by the ids that the calling thread's namespace has for them.

    Parameters
    ----------
    files
        The namespaces to ask for: inode to a file that stands for it, as `netlab.kernel.netns.everywhere`
        returns them. Those that this process may not open are left out.
    """
    found: dict[int, int] = {}
    for inode, file in files.items():
        with suppress(OSError):  # gone, or not ours to look at
            descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
            try:
                number = _number(descriptor)
            finally:
                os.close(descriptor)
            if number != _NONE:
                found[number] = inode
    return found


def _number(descriptor: int) -> int:
    body = bytes(_BODY) + attribute(_BY_DESCRIPTOR, struct.pack("=I", descriptor))
    answer = netlink.get(rtnetlink.ROUTE, _GET_NSID, body, doing="ask for a network namespace's id")
    for group in answer.groups(_BODY):
        numbers = group.get(_NSID, "i4")
        if numbers is not None:
            return int(numbers[0])
    return _NONE
