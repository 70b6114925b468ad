"""Names of what went wrong, by the protocols' own codes."""

from __future__ import annotations

from http import HTTPStatus

INCOMPLETE = "incomplete"  # an answer: the connection ended in the middle of it

# As RFC 9110 names them; Python does since 3.13.
_RENAMED = {
    413: "Content Too Large",
    414: "URI Too Long",
    416: "Range Not Satisfiable",
    422: "Unprocessable Content",
}
_HTTP = {str(int(status)): status.phrase for status in HTTPStatus if status >= 400} | {
    str(code): name for code, name in _RENAMED.items()
}
_CLASSES = {"4": "Client Error", "5": "Server Error"}  # RFC 9110 section 15.5, 15.6
_GRPC = (  # by number: the status codes of the gRPC specification
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)


def http_error(status: str) -> str | None:
    """Return the name of a failure, or of its class; None: *status* is none.

    What the answer's own status line calls it is free text, and may say anything.
    """
    return _HTTP.get(status) or _CLASSES.get(status[:1])


def grpc_error(status: str) -> str | None:
    """Return the name of a gRPC failure; None: *status* is OK."""
    code = int(status) if status.isdecimal() and len(status) < 4 else len(_GRPC)
    if code == 0:
        return None
    return _GRPC[code] if code < len(_GRPC) else "UNKNOWN"  # as clients must read unknown codes
