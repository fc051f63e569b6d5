"""Reading a request: its JSON as a dataclass, within bounds, or an answer that names the field."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import json
import re
import reprlib
import types
import typing
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive

from groundup.errors import UserError, did_you_mean
from groundup.options import describe_type, fits
from groundup.parsing import from_json

LARGEST_BODY = 4 << 20
"""Bytes of a request: more text than any context holds."""

DISCARDED = 32 << 20
"""Bytes of a request that is too large that are still read, and thrown away."""

PATIENCE = 30.0
"""Seconds in which a request has to arrive."""

T = TypeVar("T")


class Problem(UserError):
    """What a client is told instead of an answer.

    Args:
        message: a sentence: what was given, what is expected, what to do.
        status: HTTP's.
        field: which of the request's fields it is about.
        code: OpenAI's word for it, if it has one.
        wait: after how many seconds to ask again, if that may help.
    """

    def __init__(
        self,
        message: str,
        status: int = 400,
        field: str | None = None,
        code: str | None = None,
        wait: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.field, self.code, self.wait = status, field, code, wait


class BadRequest(Problem):
    """A request that makes no sense (400); it names the field."""

    def __init__(self, message: str, field: str | None = None, code: str | None = None) -> None:
        super().__init__(message, 400, field, code)


async def read_body(request: Request, shape: type[T]) -> T:
    """A request's JSON as a dataclass of this type; null stands for what is not given.

    A field may be a plain type, a ``Literal``, a dataclass, or lists, dicts and unions of them. The
    dataclass may say in ``REFUSED`` why a field that others know is none here.

    Raises:
        BadRequest: it is not JSON, or a field is unknown, missing, or of a wrong type.
        Problem: it is too large (413), or does not arrive (408).
    """
    data = await _read(request)
    # Large ones take a while to read, and others want to be answered meanwhile.
    small = len(data) < 1 << 14
    return _read_as(data, shape) if small else await asyncio.to_thread(_read_as, data, shape)


def _read_as(data: bytes, shape: type[T]) -> T:
    try:
        value = from_json(data)
    except ValueError as error:
        raise BadRequest(f"the request is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise BadRequest(f"the request is {_briefly(value)}; expected a JSON object")
    if b"\\u" in data:
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise BadRequest("the request holds half of a character (a lone surrogate)") from None
    return from_object(value, shape)


async def discard(receive: Receive) -> None:
    """Read on without keeping anything, so that a client that still sends hears the answer.

    It ends after ``DISCARDED`` bytes or ``PATIENCE``; whoever sends more may find the connection
    closed.
    """
    size = 0
    with suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE):
            while size < DISCARDED:
                message = await receive()
                size += len(message.get("body", b""))
                if message["type"] != "http.request" or not message.get("more_body"):
                    return


async def _read(request: Request) -> bytes:
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(PATIENCE):
            async for part in request.stream():
                size += len(part)
                if size > LARGEST_BODY:
                    parts.clear()
                    if size > DISCARDED:
                        break
                else:
                    parts.append(part)
    except TimeoutError:
        raise Problem(f"the request has not arrived within {PATIENCE:g} seconds", 408) from None
    except ClientDisconnect:
        raise Problem("the client hung up", 499) from None
    if size > LARGEST_BODY:
        raise too_large()
    return b"".join(parts)


def too_large() -> Problem:
    """What a client is told whose request is too large."""
    return Problem(
        f"the request is larger than {LARGEST_BODY >> 20} MiB, the most that this server reads", 413
    )


def from_object(value: Mapping[str, Any], shape: type[T], where: str = "") -> T:
    """A JSON object as a dataclass; ``where`` is what its fields' names begin with.

    Raises:
        BadRequest: a field is unknown, missing, or of a wrong type; the message names it.
    """
    hints = _hints(shape)
    fields = dataclasses.fields(typing.cast(Any, shape))
    refused: Mapping[str, str] = getattr(shape, "REFUSED", {})
    names = [field.name for field in fields]
    for name, given in value.items():
        nothing = given is None or given is False or given in ([], {})  # 0 may say something
        if name in refused and not nothing:
            raise BadRequest(f"{where}{name} cannot be honoured: {refused[name]}", where + name)
        if name not in names and name not in refused:
            hint = did_you_mean(name, names) or f"; there are: {', '.join(names)}"
            raise BadRequest(f"there is no field {where}{name:.80}{hint}", where + name[:80])
    found: dict[str, Any] = {}
    for field in fields:
        given = value.get(field.name)
        if given is not None:
            found[field.name] = _converted(given, hints[field.name], where + field.name)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise BadRequest(f"{where}{field.name} is missing", where + field.name)
    return shape(**found)


def _converted(value: Any, hint: Any, name: str) -> Any:
    """A value of the type that a field is declared with."""
    origin, of = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        problems: list[BadRequest] = []
        for part in of:
            try:
                return _converted(value, part, name)
            except BadRequest as error:
                problems += [error] if _same_kind(value, part) else []
        if inner := [problem for problem in problems if problem.field != name]:
            raise max(inner, key=_place)  # of the part that fits furthest
        wanted = dict.fromkeys(_describe(part) for part in of if part is not type(None))
        raise _wrong(value, " or ".join(wanted), name)
    if dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return from_object(value, typing.cast(Any, hint), f"{name}.")
    if origin is list and isinstance(value, list):
        if not dataclasses.is_dataclass(of[0]) and fits(value, hint):  # fast: it may be long
            return value
        return [_converted(part, of[0], f"{name}[{i}]") for i, part in enumerate(value)]
    if dataclasses.is_dataclass(hint) or not fits(value, hint):
        raise _wrong(value, _describe(hint), name)
    return value


_hints = functools.cache(typing.get_type_hints)


def _same_kind(value: Any, hint: Any) -> bool:
    if isinstance(value, dict):
        return dataclasses.is_dataclass(hint)
    return isinstance(value, list) and typing.get_origin(hint) is list


def _place(problem: BadRequest) -> list[int]:
    """Which item of a list it is about, and which of that one's items."""
    return [int(number) for number in re.findall(r"\[(\d+)\]", problem.field or "")]


def _describe(hint: Any) -> str:
    if dataclasses.is_dataclass(hint) or typing.get_origin(hint) is dict:
        return "an object"
    if typing.get_origin(hint) is list:
        return "a list"
    return describe_type(hint)


def _wrong(value: Any, wanted: str, name: str) -> BadRequest:
    return BadRequest(f"{name} is {_briefly(value)}; expected {wanted}", name)


def _briefly(value: Any) -> str:
    """Its beginning: to spell out a list of millions would keep all other requests waiting."""
    return _beginning.repr(value)[:60]


_beginning = reprlib.Repr()
_beginning.maxlist = _beginning.maxdict = 20
_beginning.maxstring = _beginning.maxother = _beginning.maxlong = 60
