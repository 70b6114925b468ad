from __future__ import annotations

import struct
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
from brokers import QUIET, guarded, kafka as broker
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from hypothesis import given, settings, strategies as st
from overheard import Heard, cut, overhearing, read

from netlab.protocols.dialog import Exchange, Outcome, Side
from netlab.protocols.kafka import Kafka

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # how it reads its own schemas
    from kafka.protocol import consumer, metadata, producer

ORDERS, COUNT, UNREACHED = "orders", 30, 9999
VALUE = b"hunter2"
IN_FLIGHT = 8  # requests of librdkafka, more on a machine that is busy; a reader in the middle skips those


@dataclass
class Talk:
    heard: list[Heard]
    delivered: int
    consumed: int


@pytest.fixture(scope="module")
def talk() -> Talk:
    with broker() as port, overhearing(port, own_address=True) as through:
        here = {"bootstrap.servers": f"127.0.0.1:{through.port}", "client.id": "shop"}
        delivered = produce(here)
        consumed = consume(here)
        fail(here)
    heard = through.whole(len(through.conversations))
    return Talk([one for one in heard if one], delivered, consumed)  # librdkafka may connect and say nothing


def produce(here: dict[str, str]) -> int:
    failures: list[KafkaError] = []
    producer = Producer(here | {"linger.ms": 0})
    for _ in range(COUNT):
        producer.produce(
            ORDERS, VALUE, partition=2, on_delivery=lambda error, _: error and failures.append(error)
        )
        producer.flush(30)
    return COUNT - len(failures)


def consume(here: dict[str, str]) -> int:
    consumer = Consumer(here | {"group.id": "readers", "auto.offset.reset": "earliest"})
    consumer.subscribe([ORDERS])
    got = 0
    while got < COUNT:
        message = consumer.poll(30)
        assert message is not None
        got += message.error() is None
    consumer.commit(asynchronous=False)
    consumer.close()
    return got


def fail(here: dict[str, str]) -> None:
    consumer = Consumer(
        here | {"group.id": "lost", "auto.offset.reset": "error", "enable.auto.commit": False}
    )
    consumer.assign([TopicPartition(ORDERS, 2, UNREACHED)])
    message = consumer.poll(30)
    assert message is not None
    assert message.error() is not None
    consumer.close()


def exchanges_of(talk: Talk) -> list[Exchange]:
    return [one for heard in talk.heard for one in read(Kafka(), heard)]


def test_each_message_sent_alone_is_a_produce_with_its_topic_partition_and_records(talk: Talk) -> None:
    produced = [e for e in exchanges_of(talk) if e.operation == "Produce"]

    assert len(produced) == talk.delivered
    assert {(e.resource, e.partition, e.records, e.status, e.error) for e in produced} == {
        (ORDERS, 2, 1, "OK", None)
    }


def test_fetches_bring_the_records_that_the_consumer_got(talk: Talk) -> None:
    fetched = [e for e in exchanges_of(talk) if e.operation == "Fetch" and e.error is None]

    assert sum(e.records or 0 for e in fetched if e.outcome == Outcome.ANSWERED) == talk.consumed
    assert {e.resource for e in fetched} == {ORDERS}


def take_turns(here: dict[str, str], topics: list[str]) -> None:
    sender = Producer(here)
    for topic in topics:
        sender.produce(topic, VALUE, partition=0)
    sender.flush(30)
    reader = Consumer(here | {"group.id": "all", "auto.offset.reset": "earliest", "fetch.wait.max.ms": 20})
    reader.assign([TopicPartition(topic, 0, 0) for topic in topics])
    assert len(reader.consume(len(topics), 30)) == len(topics)
    reader.consume(1, 0.5)  # asks for all of them, each time beginning with another one
    reader.close()


