"""How a client is told what went wrong: the right status, in the form of the API that it speaks."""

from __future__ import annotations

from starlette.responses import JSONResponse, Response

from groundup.serve.asking import Problem
from groundup.serve.models import NotServed
from groundup.serve.writing import Broken, Busy

LONGEST = 2_000
"""Characters of a message."""


def as_problem(error: Exception) -> Problem:
    """What a client is told of an error."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, NotServed):
        return Problem(str(error), 404, "model", "model_not_found")
    if isinstance(error, Busy):
        return Problem(str(error), 503, wait=1)
    if isinstance(error, Broken):
        return Problem(str(error), 500)
    return Problem(str(error), 400)


def answer(path: str, problem: Problem) -> Response:
    """The problem in the form that the API of this path has for them."""
    headers = {} if problem.wait is None else {"Retry-After": str(problem.wait)}
    return JSONResponse(error_body(path, problem), problem.status, headers)


def error_body(path: str, problem: Problem) -> dict[str, object]:
    """The JSON of a problem."""
    message = str(problem)
    if len(message) > LONGEST:  # a request may have a hundred thousand mistakes
        message = f"{message[:LONGEST]} …"
    if path.startswith("/api/"):
        return {"error": message}
    kind = "authentication_error" if problem.status == 401 else "invalid_request_error"
    if problem.status >= 500:
        kind = "server_error"
    return {
        "error": {
            "message": message,
            "type": kind,
            "param": problem.field,
            "code": problem.code,
        }
    }
