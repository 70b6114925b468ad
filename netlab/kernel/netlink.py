"""Netlink requests: what the kernel is asked, and its answers received in blocks.

A dump is received into one growing buffer; what is in it, `nlmessages` tells.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import secrets
import socket
import struct

import numpy as np

from netlab.errors import CapabilityError, KernelError
from netlab.frames import Gap, Missing
from netlab.kernel.nlmessages import (
    HEADER,
    Dump,
    Words,
    answers,
    word_count,
)

_CLOSING = struct.Struct("=IHHIIi")  # a header and the errno that DONE and ERROR carry
_ERROR, _DONE = 2, 3
_REQUEST, _DUMP = 0x001, 0x300
_LARGEST_BLOCK = 32 * 1024  # the kernel never fills more of one dump block (net/netlink/af_netlink.c)
_FIRST_BUFFER = 1 << 21
_SILENCE_S = 10.0  # a dump that stalls this long will not go on
# No such netlink family; no such subsystem in nfnetlink; no such handler in sock_diag.
_NOBODY_ANSWERS = {errno.EPROTONOSUPPORT, errno.EINVAL, errno.ENOENT, errno.EOPNOTSUPP}

INTERRUPTED = Missing(
    "entries",
    Gap.APPROXIMATE,
    None,
    "the kernel's table changed while it was read: some entries may be missing or listed twice",
)


def dump(protocol: int, message_type: int, body: bytes, *, doing: str, module: str = "") -> Dump:
    """Request a dump and read it whole, in the network namespace of the calling thread.

    Parameters
    ----------
    protocol
        Netlink family, such as `socket.NETLINK_NETFILTER` (12).
    message_type
        The request's type; the answers' type is the kernel's affair.
    body
        What follows the netlink header.
    doing
        What the caller is about to do, for error messages: "list TCP sockets".
    module
        The kernel module that answers, for the advice when none does.

    Raises
    ------
    CapabilityError
        If the kernel refuses this process.
    KernelError
        If the kernel refuses for another reason, stops answering, or answers what is no netlink message.
    """
    try:
        kernel = opened(protocol)
    except OSError as error:
        raise refusal(error.errno, doing, module=module) from error
    with kernel:
        return dump_over(kernel, message_type, body, doing=doing, module=module)


def opened(protocol: int) -> socket.socket:
    """Return a netlink socket of the calling thread's namespace that does not wait for ever."""
    kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
    try:
        kernel.settimeout(_SILENCE_S)
        kernel.bind((0, 0))
    except BaseException:
        kernel.close()
        raise
    return kernel


def dump_over(kernel: socket.socket, message_type: int, body: bytes, *, doing: str, module: str = "") -> Dump:
    """Do what `dump` does over a socket that is open already, in the namespace it was opened in."""
    sequence = secrets.randbits(32) | 1  # 0 stands in too many payloads
    header = HEADER.pack(HEADER.size + len(body), message_type, _REQUEST | _DUMP, sequence, 0)
    try:
        kernel.send(header + body)
        words = _receive(kernel, sequence)
    except TimeoutError as error:
        raise KernelError(f"the kernel stopped answering while netlab tried to {doing}") from error
    except OSError as error:
        raise refusal(error.errno, doing, module=module) from error
    return answers(words, sequence)


def get(protocol: int, message_type: int, body: bytes, *, doing: str, module: str = "") -> Dump:
    """Request one object, in the network namespace of the calling thread.

    Takes and raises what `dump` does; without such an object (ENOENT) the answer has no message.
    """
    sequence = secrets.randbits(32) | 1
    header = HEADER.pack(HEADER.size + len(body), message_type, _REQUEST, sequence, 0)
    try:
        with opened(protocol) as kernel:
            kernel.send(header + body)
            answer = kernel.recv(_LARGEST_BLOCK)
        _closes(memoryview(answer), 0, sequence)  # raises the error it may be
    except TimeoutError as error:
        raise KernelError(f"the kernel stopped answering while netlab tried to {doing}") from error
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise refusal(error.errno, doing, module=module) from error
        answer = b""
    words = np.frombuffer(answer, np.uint32, len(answer) // 4)
    return answers(words, sequence) if len(words) else Dump.of(words)


def _receive(kernel: socket.socket, sequence: int) -> Words:
    """Receive blocks up to and including the one that closes the dump."""
    buffer, used = _memory(), 0
    while True:
        if len(buffer) - used < _LARGEST_BLOCK:
            buffer.resize(2 * len(buffer))  # mremap(2): no byte is copied
        with memoryview(buffer) as whole, whole[used:] as free:
            got = kernel.recv_into(free, 0, socket.MSG_TRUNC)  # MSG_TRUNC: the length that was sent
            if got > len(free):
                raise KernelError(f"a netlink block of {got} bytes is larger than the kernel's own limit")
            used += word_count(got) * 4
            if _closes(free, 0, sequence) or _closes(free, got - _CLOSING.size, sequence):
                return np.frombuffer(buffer, np.uint32, used // 4)


def _memory() -> mmap.mmap:
    """Return memory that can grow in place, in huge pages where the host allows: a dump may be 100 MB."""
    memory = mmap.mmap(-1, _FIRST_BUFFER, flags=mmap.MAP_PRIVATE)
    with contextlib.suppress(OSError):  # a kernel without huge pages
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


def _closes(block: memoryview, at: int, sequence: int) -> bool:
    """Tell whether the message at *at* ends the dump; raise the error it carries."""
    if not 0 <= at <= len(block) - _CLOSING.size:
        return False
    length, kind, _, answered, _, code = _CLOSING.unpack_from(block, at)
    if answered != sequence or kind not in {_ERROR, _DONE} or length < _CLOSING.size:
        return False
    if code < 0:
        raise OSError(-code, os.strerror(-code))
    return True


def refusal(code: int | None, doing: str, *, module: str = "") -> KernelError | CapabilityError:
    """Return the error for a netlink request that the kernel refused with errno *code*."""
    code = code or 0
    reason = f"the kernel refused to {doing}: {errno.errorcode.get(code, code)} ({os.strerror(code)})"
    if code in {errno.EPERM, errno.EACCES}:
        return CapabilityError(reason, fix="Run as root, or grant CAP_NET_ADMIN in this network namespace")
    if module and code in _NOBODY_ANSWERS:
        return KernelError(reason, fix=f"Load the kernel's part for it: `modprobe {module}`")
    return KernelError(reason, fix="netlab.doctor() tells what works on this kernel")
