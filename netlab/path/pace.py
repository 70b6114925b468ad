"""How fast probes may leave."""

from __future__ import annotations

# Linux answers with at most 1000 ICMP errors a second in all and 50 at once (net.ipv4.icmp_msgs_per_sec and
# icmp_msgs_burst, Documentation/networking/ip-sysctl.rst): a faster prober only measures that limit.
PER_SECOND = 1000
BURST = 50


class Pace:
    """Lets a burst through and then a steady rate, never more than *per_second* packets in any second.

    The generic cell rate algorithm (ITU-T I.371): one number, the time at which the next packet would be
    due if all had been sent evenly.
    """

    def __init__(self, per_second: int = PER_SECOND) -> None:
        self._burst = max(1, min(BURST, per_second // 2))
        self._interval_ns = -(-(10**9) // max(1, per_second - self._burst))
        self._due_ns = 0

    def delay_ns(self, now_ns: int) -> int:
        """Return how long the next packet must wait."""
        return max(0, self._due_ns - (self._burst - 1) * self._interval_ns - now_ns)

    def sent(self, now_ns: int) -> None:
        """Count one packet."""
        self._due_ns = max(self._due_ns, now_ns) + self._interval_ns
