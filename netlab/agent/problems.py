"""What goes wrong, as an answer: a status, a code to test for, and the words of the error."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from netlab import errors
from netlab.errors import NetlabError


class Problem(BaseModel):
    """The body of every answer that is an error."""

    status: int
    code: str
    message: str
    fix: str = ""
    field: str | None = None


class RefusedError(NetlabError):
    """A request that the agent does not serve: too many at once, no such thing, no such format."""

    def __init__(self, status: HTTPStatus, problem: str, *, fix: str = "", wait_s: int | None = None) -> None:
        super().__init__(problem, fix=fix)
        self.status, self.wait_s = status, wait_s


# The most exact class first.
_STATUS: dict[type[NetlabError], HTTPStatus] = {
    errors.BadInput: HTTPStatus.BAD_REQUEST,
    errors.CapabilityError: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.CaptureError: HTTPStatus.CONFLICT,
    errors.ProbeError: HTTPStatus.BAD_GATEWAY,
    errors.KernelError: HTTPStatus.SERVICE_UNAVAILABLE,
    NetlabError: HTTPStatus.INTERNAL_SERVER_ERROR,
}
CLASSES = {kind.__name__: kind for kind in _STATUS} | dict.fromkeys(
    (HTTPStatus.UNAUTHORIZED.phrase, HTTPStatus.FORBIDDEN.phrase), errors.CapabilityError
)


def install(app: FastAPI) -> None:
    """Have *app* answer every error with a `Problem`."""
    app.add_exception_handler(NetlabError, _of_netlab)
    app.add_exception_handler(RequestValidationError, _of_parameters)
    app.add_exception_handler(HTTPException, _of_http)


def answer(
    status: int,
    code: str,
    message: str,
    *,
    fix: str = "",
    field: str | None = None,
    wait_s: int | None = None,
) -> JSONResponse:
    """Return the answer for one problem."""
    problem = Problem(status=status, code=code, message=message[:_MOST_TEXT], fix=fix, field=field)
    headers = {} if wait_s is None else {"Retry-After": str(wait_s)}
    return JSONResponse(problem.model_dump(), status, headers)


_MOST_TEXT = 2000


async def _of_netlab(request: Request, error: Any) -> JSONResponse:
    return told(error, asked=[*request.path_params, *request.query_params])


def told(error: NetlabError, *, asked: Iterable[str] = ()) -> JSONResponse:
    """Return the answer for *error*, met for a request with the parameters *asked*."""
    if isinstance(error, RefusedError):
        return answer(error.status, error.status.phrase, error.problem, fix=error.fix, wait_s=error.wait_s)
    kind = next(kind for kind in _STATUS if isinstance(error, kind))
    field = next((name for name in asked if error.problem.startswith(f"{name} ")), None)
    return answer(_STATUS[kind], kind.__name__, error.problem, fix=error.fix, field=field)


async def _of_parameters(_: Request, error: Any) -> JSONResponse:
    first: dict[str, Any] = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"][1:])
    message = f"{field} {first.get('input')!r} cannot be right: {first['msg']}"
    return answer(HTTPStatus.BAD_REQUEST, "BadInput", message, fix="/openapi.json has the types", field=field)


async def _of_http(_: Request, error: Any) -> JSONResponse:
    return answer(error.status_code, HTTPStatus(error.status_code).phrase, str(error.detail))
