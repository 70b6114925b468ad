from __future__ import annotations

import errno
import socket
import struct
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from netlab.errors import CapabilityError, KernelError
from netlab.kernel import netlink
from tests.support.nlencoded import DONE, ERROR, SEQUENCE, done, message

# Receiving: blocks sent through a real socket.


def received(*blocks: bytes) -> bytes:
    kernel, user = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with kernel, user, ThreadPoolExecutor(1) as pool:
        user.settimeout(5)
        sending = pool.submit(lambda: [kernel.send(block) for block in blocks])
        words = netlink._receive(user, SEQUENCE)
        sending.result()
    return words.tobytes()


def test_blocks_are_received_up_to_the_one_that_closes_the_dump() -> None:
    blocks = [message(bytes([n]) * 30_000) for n in range(60)]  # more than the first buffer holds

    assert received(*blocks, done()) == b"".join(blocks) + done()


def test_the_closing_message_may_share_a_block() -> None:
    block = message(b"x" * 40) + done()

    assert received(block) == block


def test_a_closing_message_of_another_request_closes_nothing() -> None:
    foreign = message(struct.pack("=i", 0), DONE, sequence=SEQUENCE ^ 1)

    assert received(message(b""), foreign, done()) == message(b"") + foreign + done()


@pytest.mark.parametrize("kind", [ERROR, DONE])
def test_an_error_in_the_dump_is_raised(kind: int) -> None:
    with pytest.raises(OSError, match="buffer") as caught:
        received(message(struct.pack("=i16x", -errno.ENOBUFS), kind))

    assert caught.value.errno == errno.ENOBUFS


def test_a_block_that_was_cut_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netlink, "_FIRST_BUFFER", netlink._LARGEST_BLOCK)

    with pytest.raises(KernelError, match="larger than"):
        received(message(b"x" * 50_000), done())


# The kernel of this machine.


def test_a_refused_privilege_is_a_capability_error() -> None:
    refused = netlink.refusal(errno.EPERM, "list something")

    assert isinstance(refused, CapabilityError)
    assert "CAP_NET_ADMIN" in refused.fix


@pytest.mark.privileged
def test_a_subsystem_that_nobody_serves_is_refused_with_the_module_to_load() -> None:
    with pytest.raises(KernelError, match=r"refused to list nothing: EINVAL.*modprobe nf_nothing"):
        netlink.dump(12, 0xFE01, b"\0" * 4, doing="list nothing", module="nf_nothing")


def test_a_protocol_the_kernel_does_not_speak_is_refused() -> None:
    with pytest.raises(KernelError, match="EPROTONOSUPPORT"):
        netlink.dump(31, 0x10, b"", doing="list nothing")


def test_a_kernel_that_does_not_answer_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netlink, "_SILENCE_S", 0.05)
    no_operation = 1  # the kernel reads NLMSG_NOOP and says nothing

    with pytest.raises(KernelError, match="stopped answering while netlab tried to wait"):
        netlink.dump(socket.NETLINK_ROUTE, no_operation, b"", doing="wait")


def test_the_interfaces_dumped_are_those_of_the_host() -> None:
    link = np.dtype([("family", "u1"), ("pad", "u1"), ("type", "u2"), ("index", "i4"), ("rest", "u4", 2)])
    dump = netlink.dump(socket.NETLINK_ROUTE, 18, bytes(link.itemsize), doing="list interfaces")
    named = {}
    for group in dump.groups(link.itemsize):
        names = [octets.tobytes().rstrip(b"\0").decode() for octets in group.octets((3,))]
        named |= dict(zip(dump.body(link)["index"][group.rows].tolist(), names, strict=True))

    assert named == dict(socket.if_nameindex())
