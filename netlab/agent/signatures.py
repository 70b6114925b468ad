"""Methods that take what a function of netlab takes, and pass on what they were given."""

from __future__ import annotations

import functools
import inspect
import ipaddress
import os
from collections.abc import Callable, Iterable, Mapping
from numbers import Integral
from typing import Any, Concatenate, ParamSpec, TypeAlias, TypeVar, cast

from netlab import checks
from netlab.errors import BadInput

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")

Given: TypeAlias = dict[str, Any]  # arguments by name, those left out not among them
_AS_TEXT = (
    ipaddress.IPv4Address,
    ipaddress.IPv6Address,
    ipaddress.IPv4Network,
    ipaddress.IPv6Network,
    os.PathLike,
)


def taking(
    function: Callable[P, Any],
) -> Callable[[Callable[[S, Given], R]], Callable[Concatenate[S, P], R]]:
    """Give a method the signature of *function*; what was left out the agent's netlab knows."""
    signature = inspect.signature(function)
    parameters = list(signature.parameters.values())

    def of(method: Callable[[S, Given], R]) -> Callable[Concatenate[S, P], R]:
        @functools.wraps(method)
        def called(self: S, *args: P.args, **kwargs: P.kwargs) -> R:
            for name in kwargs:
                if name not in signature.parameters:
                    problem = f"{method.__name__}() has no option {name!r}"
                    raise BadInput(problem, fix=checks.nearest(name, signature.parameters))
            return method(self, signature.bind(*args, **kwargs).arguments)

        itself = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        called.__signature__ = signature.replace(parameters=[itself, *parameters])  # type: ignore[attr-defined]
        return cast("Callable[Concatenate[S, P], R]", called)

    return of


def plain(value: Any) -> Any:
    """Return an argument as JSON has it: addresses and paths as text, what is several as a list."""
    if value is None or isinstance(value, str | bool | float):
        return value
    if isinstance(value, Integral):  # also one of numpy's
        return int(value)
    if isinstance(value, _AS_TEXT):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, Iterable):
        return [plain(one) for one in value]
    raise BadInput(f"{value!r} cannot be sent to an agent", fix="Give text, numbers, or several of them")
