"""Answers met in the middle of a conversation: whether they are those of the requests that were seen."""

from __future__ import annotations

from netlab.protocols.dialog import Exchange, Outcome

MOST_HELD = 1000


class Proof:
    """Holds back what is answered until it is proved whose answers these are.

    Where reading begins, requests from before may still wait, and the first answers be theirs. Then there are
    more answers than requests: so as many of each, when the client goes on, are the proof.
    """

    __slots__ = ("_held", "is_sure")

    def __init__(self, *, is_sure: bool) -> None:
        self.is_sure = is_sure
        self._held: list[Exchange] = []

    @property
    def waits(self) -> bool:
        """Whether anything is held back."""
        return bool(self._held)

    def of(self, over: list[Exchange]) -> list[Exchange]:
        """Return those of *over* that are told at once, and hold back the others."""
        if self.is_sure:
            return over
        self._held += [one for one in over if one.outcome is Outcome.ANSWERED]
        told = [one for one in over if one.outcome is not Outcome.ANSWERED]
        return told if len(self._held) <= MOST_HELD else told + self.refute()

    def prove(self) -> list[Exchange]:
        """Return what was held back, as it was answered: the client goes on, and nothing waits."""
        self.is_sure |= self.waits
        held, self._held = self._held, []
        return held

    def refute(self) -> list[Exchange]:
        """Return what was held back, without its answers: they may be another's."""
        held, self.is_sure, self._held = self.held(), False, []
        return held

    def held(self) -> list[Exchange]:
        """Return what is held back, as far as it is sure."""
        return [one.unproved() for one in self._held]