def test_fetches_of_several_topics_are_named_in_one_order() -> None:
    topics = ["carts", "orders", "stock"]
    with broker() as port, overhearing(port, own_address=True) as through:
        take_turns({"bootstrap.servers": f"127.0.0.1:{through.port}"}, topics)
        heard = [one for one in through.whole(len(through.conversations)) if one]
    fetched = [one for said in heard for one in read(Kafka(), said) if one.operation == "Fetch"]

    assert len(fetched) > len(topics)
    assert {one.resource for one in fetched if one.resource and one.resource.count(",") == 2} == {
        ", ".join(topics)
    }


def test_an_offset_out_of_range_is_an_error_of_the_fetch(talk: Talk) -> None:
    failed = [e for e in exchanges_of(talk) if e.error == "OFFSET_OUT_OF_RANGE"]

    assert {(e.operation, e.status, e.resource, e.partition) for e in failed} == {("Fetch", "1", ORDERS, 2)}


def test_everything_else_is_named_and_went_well(talk: Talk) -> None:
    rest = [e for e in exchanges_of(talk) if e.operation not in {"Produce", "Fetch"}]
    named = Counter(e.operation for e in rest)

    assert {"ApiVersions", "Metadata", "FindCoordinator", "JoinGroup", "SyncGroup", "OffsetCommit"} <= set(
        named
    )
    answered = [e for e in rest if e.outcome == Outcome.ANSWERED]
    failed = {(e.operation, e.error) for e in answered if e.error}
    assert failed <= {("ApiVersions", "UNSUPPORTED_VERSION"), ("JoinGroup", "MEMBER_ID_REQUIRED")}
    assert {e.resource for e in rest if e.operation == "OffsetCommit"} == {ORDERS}


def test_nothing_is_left_unread_and_no_value_is_kept(talk: Talk) -> None:
    for heard in talk.heard:
        dialog = Kafka()
        found = read(dialog, heard)

        assert dialog.unread_bytes == 0
        assert VALUE.decode() not in repr(found)
        client, server = (sum(len(data) for who, data, _ in heard if who is side) for side in Side)
        assert sum(e.request_bytes or 0 for e in found) == client
        assert sum(e.response_bytes or 0 for e in found) == server


def rows(found: list[Exchange]) -> list[tuple[Any, ...]]:
    return [(e.stream, e.operation, e.resource, e.partition, e.records, e.status, e.outcome) for e in found]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=5))
def test_it_does_not_matter_where_segments_end(talk: Talk, sizes: list[int]) -> None:
    for heard in talk.heard:
        assert rows(read(Kafka(), cut(heard, sizes))) == rows(read(Kafka(), heard))


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_what_was_not_seen_costs_rows_and_makes_none_wrong(talk: Talk, data: st.DataObject) -> None:
    heard = data.draw(st.sampled_from(talk.heard))
    truth = rows(read(Kafka(), heard))
    gap = data.draw(st.integers(0, len(heard) - 1))
    told = data.draw(st.booleans())
    dialog, found = Kafka(), []

    for index, (side, what, at) in enumerate(heard):
        if index in {gap, gap + 1}:
            found += dialog.missed(side, len(what) if told else None, at)
        else:
            found += dialog.said(side, what, at)

    found = [e for e in found if e.outcome is Outcome.ANSWERED]
    assert {row[:2] for row in rows(found)} <= {row[:2] for row in truth}
    for row in rows(found):
        (whole,) = (one for one in truth if one[0] == row[0])
        assert all(one in {other, None} for one, other in zip(row, whole, strict=True))


def test_a_reader_that_begins_anywhere_goes_on_with_the_next_request(talk: Talk) -> None:
    heard = max(talk.heard, key=len)
    truth = rows(read(Kafka(), heard))
    for begin in range(1, len(heard)):
        found = [e for e in read(Kafka(whole=False), heard[begin:]) if e.outcome is Outcome.ANSWERED]
        asked = sum(side is Side.CLIENT for side, _, _ in heard[begin:])

        assert set(rows(found)) <= set(truth)
        assert len(found) >= asked - IN_FLIGHT or asked < IN_FLIGHT


