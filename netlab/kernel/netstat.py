"""The kernel's own TCP/IP statistics of a network namespace: /proc/net/snmp, netstat and snmp6."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def counters() -> dict[str, int]:
    """Return the counters of the calling thread's namespace by group and name, such as "Udp6.InErrors"."""
    found: dict[str, int] = {}
    for file in ("snmp", "netstat"):
        lines = Path(f"/proc/thread-self/net/{file}").read_text(encoding="ascii").splitlines()
        for names, values in zip(lines[::2], lines[1::2], strict=True):
            group, *words = names.replace(":", "").split()
            numbers = map(int, values.split()[1:])
            found |= {f"{group}.{word}": number for word, number in zip(words, numbers, strict=True)}
    with suppress(FileNotFoundError):  # a kernel without IPv6
        for line in Path("/proc/thread-self/net/snmp6").read_text(encoding="ascii").splitlines():
            name, number = line.split()
            group, word = name.split("6", 1)
            found[f"{group}6.{word}"] = int(number)
    return found
