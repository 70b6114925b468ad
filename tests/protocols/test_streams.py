"""TCP's byte stream from its segments: in any order, with loss and repetition, right or marked missing."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given, strategies as st

from netlab.protocols.dialog import Exchange, Outcome, Side
from netlab.protocols.http1 import Http1
from netlab.protocols.ordered import MOST_AHEAD, MOST_WAITING, Ordered, Said, Segment
from netlab.protocols.streams import MOST_PIECES, MOST_UNCHOSEN, Stream, Unchosen

WRAP = 1 << 32


def joined(said: list[Said], size: int) -> list[int | None]:
    """Return the stream byte by byte, None where one is missing."""
    stream: list[int | None] = []
    for one in said:
        assert one.data is not None
        stream += one.data if isinstance(one.data, bytes) else [None] * one.data
    assert len(stream) <= size
    return stream


@dataclass
class Receiver:
    """The receiving TCP, which says by rcv_nxt what has passed (RFC 9293 section 3.10.7.4)."""

    origin: int
    got: set[int]

    @property
    def next(self) -> int:
        place = 0
        while place in self.got:
            place += 1
        return place

    def segment(self, message: bytes, start: int, end: int, seen: int, *, last: bool) -> Segment:
        before = self.next
        self.got.update(range(start, end))
        return Segment(
            (self.origin + start) % WRAP,
            message[start : start + seen],
            end - start,
            (self.origin + before) % WRAP,
            0,
            at_ns=end,
            fresh=before == 0,
            last=last,
        )


@st.composite
def journeys(draw: st.DrawFn) -> tuple[bytes, list[Segment], set[int]]:
    """Return a message, its segments as handed up, and the places of which a copy was not handed up."""
    message = draw(st.binary(min_size=1, max_size=200))
    cuts = sorted(draw(st.sets(st.integers(1, len(message)), max_size=12)) | {0, len(message)})
    whole = [(start, end) for start, end in pairwise(cuts)]
    again = draw(st.lists(st.tuples(st.integers(0, len(message)), st.integers(0, len(message))), max_size=4))
    order = draw(st.permutations(whole + [(min(pair), max(pair)) for pair in again if pair[0] != pair[1]]))
    receiver = Receiver(draw(st.integers(WRAP - 300, WRAP + 300)), set())
    segments, unseen = [], set()
    for start, end in [*order, (len(message), len(message))]:
        handed = end - start if draw(st.booleans()) else draw(st.integers(0, end - start))
        segment = receiver.segment(message, start, end, handed, last=end == len(message))
        fits = start == end or draw(st.integers(0, 4)) > 0
        if fits:
            segments.append(segment)
        unseen.update(range(start + handed if fits else start, end))
    return message, segments, unseen


@given(journeys())
def test_bytes_come_in_order_and_each_missing_one_is_marked(
    journey: tuple[bytes, list[Segment], set[int]],
) -> None:
    message, segments, unseen = journey
    ordered = Ordered()

    said = [one for segment in segments for one in ordered.take(segment)]

    midway = not segments[0].fresh
    if midway:
        assert said[0].data is None
        said = said[1:]
    stream = joined(said, len(message))
    begun = len(message) - len(stream)
    assert midway or begun == 0
    for place, byte in enumerate(stream, begun):
        assert byte in {None, message[place]}
        assert byte is not None or place in unseen or midway
    assert ordered.is_over


@given(st.binary(min_size=1, max_size=300), st.randoms(use_true_random=False), st.integers(0, WRAP - 1))
def test_any_order_with_nothing_lost_gives_the_original(message: bytes, chance: object, origin: int) -> None:
    starts = list(range(0, len(message), 7))
    chance.shuffle(starts)  # type: ignore[attr-defined]
    receiver, ordered = Receiver(origin, set()), Ordered()

    said = [
        one
        for start in starts
        for one in ordered.take(receiver.segment(message, start, min(start + 7, len(message)), 7, last=False))
    ]

    assert b"".join(bytes(one.data) for one in said if isinstance(one.data, bytes)) == message
    assert all(isinstance(one.data, bytes) for one in said)


def test_reading_in_the_middle_begins_with_a_whole_segment() -> None:
    ordered = Ordered()

    early = ordered.take(Segment(100, b"retransmitted", 13, settled=105, other_settled=0, at_ns=1))
    then = ordered.take(Segment(113, b"GET", 3, settled=113, other_settled=0, at_ns=2))

    assert [one.data for one in early] == [None]
    assert [one.data for one in then] == [b"GET"]


def test_what_comes_far_ahead_is_let_go_before_memory_is() -> None:
    ordered = Ordered()
    ordered.take(Segment(0, b"a", 1, settled=0, other_settled=0, at_ns=0, fresh=True))

    piece = b"x" * 16384
    for number in range(2 * MOST_WAITING // len(piece)):
        ahead = Segment(2 + number * len(piece), piece, len(piece), settled=1, other_settled=0, at_ns=1)
        assert ordered.take(ahead) == []
    said = ordered.take(Segment(1, b"b", 1, settled=1, other_settled=0, at_ns=2))

    assert sum(len(one.data) for one in said if isinstance(one.data, bytes)) == MOST_WAITING + 1


@pytest.mark.parametrize("seen", [0, 1], ids=["nothing of them handed up", "a byte each"])
def test_of_very_many_small_segments_far_ahead_the_nearest_are_kept(seen: int) -> None:
    ordered = Ordered()
    ordered.take(Segment(0, b"a", 1, settled=0, other_settled=0, at_ns=0, fresh=True))

    for number in range(2 * MOST_AHEAD):
        ahead = Segment(3 + 2 * number, b"x"[:seen], 1, settled=1, other_settled=0, at_ns=1)
        assert ordered.take(ahead) == []
    end = 3 + 4 * MOST_AHEAD
    said = ordered.settle(end, 2, fresh=False)

    kept = [one for one in said if isinstance(one.data, bytes) or one.was_cut]
    assert len(kept) == MOST_AHEAD
    assert sum(one.data if isinstance(one.data, int) else len(one.data or b"") for one in said) == end - 1


class Recorder:
    """A dialog that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[Side, bytes | int | None]] = []
        self.unread_bytes = 0

    def said(self, side: Side, data: bytes, at_ns: int) -> list[Exchange]:  # noqa: ARG002
        self.told.append((side, data))
        return []

    def missed(self, side: Side, size: int | None, at_ns: int) -> list[Exchange]:  # noqa: ARG002
        self.told.append((side, size))
        return []

    def ended(self, at_ns: int) -> list[Exchange]:  # noqa: ARG002
        return [Exchange("test", 0, Outcome.UNANSWERED)]

    def pending(self) -> list[Exchange]:
        return []


