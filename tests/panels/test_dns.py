"""`LiveDNS` on real lookups, in an event loop as a notebook's kernel has one."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import dns.message
import dns.rcode
import pytest
from loops import run, until

from netlab.errors import BadInput
from netlab.panels import LiveDNS

FAILS = "fails.example."


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, int]]:
    """Run a server on loopback that knows no address, and fails for one name."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=answer, args=(sock,))
        thread.start()
        yield sock.getsockname()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", sock.getsockname())
        thread.join()


def answer(sock: socket.socket) -> None:
    while True:
        query, asker = sock.recvfrom(512)
        if not query:
            return
        reply = dns.message.make_response(dns.message.from_wire(query))
        reply.set_rcode(dns.rcode.SERVFAIL if str(reply.question[0].name) == FAILS else dns.rcode.NOERROR)
        sock.sendto(reply.to_wire(), asker)


def ask(server: tuple[str, int], name: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(30)
        sock.sendto(dns.message.make_query(name, "A").to_wire(), server)
        sock.recv(512)


@pytest.mark.privileged
def test_failed_lookups_come_first(server: tuple[str, int]) -> None:
    async def work() -> None:
        panel = LiveDNS(dns_ports=server[1]).start()
        for name in (FAILS, "works.example."):
            ask(server, name)
        await until(lambda: panel.table.view["total"] == 4)  # asker and server are both here
        rows = [(row["bad"], row["cells"][:3]) for row in panel.table.view["rows"]]
        assert rows == [
            *[(True, ["SERVFAIL", "fails.example", "A"])] * 2,
            *[(False, ["NOERROR", "works.example", "A"])] * 2,
        ]
        assert ">failed" in panel._head.value
        panel.close()

    run(work())


def test_options_and_a_source_do_not_go_together() -> None:
    with pytest.raises(BadInput, match="'dns_ports' comes with a source"):
        LiveDNS(object(), dns_ports=53)  # type: ignore[arg-type]
