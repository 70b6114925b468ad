"""Opinions on the first bytes of a conversation, and how those on its two sides become one."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum

ENOUGH = 256  # bytes of a side: what these have not told, more will not tell


class Opinion(IntEnum):
    """What one protocol says about some bytes."""

    NO = 0  # not mine
    MORE = 1  # too few to say
    LIKELY = 2  # could be mine, and others' too
    SURE = 3


Reader = Callable[[bytes], Opinion]
Judge = Callable[[bytes, bytes], Opinion]  # of the client's bytes and the server's


def by_either(client: Reader, server: Reader) -> Judge:
    """Return the judge who is sure when one side is, or when both sides are likely."""

    def judge(asked: bytes, answered: bytes) -> Opinion:
        one, other = opinion_of(client, asked), opinion_of(server, answered)
        if one is other is Opinion.LIKELY:
            return Opinion.SURE
        return (
            max(one, other) if Opinion.SURE in (one, other) or Opinion.NO not in (one, other) else Opinion.NO
        )

    return judge


def opinion_of(reader: Reader, data: bytes) -> Opinion:
    """Return what a reader says of one side; what 256 bytes do not tell is not its own."""
    opinion = reader(data[:ENOUGH]) if data else Opinion.MORE
    return Opinion.NO if opinion is Opinion.MORE and len(data) >= ENOUGH else opinion


def begun(data: bytes, whole: bytes) -> Opinion:
    """Return the opinion on what always begins with the same bytes, the *whole*."""
    if data.startswith(whole):
        return Opinion.SURE
    return Opinion.MORE if whole.startswith(data) else Opinion.NO


def by_client(reader: Reader) -> Judge:
    """Return the judge who looks at what the client says only."""
    return lambda client, _: opinion_of(reader, client)


def by_server(reader: Reader) -> Judge:
    """Return the judge who looks at what the server says only."""
    return lambda _, server: opinion_of(reader, server)


def first_of(*judges: Judge) -> Judge:
    """Return the judge who is as sure as the surest of *judges*."""
    return lambda client, server: max(judge(client, server) for judge in judges)