@pytest.mark.parametrize("client_is_local", [True, False, None])
def test_what_was_said_before_the_choice_is_told_after_it(client_is_local: bool | None) -> None:
    recorder = Recorder()
    asks_here = client_is_local is not False

    def choose(client: bytes, server: bytes, *, whole: bool) -> Recorder | Unchosen:
        assert whole
        if client.startswith(b"ANSWER") or server.startswith(b"ASK"):
            return Unchosen.NOTHING
        return recorder if client == b"ASK me" and server == b"ANSWER" else Unchosen.MORE

    stream = Stream(choose, client_is_local=client_is_local)
    stream.take(Segment(0, b"ASK", 3, 0, 0, 1, fresh=True, other_fresh=True), local=asks_here)
    stream.take(Segment(3, b" me", 3, 3, 0, 2), local=asks_here)
    stream.take(Segment(0, b"ANSWER", 6, 0, 6, 3, fresh=True), local=not asks_here)

    assert recorder.told == [(Side.CLIENT, b"ASK"), (Side.CLIENT, b" me"), (Side.SERVER, b"ANSWER")]


@pytest.mark.parametrize("header", [b"PROXY UNKNOWN\r\n", b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"])
@pytest.mark.parametrize("client_is_local", [True, None])
def test_a_proxy_header_is_nothing_of_the_conversation_wherever_it_is_cut(
    header: bytes, client_is_local: bool | None
) -> None:
    said = header + b"ASK me"
    for size in range(1, len(said)):
        recorder = Recorder()

        def choose(
            client: bytes, _: bytes, *, whole: bool, reader: Recorder = recorder
        ) -> Recorder | Unchosen:
            assert whole
            return Unchosen.MORE if b"ASK".startswith(client) else reader

        stream = Stream(choose, client_is_local=client_is_local)
        for place in range(0, len(said), size):
            piece = said[place : place + size]
            segment = Segment(place, piece, len(piece), place, 0, 1, fresh=not place, other_fresh=True)
            stream.take(segment, local=True)

        assert b"".join(data for _, data in recorder.told if isinstance(data, bytes)) == b"ASK me"


def test_a_connection_that_nobody_understands_is_given_up_with_little_kept() -> None:
    stream = Stream(lambda *_, **__: Unchosen.MORE, client_is_local=True)

    place, piece = 0, b"?" * 1000
    while not stream.is_ignored:
        fresh = place == 0
        said = Segment(place, piece, len(piece), place, 0, at_ns=place, fresh=fresh, other_fresh=True)
        stream.take(said, local=True)
        place += len(piece)

    assert place <= MOST_UNCHOSEN + 2 * len(piece)


def test_bytes_between_gaps_that_nobody_understands_are_not_kept_for_ever() -> None:
    recorder, number = Recorder(), 10 * MOST_PIECES

    def choose(client: bytes, _: bytes, *, whole: bool) -> Recorder | Unchosen:
        assert not whole
        return recorder if client == b"ASK" else Unchosen.MORE

    stream = Stream(choose, client_is_local=True)
    for place in range(0, 2 * number, 2):
        stream.take(Segment(place, b"?", 1, place, 0, at_ns=place), local=True)
    stream.take(Segment(2 * number, b"ASK", 3, 2 * number, 0, at_ns=0), local=True)

    assert recorder.told[-1] == (Side.CLIENT, b"ASK")
    assert len(recorder.told) <= MOST_PIECES + 2


def test_the_conversation_is_over_when_both_sides_have_said_all() -> None:
    stream = Stream(lambda *_, **__: Recorder(), client_is_local=True)

    stream.take(Segment(0, b"ask", 3, 0, 0, 1, fresh=True, other_fresh=True, last=True), local=True)
    assert not stream.is_over
    over = stream.take(Segment(0, b"answer", 6, 0, 3, 2, fresh=True, last=True), local=False)

    assert [one.outcome for one in over] == [Outcome.UNANSWERED]
    assert stream.is_over


def test_an_answer_comes_after_the_gap_that_has_its_request() -> None:
    recorder = Recorder()
    stream = Stream(lambda *_, **__: recorder, client_is_local=True)

    stream.take(Segment(0, b"first", 5, 0, 0, 1, fresh=True, other_fresh=True), local=True)
    stream.take(Segment(0, b"answer", 6, 0, other_settled=25, at_ns=2, fresh=True), local=False)

    assert recorder.told == [(Side.CLIENT, b"first"), (Side.CLIENT, 20), (Side.SERVER, b"answer")]


def test_in_the_middle_of_a_message_the_next_one_is_waited_for() -> None:
    recorder = Recorder()

    def choose(client: bytes, server: bytes, *, whole: bool) -> Recorder | Unchosen:
        assert not whole
        return recorder if client == b"GET" and not server else Unchosen.NOTHING

    stream = Stream(choose, client_is_local=True)
    stream.take(Segment(0, b"a body that goes on", 19, 0, 0, 1), local=True)
    stream.take(Segment(0, b"answered", 8, 0, 19, 2), local=False)
    stream.take(Segment(19, b"GET", 3, 19, 8, 3), local=True)

    assert recorder.told == [(Side.CLIENT, b"GET")]
    assert stream.midway


@pytest.mark.parametrize(("length", "cut_bytes"), [(900, 0), (100, 875)])
def test_what_a_packet_lacks_of_a_body_is_no_loss_and_what_is_behind_it_is(
    length: int, cut_bytes: int
) -> None:
    asked, head = b"GET / HTTP/1.1\r\n\r\n", f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n".encode()
    stream = Stream(lambda *_, **__: Http1(whole=True), client_is_local=True)
    stream.take(Segment(0, asked, len(asked), 0, 0, 1, fresh=True, other_fresh=True), local=True)

    first = Segment(0, head[:20], 20, 0, len(asked), 2, fresh=True)
    rest = Segment(20, head[20:], len(head) - 20 + 875, 20, len(asked), 3)
    end = Segment(len(head) + 875, b"." * 25, 25, len(head) + 875, len(asked), 4)
    over = [one for segment in (first, rest, end) for one in stream.take(segment, local=False)]

    assert stream.cut_bytes == cut_bytes
    assert [(one.status, one.response_bytes) for one in over] == [
        ("200", None if cut_bytes else len(head) + length)
    ]