class Words:
    """Messages in the encoding of kafka-python, which is written from Kafka's own schemas."""

    TOPIC_ID = UUID(int=7)

    @staticmethod
    def produce() -> tuple[Any, Any]:
        request, response = producer.ProduceRequest, producer.ProduceResponse
        part = request.TopicProduceData.PartitionProduceData(index=3, records=None)
        topic = request.TopicProduceData(name="t", topic_id=Words.TOPIC_ID, partition_data=[part])
        done = response.TopicProduceResponse.PartitionProduceResponse(index=3, error_code=6, base_offset=1)
        answer = response.TopicProduceResponse(name="t", topic_id=Words.TOPIC_ID, partition_responses=[done])
        return request(acks=-1, timeout_ms=9, topic_data=[topic]), response(responses=[answer])

    @staticmethod
    def fetch() -> tuple[Any, Any]:
        request, response = consumer.FetchRequest, consumer.FetchResponse
        part = request.FetchTopic.FetchPartition(partition=3, fetch_offset=5, partition_max_bytes=9)
        topic = request.FetchTopic(topic="t", topic_id=Words.TOPIC_ID, partitions=[part])
        got = response.FetchableTopicResponse.PartitionData(
            partition_index=3, error_code=6, high_watermark=1, aborted_transactions=[], records=None
        )
        answer = response.FetchableTopicResponse(topic="t", topic_id=Words.TOPIC_ID, partitions=[got])
        return (
            request(replica_id=-1, max_wait_ms=1, min_bytes=1, topics=[topic], forgotten_topics_data=[]),
            response(responses=[answer]),
        )

    @staticmethod
    def list_offsets() -> tuple[Any, Any]:
        request, response = consumer.ListOffsetsRequest, consumer.ListOffsetsResponse
        part = request.ListOffsetsTopic.ListOffsetsPartition(partition_index=3, timestamp=-1)
        got = response.ListOffsetsTopicResponse.ListOffsetsPartitionResponse(partition_index=3, error_code=6)
        return (
            request(replica_id=-1, topics=[request.ListOffsetsTopic(name="t", partitions=[part])]),
            response(topics=[response.ListOffsetsTopicResponse(name="t", partitions=[got])]),
        )

    @staticmethod
    def commit() -> tuple[Any, Any]:
        request, response = consumer.OffsetCommitRequest, consumer.OffsetCommitResponse
        kind, answers = request.OffsetCommitRequestTopic, response.OffsetCommitResponseTopic
        part = kind.OffsetCommitRequestPartition(
            partition_index=3, committed_offset=5, committed_metadata="m"
        )
        got = answers.OffsetCommitResponsePartition(partition_index=3, error_code=6)
        return (
            request(
                group_id="g",
                member_id="m",
                topics=[kind(name="t", topic_id=Words.TOPIC_ID, partitions=[part])],
            ),
            response(topics=[answers(name="t", topic_id=Words.TOPIC_ID, partitions=[got])]),
        )

    @staticmethod
    def fetched_offsets() -> tuple[Any, Any]:
        request, response = consumer.OffsetFetchRequest, consumer.OffsetFetchResponse
        old = request.OffsetFetchRequestTopic(name="t", partition_indexes=[3])
        groups = request.OffsetFetchRequestGroup
        new = groups.OffsetFetchRequestTopics(name="t", topic_id=Words.TOPIC_ID, partition_indexes=[3])
        return (
            request(
                group_id="g", topics=[old], groups=[groups(group_id="g", topics=[new])], require_stable=True
            ),
            response(
                error_code=6,
                groups=[response.OffsetFetchResponseGroup(group_id="g", topics=[], error_code=6)],
            ),
        )


VERSIONS = {
    Words.produce: range(3, 14),
    Words.fetch: range(4, 19),
    Words.list_offsets: range(1, 12),
    Words.commit: range(2, 11),
    Words.fetched_offsets: range(2, 11),
}


def sent(message: Any, version: int) -> bytes:
    message.with_header(correlation_id=7, client_id="x")
    return bytes(message.encode(version=version, header=True, framed=True))


