"""Chance that can be repeated: a packet's is its own, whatever happens to others."""

from __future__ import annotations

import hashlib
from typing import Protocol


def draw(*identity: bytes) -> int:
    """Return 64 bits that are as good as random and the same for the same identity."""
    mixed = hashlib.blake2b(digest_size=8)
    for part in identity:
        mixed.update(len(part).to_bytes(4, "big"))
        mixed.update(part)
    return int.from_bytes(mixed.digest(), "big")


class Chance(Protocol):
    """Where the random part of a packet's fate comes from."""

    def share(self) -> float:
        """Return a number from 0 to 1."""

    def choose(self, number: int) -> int:
        """Return a whole number from 0 to below *number*."""


class Drawn:
    """Chance from the seed and the packet's number."""

    def __init__(self, seed: int, number: int) -> None:
        self._identity = f"{seed} {number}".encode()
        self._drawn = 0

    def _next(self) -> int:
        self._drawn += 1
        return draw(self._identity, self._drawn.to_bytes(4, "big"))

    def share(self) -> float:
        """Return a number from 0 to below 1."""
        return self._next() / 2**64

    def choose(self, number: int) -> int:
        """Return a whole number from 0 to below *number*."""
        return self._next() % number


class Told:
    """Chance that follows a list of choices, takes the first one after its end, and loses nothing."""

    def __init__(self, choices: tuple[int, ...] = ()) -> None:
        self._choices = choices
        self.options: list[int] = []

    def share(self) -> float:
        """Return 1."""
        return 1.0

    def choose(self, number: int) -> int:
        """Return the next of the choices."""
        self.options.append(number)
        place = len(self.options) - 1
        return self._choices[place] if place < len(self._choices) else 0

    def untried(self) -> list[tuple[int, ...]]:
        """Return the lists of choices that differ from this one first where its own list had ended."""
        taken = [*self._choices, *[0] * (len(self.options) - len(self._choices))]
        return [
            (*taken[:place], other)
            for place in range(len(self._choices), len(self.options))
            for other in range(1, self.options[place])
        ]
