"""The command line: parse, call, print."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import netlab
from netlab import checks
from netlab.errors import BadInput, NetlabError

_READABLE = (40, 100)  # characters of a line


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `netlab`; return 0 if it was done, 1 if it did not hold, 2 if it failed, 130 if interrupted."""
    options = _parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except BrokenPipeError:  # whoever reads has enough, as head(1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes once more
        return 0
    except NetlabError as error:
        print(f"netlab: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("netlab: interrupted; nothing was left behind", file=sys.stderr)
        return 130


def _say(text: str) -> None:
    """Print *text* now, where it is known what to do when nobody reads it or the disk is full.

    What the terminal's encoding lacks (LC_ALL=C, and a process with an umlaut) is printed as an escape.
    """
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        # without a standard output (>&-) nobody wants it
        print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise NetlabError(f"the answer cannot be written: {error.strerror}") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="netlab", description="What is connected, what failed, which way it goes."
    )
    parser.add_argument("--version", action="version", version=f"netlab {netlab.__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")

    doctor = commands.add_parser("doctor", help="say what works on this host, and how to fix the rest")
    doctor.set_defaults(run=_doctor)

    demo = commands.add_parser("demo", help="the main job, on a practice network made for it")
    demo.add_argument("--here", action="store_true", help="on this host instead of the practice network")
    demo.add_argument("--duration-s", type=float, help="with --here: seconds to capture (10)")
    demo.add_argument("--target", action="append", help="with --here: what to trace (the peers seen most)")
    demo.add_argument("--output", type=Path, default=Path("build/demo"), help="where to write (build/demo)")
    demo.set_defaults(run=_demo)

    trace = commands.add_parser("traceroute", help="trace the path to a host")
    trace.add_argument("target")
    trace.add_argument("--protocol", default="udp", help="udp, tcp, icmp or tcp-sack (udp)")
    trace.add_argument("--port", type=int, help="destination port (udp 33434, tcp 80)")
    trace.add_argument("--family", type=int, help="4 or 6")
    trace.add_argument("--max-ttl", type=int, default=30, help="the last TTL to probe (30)")
    trace.set_defaults(run=_traceroute)

    agent = commands.add_parser("agent", help="answer notebooks that have no privileges, over a unix socket")
    agent.add_argument("action", nargs="?", choices=["run", "status"], default="run")
    agent.add_argument("--socket", type=Path, help="where to listen (/run/netlab/agent.sock)")
    agent.add_argument("--group", help="serve the members of this group, too, not just root")
    agent.add_argument("--idle-s", type=float, default=600.0, help="end captures that nobody reads (600)")
    agent.add_argument("--exit-idle-s", type=float, help="end when nobody asked for anything for so long")
    agent.add_argument("--memory-mib", type=float, default=1536.0, help="what it may use (1536)")
    agent.add_argument("--listen", metavar="ADDRESS:PORT", help="over TCP, too; takes a token or --client-ca")
    for option, what in _AGENT_FILES.items():
        agent.add_argument(f"--{option}", type=Path, metavar="FILE", help=what)
    agent.set_defaults(run=_agent)

    lab = commands.add_parser("lab", help="the practice network")
    lab.add_argument("action", choices=["clean"], help="remove what a killed process left behind")
    lab.set_defaults(run=_lab)
    return parser


_AGENT_FILES = {
    "token-file": "what requests over TCP have to bring; readable by nobody else",
    "tls-cert": "the certificate for TCP, without which only loopback is listened on",
    "tls-key": "its key",
    "client-ca": "serve over TCP who has a certificate of this authority",
}


def _doctor(_: argparse.Namespace) -> int:
    from netlab.checkup import doctor
    from netlab.console import as_findings

    narrowest, widest = _READABLE
    _say(as_findings(doctor(), max(narrowest, min(shutil.get_terminal_size().columns, widest))))
    return 0


def _demo(options: argparse.Namespace) -> int:
    from netlab import demo

    if not options.here and (options.target or options.duration_s is not None):
        raise BadInput("--target and --duration-s are for this host", fix="Give --here, too")
    demo.prepare(options.output)
    if options.here:
        seconds = 10.0 if options.duration_s is None else options.duration_s
        evidence = demo.on_this_host(duration_s=seconds, targets=options.target or [])
    else:
        evidence = demo.on_practice_network()
    _say(demo.report(evidence))
    for written in demo.write(evidence, options.output, notebook=not options.here):
        _say(f"wrote {written}")
    return 0 if all(evidence.claims.values()) else 1


def _traceroute(options: argparse.Namespace) -> int:
    from netlab.console import as_text
    from netlab.frames import coverage
    from netlab.path.trace import traceroute

    hops = traceroute(
        options.target,
        protocol=options.protocol,
        port=options.port,
        family=options.family,
        max_ttl=options.max_ttl,
    )
    _say(as_text(hops[["ttl", "attempt", "address", "rtt_ms", "reply", "reached"]]))
    for gap in coverage(hops).itertuples():
        print(f"netlab: {gap.kind}: {gap.what}: {gap.detail}", file=sys.stderr)
    return 0


def _agent(options: argparse.Namespace) -> int:
    from netlab.agent import client, delegation, remote, server

    path = options.socket or delegation.usual_socket()
    if options.action == "status":
        with client.connect(path) as host:
            _say("\n".join(f"{name}: {value}" for name, value in host.status().items()))
        return 0
    given = {name.replace("-", "_"): getattr(options, name.replace("-", "_")) for name in _AGENT_FILES}
    if not options.listen and any(given.values()):
        raise BadInput("a token or certificate is for TCP", fix="Give --listen ADDRESS:PORT, too")
    if options.exit_idle_s is not None:
        checks.positive("exit-idle-s", options.exit_idle_s, unit="seconds")
    server.run(
        path,
        group=options.group,
        idle_s=checks.positive("idle-s", options.idle_s, unit="seconds"),
        exit_idle_s=options.exit_idle_s,
        most_bytes=round(checks.positive("memory-mib", options.memory_mib, unit="MiB") * (1 << 20)),
        remote=remote.Remote.of(options.listen, **given) if options.listen else None,
    )
    return 0


def _lab(_: argparse.Namespace) -> int:
    from netlab.lab import clean

    removed = clean()
    _say("\n".join(f"removed {name}" for name in removed) or "nothing was left behind")
    return 0