def metadata_of(name: str, topic_id: UUID) -> Heard:
    response = metadata.MetadataResponse
    topic = response.MetadataResponseTopic(error_code=0, name=name, topic_id=topic_id, partitions=[])
    request = metadata.MetadataRequest(topics=None)
    answer = response(brokers=[], controller_id=0, topics=[topic])
    return [(Side.CLIENT, sent(request, 12), 1), (Side.SERVER, answered(answer, 12), 2)]


def answered(message: Any, version: int) -> bytes:
    header = struct.pack("!i", 7) + b"\0" * type(message).flexible_version_q(version)
    body = header + bytes(message.encode(version=version))
    return struct.pack("!i", len(body)) + body


@pytest.mark.parametrize(
    ("words", "version"), [(words, version) for words, versions in VERSIONS.items() for version in versions]
)
def test_every_version_is_read(words: Callable[[], tuple[Any, Any]], version: int) -> None:
    request, response = words()
    read(Kafka(), metadata_of("t", Words.TOPIC_ID))  # names what later versions say by id only
    heard: Heard = [(Side.CLIENT, sent(request, version), 1), (Side.SERVER, answered(response, version), 2)]

    (found,) = read(Kafka(), heard)

    assert (found.resource, found.status, found.error) == ("t", "6", "NOT_LEADER_OR_FOLLOWER")
    assert found.version == str(version)
    if words is not Words.fetched_offsets:
        assert found.partition == 3


def test_a_topic_id_that_no_metadata_has_told_has_no_name() -> None:
    request, _ = Words.fetch()
    request.topics[0].topic_id = UUID(int=99)

    (found,) = read(Kafka(), [(Side.CLIENT, sent(request, 13), 1)])

    assert (found.resource, found.outcome) == (None, Outcome.UNANSWERED)


def test_a_name_that_no_topic_can_have_is_not_remembered() -> None:
    read(Kafka(), metadata_of("t" * 250, UUID(int=98)))
    request, _ = Words.fetch()
    request.topics[0].topic_id = UUID(int=98)

    (found,) = read(Kafka(), [(Side.CLIENT, sent(request, 13), 1)])

    assert found.resource is None


def test_of_many_topics_the_first_are_shown() -> None:
    topics = [metadata.MetadataRequest.MetadataRequestTopic(name=f"topic{number}") for number in range(1000)]
    request = metadata.MetadataRequest(topics=topics)

    (found,) = read(Kafka(), [(Side.CLIENT, sent(request, 9), 1)])

    assert found.resource is not None
    assert found.resource.startswith("topic0, topic1, ")
    assert found.resource.endswith("…")
    assert len(found.resource) < 300


def batch(records: int, *, body: bytes = b"") -> bytes:
    """Return a batch of so many records, as its header says (record batch, version 2)."""
    rest = struct.pack("!ibIhiqqqhii", 0, 2, 0, 0, records - 1, 0, 0, -1, -1, -1, records) + body
    return struct.pack("!qi", 0, len(rest)) + rest


def test_of_a_batch_that_the_broker_cut_no_record_is_counted() -> None:
    request, response = Words.fetch()
    part = response.responses[0].partitions[0]
    part.error_code, part.records = 0, batch(5, body=b"x" * 40) + batch(7, body=b"x" * 40)[:-1]

    (found,) = read(Kafka(), [(Side.CLIENT, sent(request, 11), 1), (Side.SERVER, answered(response, 11), 2)])

    assert (found.status, found.records) == ("OK", 5)


@pytest.mark.parametrize("version", [11, 12])
@pytest.mark.parametrize(
    ("sizes", "status"), [([100_000], "OK"), ([10, 100_000], "OK"), ([100_000, 10], None)]
)
def test_a_fetch_too_large_to_be_read_went_well_if_all_its_errors_were_read(
    version: int, sizes: list[int], status: str | None
) -> None:
    request, response = Words.fetch()
    kind = type(response.responses[0].partitions[0])
    response.responses[0].partitions = [
        kind(partition_index=index, error_code=0, aborted_transactions=[], records=batch(9, body=b"x" * size))
        for index, size in enumerate(sizes)
    ]

    (found,) = read(
        Kafka(), [(Side.CLIENT, sent(request, version), 1), (Side.SERVER, answered(response, version), 2)]
    )

    assert (found.status, found.records) == (status, None)


