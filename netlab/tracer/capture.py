"""`netlab.capture()`: follow TCP connection attempts and UDP flows, and ask at any moment what was seen."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import TypeAlias

from netlab import checks
from netlab.errors import BadInput
from netlab.kernel import netns as namespaces, spaces
from netlab.protocols.masking import Masking, masking
from netlab.tracer import modes, readers
from netlab.tracer.excludes import Excluded
from netlab.tracer.filters import Addresses, Filter, Names, Pids, Ports, Spaces
from netlab.tracer.limits import DEFAULTS, Limits
from netlab.tracer.options import Options
from netlab.tracer.payload import Spoken
from netlab.tracer.session import Capture

Protocols: TypeAlias = str | Iterable[str]
Masked: TypeAlias = str | Iterable[str]

_CHANGE_PAGES = 4096  # 16 MiB hold some 260,000 state changes


@checks.options
def capture(
    *,
    mode: str = "ebpf",
    duration_s: float | None = None,
    port: Ports = None,
    pid: Pids = None,
    process: Names = None,
    remote: Addresses = None,
    local: Addresses = None,
    protocol: str | None = None,
    netns: Spaces = spaces.ALL,
    direction: str | None = None,
    exclude_remote: Excluded | None = None,
    exclude_local: Excluded | None = None,
    backfill: bool = True,
    events: bool = False,
    drops: bool = False,
    protocols: Protocols = (),
    clear_text: bool = False,
    dns_ports: int | Iterable[int] = (53, 5353, 5355),
    dns_timeout_s: float = 15.0,
    mask: Mapping[str, str] | None = None,
    mask_names: Masked = (),
    nat: bool | namespaces.NetNs = True,
    cost: bool = False,
    client_expiry_s: float = 120.0,
    poll_every_s: float = 0.5,
    max_open: int = DEFAULTS.max_open,
    max_closed: int = DEFAULTS.max_closed,
    max_processes: int = DEFAULTS.max_processes,
    max_drops: int = DEFAULTS.max_drops,
    max_nat: int = DEFAULTS.max_nat,
    max_requests: int = DEFAULTS.max_requests,
) -> Capture:
    """Follow TCP connection attempts and UDP flows, over IPv4 and IPv6, in every network namespace here.

    Parameters
    ----------
    mode
        "ebpf" sees every attempt. "poll" lists the sockets again and again instead: without privileges and
        without eBPF, but short connections and reasons of failures are missed; the coverage says how many.
        On macOS and Windows "poll" lists them by psutil, without counters: see Notes.
    duration_s
        Stop after this many seconds; leaving the `with` block then waits for the end. Without it the capture
        goes on until the block is left or `stop()` is called.
    port
        Follow only attempts with this port, or one of these, at either end.
    pid, process
        Follow only attempts of these process ids or command names (any match). The owner of an accepted
        connection is known when it is looked for or closed, so this filter is applied to those afterwards.
    remote, local
        Follow only attempts whose end is one of these addresses or in one of these CIDRs. An IPv4-mapped
        IPv6 address counts as the IPv4 address in it.
    protocol
        "tcp" or "udp"; both by default. What is not asked for has no programs attached.
    netns
        Follow only attempts in these network namespaces: a name under /run/netns, a path, a process id, an
        inode as in the frames' `netns` column, or several; "all", the default, is all, and
        None the calling thread's own alone.
        One that is named is kept until the capture stops, with its interfaces, even when its container is
        gone: the kernel would give its inode to the next one.
    direction
        "outgoing" or "incoming". Of a connection older than the capture TCP's sequence numbers tell, or else
        the ports; where these do not, the connection is kept, and its `direction` is "unknown".
    exclude_remote, exclude_local
        Leave out attempts with this end: an address, a CIDR or "*", mapped to ports, ranges or "*", each for
        one protocol if that is named first, such as `{"10.0.0.0/8": ["80", "8000-8999", "udp 53"]}`.
    backfill
        List the connections that are open already, too.
    events
        Record every change of state for `Capture.events()`, at some cost per connection.
    drops
        Record packets that this host dropped and TCP resets, each with the kernel's reason, for
        `Capture.drops()` and the `reason` column of `Capture.failures()`. Without it a SYN flood goes unseen:
        a handshake that is not finished is no row, and only the coverage of `Capture.drops()` counts the SYNs
        that a SYN cookie answered and nobody came back with.
    protocols
        What to read of what connections say: "http", "http2", "grpc", "kafka", "postgres" and "redis" for
        `Capture.requests()`, "tls" for `Capture.tls()`, "dns" for `Capture.dns()`, `Capture.names()` and the
        column `remote_name`, or several. Every TCP packet then runs a program; payload is read and not kept.
    clear_text
        Read *protocols* inside TLS, too, by probes on OpenSSL (1.1 and later) and GnuTLS in every process
        that uses these libraries: what users meant to be secret passes through netlab, and as little of it
        is kept as of plain text. Programs that have OpenSSL in them are read, if they offer its functions to
        others, as Node.js does. What other libraries seal (those of Go, Java, NSS, rustls, BoringSSL), or
        these two hidden in a program, is not read: the coverage counts such connections.
    dns_ports, dns_timeout_s
        With "dns": the ports that servers have, and how many seconds an answer may take. The filters above
        hold for lookups, too. DNS over TLS (port 853) is read with *clear_text*; over HTTPS it is not.
    mask
        With *protocols*: what is to be hidden in the column `resource` (paths, keys, topics, tables), beside
        ids, queries and values, which always are: regular expressions, and what each match becomes, such as
        `{r"^/tenants/[^/]+": "/tenants/*"}`. Their syntax is RE2's, so that none takes longer than in
        proportion to the text, of which 4,096 characters are read; applied before a request is kept.
    mask_names
        Domains under which names of hosts are shown as `*`, such as "corp.example": in every frame made of
        DNS, in `host` of requests and in names asked for by TLS (not in command lines).
    nat
        Fill the `nat_*` columns from conntrack: what the connection's own network namespace translates, then
        the host's (that of process 1), or that of the namespace named here instead. Conntrack is not loaded
        for it, and where no rule tracks connections it costs nothing; elsewhere the kernel tells netlab of
        each entry made and ended, for some 10 µs of CPU time. A namespace that ends is kept up to a second
        longer.
    cost
        Have the kernel time the capture's programs for `Capture.cost()`; a run then takes some 50 ns more.
    client_expiry_s
        A client of `Capture.delta()` that does not ask for so many seconds is forgotten.
    poll_every_s
        With mode "poll": how often to look.
    max_open, max_closed
        How many attempts are kept at a time; what does not fit is counted in the coverage.
    max_processes
        How many owners are remembered after they have exited; of those forgotten attempts are counted, too.
    max_drops
        How many kinds of drops (same tuple, reason and place) are told apart; the rest is counted.
    max_nat
        How many translations are kept, also of entries that have ended; the oldest go first, and are counted.
    max_requests
        How many requests are kept; the oldest go first, and are counted.

    Returns
    -------
    Capture
        Not started yet: enter it with `with`, or call `start()`.

    Raises
    ------
    BadInput
        If an option cannot be right.
    CapabilityError
        If this process may not attach eBPF programs, or BCC is missing, or with "poll" outside of Linux
        psutil; the message has the fix.

    Notes
    -----
    Attempts begin at the cgroup hooks of connect(2), or at the end of the handshake for accepted ones; state
    changes come from the raw tracepoint `inet_sock_set_state` (net/ipv4/af_inet.c), counters from the
    kernel's own `struct tcp_sock` at the moment of closing. UDP flows are added up by cgroup_skb programs on
    the root control group, which run for each packet and leave those of TCP at once; with protocol="tcp"
    nothing runs per packet, and one small program each time that a process has read.

    Outside of Linux lists have tuples, states and owners, and nothing else: other columns are missing, and
    the coverage says why. Nobody counts there how many connections are missed. macOS tells only root of other
    users' processes. `netns`, and a namespace as `nat`, are refused. It was tried with psutil on Linux only.

    Translations are those of netfilter's conntrack, found by tuple, namespace and time; what the eBPF
    programs of others translate, such as Cilium's, is not in them.

    Filters are compiled into the programs; one with more than 64 ranges, networks or other items is applied
    to what they report instead, with the same result.

    Examples
    --------
    >>> import netlab
    >>> with netlab.capture(port=443) as cap:
    ...     pass
    >>> cap.connections().columns[:5].tolist()
    ['process', 'error', 'remote_address', 'remote_port', 'state']
    """
    checks.choice("mode", mode, modes.MODES)
    modes.refuse_spaces(netns, nat)
    wanted = Filter.of(
        port=port,
        pid=pid,
        process=process,
        remote=remote,
        local=local,
        protocol=protocol,
        netns=netns,
        direction=direction,
        exclude_remote=exclude_remote,
        exclude_local=exclude_local,
    )
    for name, value in {
        "backfill": backfill,
        "events": events,
        "drops": drops,
        "cost": cost,
        "clear_text": clear_text,
    }.items():
        checks.flag(name, value)
    if duration_s is not None:
        checks.positive("duration_s", duration_s, unit="seconds", most=threading.TIMEOUT_MAX)
    checks.positive("client_expiry_s", client_expiry_s, unit="seconds")
    checks.whole("max_open", max_open, 1, 1 << 24)
    checks.whole("max_closed", max_closed, 1, 1 << 30)
    checks.whole("max_processes", max_processes, 1, 1 << 20)
    checks.positive("poll_every_s", poll_every_s, unit="seconds", most=threading.TIMEOUT_MAX)
    checks.whole("max_drops", max_drops, 1, 1 << 24)
    checks.whole("max_nat", max_nat, 1, 1 << 30)
    checks.whole("max_requests", max_requests, 1, 1 << 24)
    masks = masking(mask, checks.one_or_more("mask_names", mask_names))
    spoken = _spoken(
        protocols,
        dns_ports,
        dns_timeout_s,
        masks,
        clear_text=clear_text,
        over=protocol,
        wanted=wanted,
    )
    modes.require(mode, wanted, events=events, drops=drops, cost=cost, protocols=bool(spoken))
    limits = Limits(
        max_open=max_open,
        max_closed=max_closed,
        max_processes=max_processes,
        max_drops=max_drops,
        max_nat=max_nat,
        max_requests=max_requests,
        change_pages=_CHANGE_PAGES if events else DEFAULTS.change_pages,
    )
    return Capture(
        Options(
            wanted,
            limits,
            duration_s=duration_s,
            backfill=backfill,
            events=events,
            drops=drops,
            spoken=spoken,
            cost=cost,
            client_expiry_s=client_expiry_s,
            mode=mode,
            poll_every_s=poll_every_s,
            nat=modes.host_of(nat),
        )
    )


def _spoken(
    protocols: Protocols,
    ports: int | Iterable[int],
    timeout_s: float,
    masks: Masking,
    *,
    clear_text: bool,
    over: str | None,
    wanted: Filter,
) -> Spoken:
    """Check what is to be read of what connections say."""
    given = checks.one_or_more("protocols", protocols)
    names = frozenset(checks.choice("protocols", name, readers.PROTOCOLS) for name in given)
    readers.prepare(names)
    checks.positive("dns_timeout_s", timeout_s, unit="seconds")
    if over == "udp" and names - {"dns"}:
        raise BadInput(
            f'{min(names - {"dns"})} is spoken over TCP, which protocol="udp" leaves out',
            fix="Leave protocol out",
        )
    dns_ports = tuple(checks.port(port, "dns_ports") for port in checks.one_or_more("dns_ports", ports, int))
    if clear_text and not names - {"tls"}:
        raise BadInput(
            "clear_text= reads protocols inside TLS, and none is asked for",
            fix='Name them: protocols=("http", "http2")',
        )
    if "dns" in names:
        if not dns_ports:
            raise BadInput("dns_ports is empty", fix="Name the ports of DNS servers, or leave it out")
        if wanted.ports and not set(wanted.ports) & {*dns_ports, *[readers.DNS_OVER_TLS] * clear_text}:
            raise BadInput(
                "port= leaves out every port of DNS, and so every lookup",
                fix=f"Add {dns_ports[0]} to it, or leave it out and filter the frames",
            )
    return Spoken(names, dns_ports, timeout_s, masks, clear_text, wanted.direction)
