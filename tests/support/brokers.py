"""librdkafka's own Kafka broker (its mock cluster): real TCP on loopback, in this process."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from confluent_kafka import Producer

QUIET = logging.Logger("librdkafka", logging.CRITICAL)  # noqa: LOG001 - nobody else's


@contextmanager
def kafka() -> Iterator[int]:
    """Run a broker as long as the block lasts; yield its port on 127.0.0.1."""
    cluster = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "ignored"}, logger=QUIET)
    (broker,) = cluster.list_topics(timeout=30).brokers.values()
    yield broker.port
    cluster.flush(30)