@pytest.mark.parametrize("version", range(6))
def test_partitions_that_a_transaction_may_not_have_are_an_error(version: int) -> None:
    request, response = producer.AddPartitionsToTxnRequest, producer.AddPartitionsToTxnResponse
    topic = request.AddPartitionsToTxnTopic(name="t", partitions=[3])
    one = request.AddPartitionsToTxnTransaction(
        transactional_id="x", producer_id=1, producer_epoch=0, topics=[topic]
    )
    result = response.AddPartitionsToTxnTopicResult
    part = result.AddPartitionsToTxnPartitionResult(partition_index=3, partition_error_code=47)
    failed = result(name="t", results_by_partition=[part])
    several = response.AddPartitionsToTxnResult(transactional_id="x", topic_results=[failed])
    said = request(transactions=[one], v3_and_below_topics=[topic])
    told = response(results_by_transaction=[several], results_by_topic_v3_and_below=[failed])

    (found,) = read(
        Kafka(), [(Side.CLIENT, sent(said, version), 1), (Side.SERVER, answered(told, version), 2)]
    )

    assert (found.resource, found.error) == ("t", "INVALID_PRODUCER_EPOCH")


def test_a_produce_without_acknowledgement_waits_for_nothing() -> None:
    request, _ = Words.produce()
    request.acks = 0
    dialog = Kafka()

    (found,) = dialog.said(Side.CLIENT, sent(request, 9), 1)

    assert (found.outcome, found.status, found.answered_ns) == (Outcome.ANSWERED, None, None)
    assert dialog.pending() == []


def test_a_version_newer_than_what_is_known_has_its_name_and_no_judgement() -> None:
    request, response = Words.produce()
    said, told = sent(request, 13), answered(response, 13)
    newer = said[:6] + struct.pack("!h", 25) + said[8:]

    (found,) = read(Kafka(), [(Side.CLIENT, newer, 1), (Side.SERVER, told, 2)])

    assert (found.operation, found.version, found.resource, found.status) == ("Produce", "25", None, None)
    assert found.outcome == Outcome.ANSWERED


@settings(max_examples=300)
@given(st.binary(max_size=400), st.integers(0, 95), st.integers(0, 18), st.binary(max_size=300))
def test_any_body_is_read(body: bytes, api: int, version: int, answer: bytes) -> None:
    said = struct.pack("!hhi", api, version, 7) + body
    told = struct.pack("!i", 7) + answer

    found = read(
        Kafka(),
        [
            (Side.CLIENT, struct.pack("!i", len(said)) + said, 1),
            (Side.SERVER, struct.pack("!i", len(told)) + told, 2),
        ],
    )

    assert [e.stream for e in found] == [7]


@pytest.mark.parametrize(("admits", "outcome"), [(True, Outcome.ANSWERED), (False, Outcome.UNANSWERED)])
def test_bare_tokens_are_told_and_what_follows_them(*, admits: bool, outcome: Outcome) -> None:
    secured = {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN", "sasl.username": "shop"}
    with broker() as port, guarded(port, admits=admits) as door, overhearing(door) as through:
        options = secured | {"bootstrap.servers": f"127.0.0.1:{through.port}", "sasl.password": "hunter2"}
        with Producer(options, logger=QUIET) as client, suppress(KafkaException):
            client.list_topics(timeout=5 if admits else 1)
        heard = next(one for one in through.whole(len(through.conversations)) if one)
    dialog = Kafka()
    exchanges = read(dialog, heard)

    told = [(one.operation, one.version, one.outcome) for one in exchanges if one.operation != "ApiVersions"]
    assert told[:2] == [("SaslHandshake", "0", Outcome.ANSWERED), ("SaslAuthenticate", None, outcome)]
    assert {one[0] for one in told[2:]} == ({"Metadata"} if admits else set())
    assert dialog.unread_bytes == 0
    assert "hunter2" not in repr(exchanges)
