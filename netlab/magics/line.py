"""`%netlab`: the common calls as words on a line."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import netlab
from netlab.checks import nearest
from netlab.errors import BadInput, CaptureError
from netlab.magics.words import brief, split, value

_FUNCTIONS = {  # the words of the line, and the public function that they call
    "connections": "connections",
    "conntrack": "conntrack",
    "conntrack-stats": "conntrack_stats",
    "doctor": "doctor",
    "gateway": "gateway",
    "listeners": "listeners",
    "multipath": "multipath",
    "nat": "nat",
    "routes": "routes",
    "trace": "traceroute",
}
_SEEN = {  # the words of the line, and the method of the capture that they call
    "dns": "dns",
    "drops": "drops",
    "failures": "failures",
    "requests": "requests",
    "stats": "protocol_stats",
    "tls": "tls",
}
_OWN = {
    "capture": "capture start [options]: begin one; capture: its connections so far; capture stop: end it",
    "coverage": "what the capture's connections lack, and why",
    "dns": "the DNS lookups in the capture, started with --protocols dns",
    "drops": "the packets that this host dropped during the capture, started with --drops",
    "failures": "the attempts that failed in the capture",
    "help": "this list, or what one call takes: help trace",
    "requests": "the requests in the capture, started with --protocols http,postgres or the like",
    "stats": "requests, lookups and handshakes in the capture, counted by what was asked and answered",
    "tls": "the TLS handshakes in the capture, started with --protocols tls",
}


@dataclass(frozen=True, slots=True)
class Help:
    """A text to read."""

    text: str

    def __repr__(self) -> str:
        return self.text


class Calls:
    """%netlab CALL [ARGUMENT …] [--option VALUE …]

    Calls the function of netlab with that name and returns what it returns, so `hops = %netlab trace HOST`
    works too. Values are numbers, words or Python literals, several with commas between them; an option
    without a value is True, --no-OPTION is False.

        %netlab doctor
        %netlab connections --port 443
        %netlab trace db.example --protocol tcp --port 5432
        %netlab conntrack --netns all
        %netlab conntrack-stats
        %netlab capture start --port 443,8443 --protocols http,dns
        %netlab failures
        %netlab coverage
        %netlab requests
        %netlab capture stop
        %netlab help trace
    """  # noqa: D400 - it is what %netlab? shows

    def __init__(self) -> None:
        self.capture: Any = None
        self.__name__ = "netlab"

    def __call__(self, line: str) -> Any:  # noqa: D102 - the class says it
        with brief():
            call, *rest = split(line) or ["help"]
            if call in _SEEN:
                return self._seen(call, rest)
            if call in _OWN:
                own: Callable[[list[str]], Any] = getattr(self, f"_{call}")
                return own(rest)
            return _called(call, _function(call), rest)

    def complete(self, words: list[str]) -> list[str]:
        """Return what can follow *words*."""
        if not words:
            return [*_FUNCTIONS, *_OWN]
        if words == ["help"]:
            return [*_FUNCTIONS, *_OWN]
        if words == ["capture"]:
            return ["start", "stop"]
        known = {**_FUNCTIONS, "capture": "capture"}
        return (
            [_option(name) for name in _options(getattr(netlab, known[words[0]]))]
            if words[0] in known
            else []
        )

    def close(self) -> None:
        """Stop the capture that is running, if one is; safe to call again."""
        if self.capture is not None:
            self.capture.stop()

    def _capture(self, words: list[str]) -> Any:
        action, *rest = words or [""]
        if action == "start":
            if self.capture is not None and self.capture.state != "stopped":
                raise CaptureError("a capture is running already", fix="End it first: %netlab capture stop")
            capture = _called("capture start", netlab.capture, rest)
            capture.start()
            self.capture = capture
            return capture
        if rest or action not in {"", "stop"}:
            raise BadInput(f"a capture does not {' '.join(words)!r}", fix="Known: start [options], stop")
        seen = self._started()
        if action == "stop":
            seen.stop()
        return seen.connections()

    def _coverage(self, words: list[str]) -> Any:
        if words:
            raise BadInput("coverage takes no arguments", fix="Of another frame: netlab.coverage(frame)")
        return netlab.coverage(self._started().connections())

    def _seen(self, call: str, words: list[str]) -> Any:
        if words:
            raise BadInput(f"{call} takes no arguments", fix="Give them to %netlab capture start")
        return getattr(self._started(), _SEEN[call])()

    def _help(self, words: list[str]) -> Help:
        if not words:
            lines = {name: _first_line(_function(name)) for name in _FUNCTIONS} | _OWN
            return Help("\n".join(f"%netlab {name:15} {what}" for name, what in sorted(lines.items())))
        if words[0] in _OWN and words[0] != "capture":
            return Help(f"%netlab {words[0]}: {_OWN[words[0]]}")
        function = netlab.capture if words[0] == "capture" else _function(words[0])
        options = " ".join(_option(name) for name in _options(function))
        call = "capture start" if words[0] == "capture" else words[0]
        return Help(f"%netlab {call} {options}\n\n{inspect.getdoc(function)}")

    def _started(self) -> Any:
        if self.capture is None:
            raise CaptureError("no capture has been started", fix="%netlab capture start")
        return self.capture


def _function(call: str) -> Callable[..., Any]:
    if call not in _FUNCTIONS:
        raise BadInput(f"%netlab has no call {call!r}", fix=nearest(call, [*_FUNCTIONS, *_OWN]))
    found: Callable[..., Any] = getattr(netlab, _FUNCTIONS[call])
    return found


def _called(call: str, function: Callable[..., Any], words: list[str]) -> Any:
    arguments, options = _arguments(call, words, _options(function))
    try:
        inspect.signature(function).bind(*arguments, **options)
    except TypeError as error:
        raise BadInput(f"%netlab {call}: {error}", fix=f"%netlab help {call.partition(' ')[0]}") from error
    return function(*arguments, **options)


def _arguments(call: str, words: list[str], known: list[str]) -> tuple[list[str], dict[str, Any]]:
    """Return the words without a name, as they are, and the options by name."""
    arguments: list[str] = []
    options: dict[str, Any] = {}
    rest = words[::-1]
    while rest:
        word = rest.pop()
        if not word.startswith("--"):
            arguments.append(word)
            continue
        title, given, text = word[2:].partition("=")
        name, negated = title.replace("-", "_"), False
        if name not in known and name.removeprefix("no_") in known:
            name, negated = name.removeprefix("no_"), True
        if name not in known:
            fix = nearest(title, map(_title, known)) if known else "It takes none"
            raise BadInput(f"%netlab {call} has no option {word!r}", fix=fix)
        if name in options:
            raise BadInput(
                f"{_option(name)} is given twice", fix=f"Several values have commas: {_option(name)} a,b"
            )
        if negated or (not given and (not rest or rest[-1].startswith("--"))):
            options[name] = not negated
        else:
            options[name] = value(text if given else rest.pop())
    return arguments, options


def _options(function: Callable[..., Any]) -> list[str]:
    parameters = inspect.signature(function).parameters.values()
    return [each.name for each in parameters if each.kind is each.KEYWORD_ONLY]


def _title(name: str) -> str:
    return name.replace("_", "-")


def _option(name: str) -> str:
    return f"--{_title(name)}"


def _first_line(function: Callable[..., Any]) -> str:
    return (inspect.getdoc(function) or "").partition("\n")[0]
