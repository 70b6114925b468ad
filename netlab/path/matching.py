"""Which probe an answer is for: exactly one, or none. Bytes in, a match out; no sockets, no clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from netlab.path.probes import Flow
from netlab.wire import icmp


class Match(NamedTuple):
    """What an answer says and about which probe; `mark` is None where it does not say which of the flow."""

    reply: str
    flow: int
    mark: int | None


class Register:
    """The flows of one target and the probes that have been sent, by which answers are matched."""

    def __init__(self) -> None:
        self.flows: dict[int, Flow] = {}
        self._by_key: dict[bytes, Flow] = {}
        self._by_back: dict[bytes, Flow] = {}
        self._by_hidden: dict[bytes, Flow] = {}
        self._sent: set[tuple[int, int]] = set()

    def add(self, flow: Flow) -> None:
        """Take answers to *flow* from now on."""
        self.flows[flow.number] = flow
        self._by_key[flow.key] = flow
        self._by_back[flow.back] = flow
        self._by_hidden[flow.hidden] = flow

    def sent(self, flow: int, mark: int) -> None:
        """Take answers to one more probe."""
        self._sent.add((flow, mark))

    def keyed(self, key: bytes) -> Flow | None:
        """Return the flow whose probes have this key."""
        return self._by_key.get(key)

    def is_sent(self, flow: int, mark: int) -> bool:
        """Return whether answers to this probe are taken."""
        return (flow, mark) in self._sent

    def error(self, says: icmp.Error, quote: icmp.Quote) -> Match | None:
        """Return the probe that an ICMP error is about, None if it is about somebody else's packet.

        The quoted source address is not compared: a NAT on the way may have left its own in the quote. One
        that left its port there, too, is seen through where the quote shows more than the ports.

        Raises
        ------
        DecodeError
            If the error quotes too little.
        """
        for flow in self._possible(quote.transport):
            if flow.is_addressed(quote.header):
                mark = self._agreed(flow, flow.claims(quote))
                if mark is not None:
                    return Match(says.value, flow.number, mark)
        return None

    def answers(self, data: bytes) -> list[Match]:
        """Return which probes a transport packet from the target answers; more than one only by SACK.

        Raises
        ------
        DecodeError
            If the packet is cut off.
        """
        if not self.flows:
            return []
        any_flow = next(iter(self.flows.values()))
        flow = self._by_back.get(any_flow.back_in(data))
        meaning = None if flow is None else flow.answer(data)
        if flow is None or meaning is None:
            return []
        reply, marks = meaning
        if not flow.acknowledges_many or not marks:
            return [Match(reply, flow.number, self._agreed(flow, marks))]
        arrived = [mark for mark in marks if (flow.number, mark) in self._sent]
        self._sent.difference_update((flow.number, mark) for mark in arrived)  # each is told again and again
        return [Match(reply, flow.number, mark) for mark in arrived]

    def _possible(self, transport: bytes) -> Iterator[Flow]:
        """Yield the flow with these ports and, as a NAT may have written them, the one with this payload."""
        known = self._by_key.get(transport[:4])
        if known is not None:
            yield known
        any_flow = next(iter(self.flows.values()), None)
        hidden = any_flow and self._by_hidden.get(any_flow.hidden_in(transport))
        if hidden is not None and hidden is not known:
            yield hidden

    def _agreed(self, flow: Flow, marks: Iterable[int]) -> int | None:
        """Return the mark of a probe that was sent for which most places speak; None where they disagree."""
        sent = [mark for mark in marks if (flow.number, mark) in self._sent]
        if len(set(sent)) == 1:
            return sent[0]
        votes = Counter(sent).most_common(2)
        if not votes or (len(votes) == 2 and votes[0][1] == votes[1][1]):
            return None
        return votes[0][0]
