"""Joining conntrack entries to connections."""

from __future__ import annotations

import pandas as pd
import pytest

import netlab
from netlab.schemas import CONNECTIONS, CONNTRACK


def connection(**columns: object) -> pd.DataFrame:
    base = {"protocol": "tcp", "local_address": "10.0.0.2", "local_port": 4000, "remote_address": "192.0.2.9"}
    return CONNECTIONS.frame(
        {name: [value] for name, value in {**base, "remote_port": 80, **columns}.items()}
    )


def entry(**columns: object) -> pd.DataFrame:
    base = {
        "protocol": "tcp",
        "src": "10.0.0.2",
        "sport": 4000,
        "dst": "192.0.2.9",
        "dport": 80,
        "reply_src": "10.1.1.1",
        "reply_sport": 8080,
        "reply_dst": "198.51.100.1",
        "reply_dport": 61000,
        "timeout_s": 100,
    }
    return CONNTRACK.frame({name: [value] for name, value in {**base, **columns}.items()})


NAT = ["nat_local_address", "nat_local_port", "nat_remote_address", "nat_remote_port"]


def test_the_opening_end_gets_the_reply_tuple() -> None:
    row = netlab.with_nat(connection(), entry()).iloc[0]

    assert row[NAT].tolist() == ["198.51.100.1", 61000, "10.1.1.1", 8080]


def test_the_accepting_end_gets_the_original_tuple() -> None:
    server = connection(
        local_address="10.1.1.1", local_port=8080, remote_address="198.51.100.1", remote_port=61000
    )

    row = netlab.with_nat(server, entry()).iloc[0]

    assert row[NAT].tolist() == ["192.0.2.9", 80, "10.0.0.2", 4000]


def test_a_connection_without_an_entry_stays_without() -> None:
    row = netlab.with_nat(connection(local_port=4001), entry()).iloc[0]

    assert row[NAT].isna().all()


def test_an_entry_that_does_not_translate_says_nothing() -> None:
    plain = entry(reply_src="192.0.2.9", reply_sport=80, reply_dst="10.0.0.2", reply_dport=4000)

    row = netlab.with_nat(connection(), plain).iloc[0]

    assert row[NAT].isna().all()


def test_an_entry_of_another_protocol_does_not_count() -> None:
    row = netlab.with_nat(connection(), entry(protocol="udp")).iloc[0]

    assert row[NAT].isna().all()


def test_a_tuple_used_again_finds_the_newest_entry() -> None:
    entries = netlab.concat([entry(reply_dport=1, timeout_s=5), entry(reply_dport=2, timeout_s=120)])

    row = netlab.with_nat(connection(), entries).iloc[0]

    assert row["nat_local_port"] == 2


@pytest.mark.parametrize("place", ["zone", "netns"])
def test_entries_of_several_places_that_say_different_things_are_counted(place: str) -> None:
    both = netlab.concat([entry(**{place: 1}), entry(**{place: 2, "reply_dport": 7, "timeout_s": 5})])
    again = netlab.concat([entry(**{place: 1}), entry(**{place: 1, "reply_dport": 7, "timeout_s": 5})])
    agreed = netlab.concat([entry(**{place: 1}), entry(**{place: 2})])
    connections = netlab.concat([connection(), connection(local_port=1)])
    both.index = pd.Index([7, 7])  # as after pandas.concat

    counts = [
        netlab.coverage(netlab.with_nat(connections, one))["count"].tolist() for one in (both, again, agreed)
    ]
    assert counts == [[1], [], []]
    assert netlab.with_nat(connections, both)["nat_local_port"].iloc[0] == 61000


def test_rows_keep_their_order_dtypes_and_coverage() -> None:
    connections = netlab.concat([connection(local_port=port) for port in (1, 4000, 2)])

    translated = netlab.with_nat(connections, entry())

    assert translated["local_port"].tolist() == [1, 4000, 2]
    assert translated.dtypes.to_dict() == connections.dtypes.to_dict()
    assert translated.attrs == connections.attrs


def test_a_frame_of_another_kind_is_refused() -> None:
    with pytest.raises(netlab.BadInput, match="no column"):
        netlab.with_nat(entry(), entry())


def test_of_two_entries_that_live_as_long_the_later_one_counts() -> None:
    entries = netlab.concat([entry(reply_dport=1), entry(reply_dport=2)])

    assert netlab.with_nat(connection(), entries).iloc[0]["nat_local_port"] == 2


def test_entries_that_were_lost_are_said_to_be_missing() -> None:
    entries = entry()
    entries.attrs["coverage"] = [{"what": "entries", "kind": "lost", "count": 3, "detail": "too fast"}]

    gaps = netlab.coverage(netlab.with_nat(connection(), entries))

    assert gaps[["what", "kind", "count"]].to_numpy().tolist() == [["nat_*: entries", "lost", 3]]


def test_connections_that_lost_their_coverage_do_not_pass_for_complete() -> None:
    lost = pd.DataFrame(connection())
    lost.attrs = {}

    filled = netlab.with_nat(lost, entry())

    assert netlab.coverage(filled)["what"].tolist() == ["coverage"]
