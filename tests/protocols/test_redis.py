"""Redis as redis-server and redis-py speak it, against what the client says that it did."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import given, settings, strategies as st
from overheard import Heard, cut, free_port, overhearing, read, running, until

from netlab.protocols.dialog import Exchange, Outcome, Side
from netlab.protocols.redis import Redis
from netlab.protocols.rediscommands import named

SET = b"*3\r\n$3\r\nSET\r\n$6\r\nuser:1\r\n$6\r\nsecret\r\n"
GET = b"*2\r\n$3\r\nGET\r\n$6\r\nuser:1\r\n"
OK, VALUE = b"+OK\r\n", b"$6\r\nsecret\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    place, port = tmp_path_factory.mktemp("redis"), free_port()
    with running(("redis-server", "--port", str(port), "--save", "", "--dir", str(place)), port):
        yield port


def _talk(
    port: int, protocol: int, talk: Callable[[redis.Redis], list[tuple[str, str]]]
) -> tuple[Heard, list]:
    with overhearing(port) as relay:
        client = redis.Redis(port=relay.port, protocol=protocol)
        with client:
            log = talk(client)
            client.connection_pool.disconnect()
        (heard,) = relay.whole(1)
    return heard, log


def _did(client: redis.Redis, *command: Any) -> tuple[str, str]:
    try:
        client.execute_command(*command)
    except redis.ResponseError as error:
        return command[0], type(error).__name__ if command[0] == "EXEC" else _word(error)
    return command[0], "OK"


def _word(error: redis.ResponseError) -> str:
    return "WRONGTYPE" if "wrong kind" in str(error) else "ERR"


def _everything(client: redis.Redis) -> list[tuple[str, str]]:
    log = [
        _did(client, "FLUSHALL"),
        _did(client, "SET", "user:1:name", "secret value"),
        _did(client, "GET", "user:1:name"),
        _did(client, "LPUSH", "user:1:name", "x"),
        _did(client, "HSET", "cart", *[f"item{n}" for n in range(20)]),
        _did(client, "HGETALL", "cart"),
        _did(client, "SET", "blob", "x" * 6_000),
        _did(client, "GET", "blob"),
        _did(client, "GET", "none"),
        _did(client, "INCR", "user:1:name"),
    ]
    with client.pipeline(transaction=False) as pipeline:
        for number in range(30):
            pipeline.set(f"many:{number}", number)
            pipeline.hgetall("cart")
        pipeline.execute()
    log += [("SET", "OK"), ("HGETALL", "OK")] * 30
    with client.pipeline() as pipeline:
        pipeline.get("many:1")
        pipeline.lpush("many:1", 1)
        pipeline.execute(raise_on_error=False)
    return [
        *log,
        ("MULTI", "OK"),
        ("GET", "OK"),
        ("LPUSH", "OK"),
        ("EXEC", "WRONGTYPE"),
        _did(client, "PING"),
    ]


@pytest.fixture(scope="module", params=[2, 3], ids=["RESP2", "RESP3"])
def talked(request: pytest.FixtureRequest, server: int) -> tuple[Heard, list[tuple[str, str]], int]:
    return (*_talk(server, request.param, _everything), request.param)


def _rows(exchanges: list[Exchange]) -> list[tuple[str | None, str | None]]:
    """Return what was done, without what the client tells of itself first."""
    return [(one.operation, one.status) for one in exchanges if _is_asked(one)]


def _is_asked(one: Exchange) -> bool:
    return one.operation is not None and one.operation.partition(" ")[0] not in {"HELLO", "CLIENT"}


def test_rows_are_what_the_client_says(talked: tuple[Heard, list[tuple[str, str]], int]) -> None:
    heard, log, protocol = talked
    dialog = Redis(whole=True)

    exchanges = read(dialog, heard)

    assert _rows(exchanges) == log
    assert exchanges[-1].version == f"RESP{protocol}"
    assert {one.resource for one in exchanges} == {None, "user:*", "cart", "blob", "none", "many:*"}
    assert {one.outcome for one in exchanges} == {Outcome.ANSWERED}
    assert sum(one.request_bytes or 0 for one in exchanges) == _said(heard, Side.CLIENT)
    assert sum(one.response_bytes or 0 for one in exchanges) == _said(heard, Side.SERVER)
    assert dialog.unread_bytes == 0


def _said(heard: Heard, which: Side) -> int:
    return sum(len(data) for side, data, _ in heard if side is which)


@settings(max_examples=15)
@given(sizes=st.lists(st.integers(1, 900), min_size=3, max_size=20))
def test_where_packets_are_cut_changes_nothing(talked: tuple[Heard, Any, int], sizes: list[int]) -> None:
    heard = [(side, data, index) for index, (side, data, _) in enumerate(talked[0])]

    assert read(Redis(whole=True), cut(heard, sizes)) == read(Redis(whole=True), heard)


@settings(max_examples=40)
@given(gaps=st.sets(st.integers(0, 60), max_size=5), told=st.booleans())
def test_a_gap_makes_no_wrong_row(talked: tuple[Heard, Any, int], gaps: set[int], *, told: bool) -> None:
    heard = talked[0]
    dialog, found = Redis(whole=True), []
    for index, (side, data, at) in enumerate(heard):
        if index in gaps:
            found += dialog.missed(side, len(data) if told else None, at)
        else:
            found += dialog.said(side, data, at)
    found += dialog.ended(0)

    truth = {
        (one.requested_ns, one.operation, one.resource, one.status) for one in read(Redis(whole=True), heard)
    }
    for one in found:
        assert one.status is None or (one.requested_ns, one.operation, one.resource, one.status) in truth


def test_reading_begins_in_the_middle_with_the_first_whole_command() -> None:
    dialog = Redis(whole=False)
    heard: Heard = [(Side.CLIENT, b"t of a value\r\n", 1), (Side.SERVER, b"st\r\n", 2)]
    heard += [(Side.CLIENT, SET, 3), (Side.SERVER, OK, 4), (Side.CLIENT, GET, 5), (Side.SERVER, VALUE, 6)]

    first, second = read(dialog, heard)

    assert (first.outcome, first.status, first.response_bytes) == (Outcome.ANSWERED, "OK", len(OK))
    assert (second.outcome, second.status, second.response_bytes) == (Outcome.ANSWERED, "OK", len(VALUE))


def test_replies_to_what_was_not_seen_are_nobodys() -> None:
    dialog = Redis(whole=False)
    found = dialog.said(Side.CLIENT, GET, 1) + dialog.said(Side.SERVER, OK, 2)  # of a command before
    found += dialog.said(Side.SERVER, VALUE, 3)
    found += dialog.said(Side.CLIENT, SET, 4) + dialog.said(Side.SERVER, OK, 5)

    assert [(one.operation, one.outcome, one.status) for one in found] == [("GET", Outcome.MISSED, None)]
    assert [(one.operation, one.outcome, one.status) for one in dialog.pending()] == [
        ("SET", Outcome.MISSED, None)  # until the client has gone on, or the connection is over
    ]
    assert [(one.operation, one.outcome) for one in dialog.ended(6)] == [("SET", Outcome.ANSWERED)]


@pytest.mark.parametrize("protocol", [2, 3])
def test_what_is_published_is_no_reply(server: int, protocol: int) -> None:
    got: list[dict[str, Any]] = []

    def talk(client: redis.Redis) -> list[tuple[str, str]]:
        with client.pubsub(ignore_subscribe_messages=True) as listener, redis.Redis(port=server) as other:
            listener.subscribe("news:1", "news:2", "news:3")
            until(lambda: dict(other.pubsub_numsub("news:3"))[b"news:3"] == 1)
            for _ in range(5):
                other.publish("news:2", "secret")
            until(lambda: got.extend(filter(None, [listener.get_message()])) or len(got) == 5)
            listener.unsubscribe("news:1")
            until(lambda: dict(other.pubsub_numsub("news:1"))[b"news:1"] == 0)
        return [("SUBSCRIBE", "OK"), ("UNSUBSCRIBE", "OK")]

    heard, log = _talk(server, protocol, talk)
    dialog = Redis(whole=True)

    exchanges = read(dialog, heard)

    assert _rows(exchanges) == log
    assert [one.resource for one in exchanges if _is_asked(one)] == ["news:*"] * 2


def test_behind_the_last_channel_values_may_look_like_messages() -> None:
    dialog = Redis(whole=True)
    told = b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n"
    heard = [(Side.CLIENT, b"SUBSCRIBE a\r\n", 1), (Side.SERVER, told, 2)]
    heard += [(Side.SERVER, b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nb\r\n", 3)]
    heard += [(Side.CLIENT, b"UNSUBSCRIBE a\r\nLRANGE a 0 -1\r\n", 4)]
    heard += [(Side.SERVER, told.replace(b"$9\r\n", b"$11\r\nun").replace(b":1", b":0"), 5)]
    heard += [(Side.SERVER, b"*1\r\n$7\r\nmessage\r\n", 6)]

    exchanges = read(dialog, heard)

    assert [(one.operation, one.ended_ns) for one in exchanges] == [
        ("SUBSCRIBE", 2),
        ("UNSUBSCRIBE", 5),
        ("LRANGE", 6),
    ]


@pytest.mark.parametrize("asked", [b"HELLO 3\r\n", b""], ids=["said hello", "told by the push"])
def test_a_subscriber_in_resp3_may_ask_for_values_that_look_like_messages(asked: bytes) -> None:
    dialog = Redis(whole=True)
    heard: Heard = [(Side.CLIENT, asked, 1), (Side.SERVER, b"%1\r\n+proto\r\n:3\r\n", 2)] if asked else []
    heard += [(Side.CLIENT, b"SUBSCRIBE a\r\n", 3)]
    heard += [(Side.SERVER, b">3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n", 4)]
    heard += [(Side.CLIENT, b"LRANGE a 0 -1\r\nPING\r\n", 5)]
    heard += [(Side.SERVER, b"*1\r\n$7\r\nmessage\r\n+PONG\r\n", 6)]

    exchanges = read(dialog, heard)

    assert [(one.operation, one.outcome) for one in exchanges[-2:]] == [
        ("LRANGE", Outcome.ANSWERED),
        ("PING", Outcome.ANSWERED),
    ]


def test_a_value_that_looks_like_a_message_is_one_only_behind_the_subscription() -> None:
    dialog = Redis(whole=True)
    heard = [(Side.CLIENT, b"LRANGE a 0 -1\r\nSUBSCRIBE b\r\n", 1)]
    heard += [(Side.SERVER, b"*1\r\n$7\r\nmessage\r\n", 2)]
    heard += [(Side.SERVER, b"*3\r\n$9\r\nsubscribe\r\n$1\r\nb\r\n:1\r\n", 3)]

    exchanges = read(dialog, heard)

    assert [(one.operation, one.ended_ns) for one in exchanges] == [("LRANGE", 2), ("SUBSCRIBE", 3)]


def test_behind_a_reset_nothing_is_subscribed() -> None:
    dialog = Redis(whole=True)
    heard = [(Side.CLIENT, b"SUBSCRIBE a\r\n", 1)]
    heard += [(Side.SERVER, b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n", 2)]
    heard += [(Side.CLIENT, b"RESET\r\n", 3), (Side.SERVER, b"+RESET\r\n", 4)]
    heard += [(Side.CLIENT, b"LRANGE a 0 -1\r\n", 5), (Side.SERVER, b"*1\r\n$7\r\nmessage\r\n", 6)]

    exchanges = read(dialog, heard)

    assert [(one.operation, one.ended_ns) for one in exchanges] == [
        ("SUBSCRIBE", 2),
        ("RESET", 4),
        ("LRANGE", 6),
    ]


@pytest.mark.parametrize(
    "values",
    [b"$2\r\nok\r\n:1763798000000\r\n", b"$9\r\nsubscribe\r\n:-9223372036854775808\r\n"],
    ids=["a time behind a string", "the least number behind what looks like a subscription"],
)
@pytest.mark.parametrize("before", [b"", b">2\r\n$1\r\na\r\n:99999999999\r\n"], ids=["", "behind a push"])
def test_a_number_behind_a_string_may_be_long(before: bytes, values: bytes) -> None:
    heard: Heard = [(Side.CLIENT, b"EVAL any 0\r\n", 1)]
    heard += [(Side.SERVER, before + b"*2\r\n" + values, 2), (Side.CLIENT, GET, 4), (Side.SERVER, VALUE, 5)]

    for said in (heard, cut(heard, [1])):
        dialog = Redis(whole=True)
        assert [(one.operation, one.outcome) for one in read(dialog, said)] == [
            ("EVAL", Outcome.ANSWERED),
            ("GET", Outcome.ANSWERED),
        ]
        assert dialog.unread_bytes == 0


def test_what_is_empty_is_a_value_too() -> None:
    dialog = Redis(whole=True)
    empty = b"$0\r\n\r\n"

    dialog.said(Side.CLIENT, b"*3\r\n$3\r\nSET\r\n" + empty * 2, 1)
    (one,) = dialog.said(Side.SERVER, empty, 2)

    assert (one.operation, one.resource, one.request_bytes, one.response_bytes) == ("SET", "*", 25, 6)


def test_commands_by_hand_are_commands() -> None:
    dialog = Redis(whole=True)
    heard = [(Side.CLIENT, b"get user:1\r\n\r\nPING\r\n", 1), (Side.SERVER, VALUE + b"+PONG\r\n", 2)]

    assert [(one.operation, one.resource) for one in read(dialog, heard)] == [
        ("GET", "user:*"),
        ("PING", None),
    ]


def test_a_monitor_says_what_is_no_reply(server: int) -> None:
    def talk(client: redis.Redis) -> list[tuple[str, str]]:
        with client.monitor() as monitor:
            with redis.Redis(port=server) as other:
                other.get("secret:1")
            until(lambda: "secret" in monitor.next_command()["command"])
        return [("MONITOR", "OK")]

    heard, log = _talk(server, 2, talk)
    dialog = Redis(whole=True)

    assert _rows(read(dialog, heard)) == log
    assert dialog.upgraded == "monitor"


def test_what_a_sentinel_is_asked_is_named(server: int, tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "sentinel.conf").write_text(f"port {port}\nsentinel monitor shop 127.0.0.1 {server} 1\n")
    with running(("redis-server", str(tmp_path / "sentinel.conf"), "--sentinel"), port):
        heard, log = _talk(
            port,
            2,
            lambda client: [
                _did(client, "SENTINEL GET-MASTER-ADDR-BY-NAME", "shop"),
                _did(client, "SENTINEL MASTER", "nowhere"),
            ],
        )
    rows = [(row.operation, row.status) for row in read(Redis(whole=True), heard)]
    assert rows[-2:] == log == [("SENTINEL GET-MASTER-ADDR-BY-NAME", "OK"), ("SENTINEL MASTER", "ERR")]


def test_keys_are_where_the_server_says(server: int) -> None:
    listed = subprocess.run(
        ["redis-cli", "-p", str(server), "--json", "COMMAND"], capture_output=True, text=True, check=True
    )
    for name, arity, flags, first, *_, subcommands in json.loads(listed.stdout):
        for both in (subcommand[0] for subcommand in subcommands):  # config|set
            assert named(both.encode().split(b"|"))[0] == both.upper().replace("|", " ")
        words = [name.encode(), b"a1", b"a2", b"a3"]
        if first == 1:
            assert named(words) == (name.upper(), "a1")
        elif "movablekeys" not in flags and first == 0 and "pubsub" not in flags:
            container = arity == -2 and name in {"memory", "object", "xgroup", "xinfo"}
            assert named(words) == (name.upper(), None) or container
        else:
            assert named(words)[0] == name.upper()


@pytest.mark.parametrize(
    "command",
    ["CONFIG SET", "ACL WHOAMI", "CLIENT NO-TOUCH", "CLUSTER SLOTS", "FUNCTION DELETE", "SLOWLOG GET"],
)
def test_a_command_of_two_words_is_named_by_both(command: str) -> None:
    words = [*command.encode().split(), b"secret", b"secret"]

    assert named(words) == (command, None)


def test_the_second_word_of_another_command_is_not_shown() -> None:
    assert named([b"CONFIG", b"WHOAMI"]) == ("CONFIG", None)


def test_what_is_no_command_is_not_shown() -> None:
    assert named([b"secret", b"GET"]) == ("*", None)
    assert named([b"AUTH", b"secret"]) == ("AUTH", None)
    assert named([b"EVAL", b"return 1", b"0", b"secret"]) == ("EVAL", None)


@given(st.lists(st.tuples(st.sampled_from(Side), st.binary(max_size=30), st.booleans()), max_size=12))
def test_noise_never_raises_and_is_not_kept(noise: list[tuple[Side, bytes, bool]]) -> None:
    dialog = Redis(whole=True)
    for side, data, is_missed in noise:
        (dialog.missed(side, len(data), 1) if is_missed else dialog.said(side, data, 1))
        dialog.said(Side.CLIENT, SET, 2)
        dialog.said(Side.SERVER, b">2\r\n$3\r\nabc\r\n|1\r\n+a\r\n:1\r\n" + OK, 3)
    dialog.ended(4)

    assert dialog.pending() == []


@pytest.mark.parametrize(
    ("said", "error"), [(b"-WRONGTYPE it", "WRONGTYPE"), (b"-S3CRET it", "*"), (b"-secret", "ERR")]
)
def test_an_error_has_the_name_that_redis_gives_it_and_no_other(said: bytes, error: str) -> None:
    dialog = Redis(whole=True)
    dialog.said(Side.CLIENT, b"*1\r\n$4\r\nPING\r\n", 1)
    (found,) = dialog.said(Side.SERVER, said + b"\r\n", 2)

    assert found.error == error


def test_a_reply_that_began_before_the_command_is_not_its_answer() -> None:
    dialog = Redis(whole=True)
    dialog.said(Side.SERVER, b"-LOADING it is", 1)
    dialog.said(Side.CLIENT, b"*1\r\n$4\r\nPING\r\n", 2)
    (found,) = dialog.said(Side.SERVER, b" late\r\n", 3)

    assert found.outcome is Outcome.MISSED
    assert found.answered_ns is None


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (b"-ERR max number of clients reached\r\n", "ERR"),  # as redis-server 7 says when it accepts
        (b"-DENIED Redis is running in protected mode\r\n", "DENIED"),
    ],
)
def test_a_command_to_a_server_that_had_turned_the_client_away_has_its_reason(
    said: bytes, error: str
) -> None:
    (found,) = read(Redis(), [(Side.SERVER, said, 1), (Side.CLIENT, GET, 2)])

    assert (found.operation, found.outcome) == ("GET", Outcome.UNANSWERED)
    assert (found.status, found.error, found.answered_ns) == (error, error, None)


def test_a_gap_behind_an_error_to_nobody_may_hide_an_answer() -> None:
    dialog = Redis()

    dialog.said(Side.SERVER, b"-ERR max number of clients reached\r\n", 1)
    dialog.said(Side.CLIENT, GET, 2)
    (found,) = dialog.missed(Side.SERVER, 5, 3) + dialog.ended(4)

    assert (found.outcome, found.error) == (Outcome.MISSED, None)


def test_an_answer_behind_an_error_to_nobody_takes_its_reason_away() -> None:
    dialog = Redis()

    found = dialog.said(Side.SERVER, b"-ERR unasked\r\n", 1)
    found += dialog.said(Side.CLIENT, GET + GET, 2)
    found += dialog.said(Side.SERVER, VALUE, 3) + dialog.ended(4)

    assert {(one.outcome, one.error) for one in found} == {(Outcome.MISSED, None)}
