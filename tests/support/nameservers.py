"""Name servers inside a network namespace of the test: dnsmasq, and one that fails as it is told to."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dns.message
import dns.rcode
import dns.rrset
from certificates import certify
from overheard import until

from netlab.kernel import netns

V4, V6 = "127.0.0.1", "::1"  # dnsmasq
DEAD = "127.0.0.9"  # packets to it are dropped
OWN = "127.0.0.8"  # does what a name's first label says
DELAY_S = 0.3
PATIENCE_S = 30
LONG = ",".join("x" * 250 for _ in range(4))  # more than a datagram without EDNS may have

DNSMASQ = f"""
port=53
listen-address={V4},{V6}
bind-interfaces
no-resolv
no-hosts
user=root
local=/test/
local-ttl=300
address=/many.test/192.0.2.9
host-record=www.test,192.0.2.1,2001:db8::1
host-record=app.test,192.0.2.7
host-record=later.test,192.0.2.7
host-record=two.test,192.0.2.1
host-record=two.test,192.0.2.2
cname=alias.test,www.test,77
cname=far.test,alias.test,88
txt-record=big.test,{LONG}
mx-host=mail.test,www.test,10
srv-host=_sip._udp.test,www.test,5060,1,2
ptr-record=1.2.0.192.in-addr.arpa,www.test
server=/own/{OWN}
"""
NGINX = f"""
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off; master_process off; pid {{place}}/pid; error_log {{place}}/error.log;
events {{{{ worker_connections 64; }}}}
stream {{{{
    ssl_certificate {{place}}/cert.pem; ssl_certificate_key {{place}}/key.pem;
    server {{{{ listen {V4}:853 ssl; listen [{V6}]:853 ssl; proxy_pass {V4}:53; }}}}
}}}}
"""
RULES = f"""
table inet dead {{
  chain input {{
    type filter hook input priority 0; policy accept;
    ip daddr {DEAD} udp dport 53 drop
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class Place:
    """The namespace with the name servers."""

    name: str

    def run(self, *command: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command there, with what /etc/netns has of the namespace."""
        return subprocess.run(
            ["ip", "netns", "exec", self.name, *command],
            capture_output=True, text=True, check=False, timeout=PATIENCE_S, **options,
        )  # fmt: skip

    def dig(self, *words: str) -> str:
        """Ask as dig(1) does, and return what it prints."""
        return self.run("dig", *words).stdout

    def asker(self) -> socket.socket:
        """Return a socket of the namespace to ask with."""
        with netns.entered(self.name):
            asker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        asker.settimeout(PATIENCE_S)
        return asker

    @contextlib.contextmanager
    def resolv_conf(self, *lines: str) -> Iterator[None]:
        """Have resolvers there read these lines."""
        file = Path("/etc/netns", self.name, "resolv.conf")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join(lines) + "\n", encoding="ascii")
        try:
            yield
        finally:
            file.unlink()
            file.parent.rmdir()


def query(name: str) -> bytes:
    """Return a query for the address of *name*."""
    return dns.message.make_query(name, "A").to_wire()


@contextlib.contextmanager
def place(directory: Path) -> Iterator[Place]:
    """Make the namespace, and its name servers in it, ready to answer."""
    here = Place(f"netlab-test-dns-{os.getpid()}")
    subprocess.run(["ip", "netns", "add", here.name], check=True)
    try:
        here.run("ip", "link", "set", "lo", "up").check_returncode()
        here.run("nft", "-f", "-", input=RULES).check_returncode()
        (directory / "dnsmasq.conf").write_text(DNSMASQ, encoding="ascii")
        with _dnsmasq(here, directory), _own_server(here):
            yield here
    finally:
        subprocess.run(["ip", "netns", "del", here.name], check=True)


@contextlib.contextmanager
def _dnsmasq(here: Place, directory: Path) -> Iterator[None]:
    with netns.entered(here.name), (directory / "dnsmasq.log").open("w") as log:
        files = [f"--conf-file={directory}/dnsmasq.conf", "--pid-file", "--log-facility=-"]
        server = subprocess.Popen(["dnsmasq", "--keep-in-foreground", *files], stderr=log)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while "status: NOERROR" not in here.dig(f"@{V6}", "www.test", "+tries=1", "+time=1"):
            assert server.poll() is None, (directory / "dnsmasq.log").read_text()
            assert time.monotonic() < deadline, "dnsmasq does not answer"
        yield
    finally:
        server.terminate()
        server.wait(PATIENCE_S)


@contextlib.contextmanager
def sealed(here: Place, directory: Path) -> Iterator[None]:
    """Run nginx in front of dnsmasq, for who asks in TLS."""
    certify(directory)
    (directory / "nginx.conf").write_text(NGINX.format(place=directory), encoding="ascii")
    with netns.entered(here.name):
        server = subprocess.Popen(["nginx", "-p", str(directory), "-c", str(directory / "nginx.conf")])
    try:
        until(lambda: here.run("bash", "-c", "</dev/tcp/127.0.0.1/853").returncode == 0)
        yield
    finally:
        server.kill()
        server.wait()


@contextlib.contextmanager
def _own_server(here: Place) -> Iterator[None]:
    with netns.entered(here.name):
        listening = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        waking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with listening, waking:
        listening.bind((OWN, 53))
        thread = threading.Thread(target=_serve, args=(listening,))
        thread.start()
        try:
            yield
        finally:
            waking.sendto(b"", (OWN, 53))
            thread.join()


def _serve(listening: socket.socket) -> None:
    while True:
        data, peer = listening.recvfrom(4096)
        if not data:
            return
        query = dns.message.from_wire(data)
        word = query.question[0].name.labels[0].lower().decode()
        answer = dns.message.make_response(query)
        if word in {"servfail", "refused", "notimp", "formerr"}:
            answer.set_rcode(dns.rcode.from_text(word))
        elif query.question[0].rdtype == dns.rdatatype.A:
            answer.answer.append(dns.rrset.from_text(query.question[0].name, 5, "IN", "A", "192.0.2.8"))
        if word == "slow":
            time.sleep(DELAY_S)
        if word == "garbage":
            listening.sendto(data[:2] + b"\x81\x80" + b"\xff" * 20, peer)
        for _ in range({"silent": 0, "garbage": 0, "twice": 2}.get(word, 1)):
            listening.sendto(answer.to_wire(), peer)
