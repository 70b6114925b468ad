"""Tab completion behind `%netlab`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from IPython.core.completer import CompletionContext, SimpleCompletion, context_matcher

IDENTIFIER = "netlab.magics"


def matcher(magic: str, following: Callable[[list[str]], list[str]]) -> Any:
    """Return a matcher of IPython's for the words behind *magic*, instead of those of Python.

    Parameters
    ----------
    magic
        What the line has to have in front of the cursor.
    following
        Returns what can follow the whole words that are there.
    """

    def matched(context: CompletionContext) -> dict[str, Any]:
        before, found, typed = context.text_until_cursor.rpartition(f"{magic} ")
        if not found or "'" in before or '"' in before:
            return {"completions": []}
        words = typed.split(" ")
        begun = words.pop()
        known = following([word for word in words if word])
        return {
            "completions": [SimpleCompletion(text=word) for word in known if word.startswith(begun)],
            "matched_fragment": begun,
            "ordered": True,
            "suppress": True,
        }

    return context_matcher(identifier=IDENTIFIER)(matched)
