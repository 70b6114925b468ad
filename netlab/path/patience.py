"""How long an answer is waited for, by what others have told."""

from __future__ import annotations

# How long to wait for a hop when a later hop, which is further away, has answered. Three times its
# round-trip time covers a detour on the way back; the floor covers routers that make ICMP errors in
# software, and this process not being scheduled.
FACTOR = 3
FLOOR_NS = 10 * 10**6
# And for the target, once it has answered others: what is given up there looks like loss of the path. A busy
# host, here or there, gets more time.
END_FLOOR_NS = 50 * 10**6


class Patience:
    """What is known of the round trips of a path, and so how long a silent hop is worth waiting for."""

    def __init__(self, timeout_ns: int) -> None:
        self._timeout_ns = timeout_ns
        self._slowest = [0] * 256  # by TTL: the largest round trip from there or further away

    def learn(self, ttl: int, round_trip_ns: int) -> None:
        """Take a round trip to the hop at *ttl*; 0 is what is at no known hop."""
        for nearer in range(ttl, -1, -1):
            if self._slowest[nearer] >= round_trip_ns:
                break  # and so are those before it
            self._slowest[nearer] = round_trip_ns

    def knows(self, ttl: int) -> bool:
        """Return whether the hop at *ttl* or a later one has answered."""
        return self._slowest[ttl] > 0

    @property
    def longest_ns(self) -> int:
        """The largest round trip of all, 0 while there is none."""
        return self._slowest[0]

    def with_hop_ns(self, ttl: int, blind_ns: int) -> int:
        """Return how long to wait for the hop at *ttl*, *blind_ns* where no later one has answered."""
        known = max(FLOOR_NS, FACTOR * self._slowest[ttl]) if self.knows(ttl) else blind_ns
        return min(self._timeout_ns, known)
