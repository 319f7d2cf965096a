"""One request and its answer: what vendors' endpoints have in common, and the way through them."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

from pydantic_core import from_json
from starlette.responses import Response

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from airflow_provider_heapbraze.sandbox.answers import RequestEntry
    from airflow_provider_heapbraze.sandbox.limits import Spent
    from airflow_provider_heapbraze.sandbox.models import EndpointName, Group, Permission
    from airflow_provider_heapbraze.sandbox.world import World


@dataclass(frozen=True)
class Call:
    """A request that was read: its JSON body (None where it has none), and what came with it.

    :param base_url: where the caller found the sandbox; ends in a slash.
    """

    method: str
    base_url: str
    body: Any
    headers: Mapping[str, str]
    path_params: Mapping[str, str]
    query: Mapping[str, str]

    def json_object(self) -> dict[str, Any]:
        """Return the body.

        :raises Refusal: it is no JSON object.
        """
        if not isinstance(self.body, dict):
            raise Refusal(400, "Body must be a JSON object")
        return self.body


@dataclass(frozen=True)
class Reply:
    """An answer; ``status`` None cuts the connection.

    A body of type bytes is sent as it is: HTML, where ``headers`` have no Content-Type.
    """

    status: int | None
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


class Refusal(Exception):  # noqa: N818 - what the vendor does, not what went wrong here
    """The vendor refuses the request."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@dataclass(frozen=True)
class Work:
    """A request that was found valid: what it would do, and what the log tells of it.

    :param apply: takes effect and answers; a refusal changes nothing.
    :param ids: number of identifiers by direction and kind.
    :param cohort_id: the cohort that it changes.
    """

    apply: Callable[[], Reply]
    ids: dict[str, dict[str, int]] = field(default_factory=dict)
    cohort_id: str | None = None


@dataclass(frozen=True)
class Endpoint:
    """A vendor's endpoint.

    :param group: whose limit it counts toward; None where there is none.
    :param authorise: refuses wrong keys.
    :param prepare: refuses what the contract refuses; changes nothing but counts of what was sent.
    :param largest_body: bytes; None where the vendor documents no limit.
    :param permission: what a Braze REST key needs.
    :param cost: how much of the limit a request uses.
    :param persons: how much of Heap's limit for each person it uses, by person.
    :param tells_limit: whether answers carry Braze's rate limit headers.
    """

    name: EndpointName
    method: str
    path: str
    group: Group | None
    authorise: Callable[[World, Endpoint, Call], None]
    prepare: Callable[[World, Call], Work]
    largest_body: int | None = None
    permission: Permission | None = None
    cost: Callable[[Call], int] = lambda _: 1
    persons: Callable[[Call], Mapping[Hashable, int] | None] = lambda _: None
    tells_limit: bool = True


_OVER_LIMIT = Reply(429, {"message": "Rate limit exceeded"})


async def serve(world: World, endpoint: Endpoint, request: Request) -> Response:
    """Take a request through keys, limit, contract and faults, and log it."""
    raw = await request.body()
    entry = world.log.open(endpoint, request.method, raw)
    limit_headers: dict[str, str] = {}
    try:
        call = _read(endpoint, request, raw)
        endpoint.authorise(world, endpoint, call)
        spent = _spend(world, endpoint, call)
        limit_headers = spent.headers() if spent and endpoint.tells_limit else {}
        if spent and spent.broken:
            reply = _turn_away(world, endpoint, call)
        else:
            reply = await _carry_out(world, endpoint, call, entry)
    except Refusal as refusal:
        reply = Reply(refusal.status, {"message": refusal.message})
    world.log.close(entry, reply.status)
    # A fault's answer has only its own headers: the limit's would tell what the fault hides.
    return _render(reply, {} if entry.fault else limit_headers)


def _read(endpoint: Endpoint, request: Request, raw: bytes) -> Call:
    if endpoint.largest_body is not None and len(raw) > endpoint.largest_body:
        raise Refusal(413, "Request body is too large")
    return Call(
        method=request.method,
        base_url=str(request.base_url),
        body=_parse(raw) if raw else None,
        headers=request.headers,
        path_params=request.path_params,
        query=request.query_params,
    )


def _parse(raw: bytes) -> Any:
    # Reading is much of the work of a large request. pydantic's reader takes half the time of Python's, but
    # refuses what is JSON for the other: half a surrogate pair, deep nesting, encodings other than UTF-8.
    with suppress(ValueError):
        return from_json(raw, allow_inf_nan=False, cache_strings="keys")
    try:
        return json.loads(raw, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise Refusal(400, "Body is not valid JSON") from None


def _refuse_constant(_: str) -> NoReturn:
    raise ValueError("NaN and Infinity are not JSON")


def _spend(world: World, endpoint: Endpoint, call: Call) -> Spent | None:
    if endpoint.group is None:
        return None
    return world.limits.spend(endpoint.group, endpoint.cost(call), endpoint.persons(call))


def _turn_away(world: World, endpoint: Endpoint, call: Call) -> Reply:
    # What was sent counts all the same; the limit comes before the contract.
    with suppress(Refusal):
        endpoint.prepare(world, call)
    return _OVER_LIMIT


async def _carry_out(world: World, endpoint: Endpoint, call: Call, entry: RequestEntry) -> Reply:
    work = endpoint.prepare(world, call)
    entry.ids = work.ids
    with world.under_way(work.cohort_id) as overlap:
        entry.overlap = overlap
        trouble = world.faults.meet(endpoint.name, overlap=overlap)
        entry.fault = trouble.name
        if trouble.delay:
            await asyncio.sleep(trouble.delay)
        if trouble.reply is not None and not trouble.applies:
            return trouble.reply
        reply = work.apply()
        entry.applied = True
        return trouble.reply or reply


def _render(reply: Reply, limit_headers: Mapping[str, str]) -> Response:
    headers = {**limit_headers, **reply.headers}
    if reply.status is None:
        return Cut()
    if reply.body is None:
        return Response(status_code=reply.status, headers=headers)
    if isinstance(reply.body, bytes):
        return Response(reply.body, reply.status, headers, media_type="text/html")
    return Response(json.dumps(reply.body), reply.status, headers, media_type="application/json")


class Cut(Response):
    """No answer: the connection is reset."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's form
        """Cut the connection, and leave when the server knows of it: it would answer 500 for us."""
        scope["state"]["transport"].abort()
        while (await receive())["type"] != "http.disconnect":
            pass
