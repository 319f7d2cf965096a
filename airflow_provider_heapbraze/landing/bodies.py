"""The body of a delivery: read within limits, and made the line that is landed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from starlette.requests import ClientDisconnect

from airflow_provider_heapbraze.events.currents import parse
from airflow_provider_heapbraze.landing.answers import (
    DAMAGED,
    ENCODED,
    GONE,
    MALFORMED,
    TOO_DEEP,
    TOO_LARGE,
    TOO_MANY,
    TOO_SLOW,
    RefusedError,
)
from airflow_provider_heapbraze.segments_sync.pages import segment_of

if TYPE_CHECKING:
    from starlette.requests import Request

READ_SECONDS = 30.0  # for the whole body
# Far above what comes: a page has about a thousand members and a batch about a hundred events.
MOST_ITEMS = 100_000  # of any one list
DEEPEST = 64


async def read(request: Request, most_bytes: int) -> bytes:
    """Read a body, however it is sent, no further than to the limit.

    :raises RefusedError: it is too large, too slow, cut off or compressed.
    """
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise RefusedError(ENCODED)  # neither sender's documentation says that it compresses
    body = bytearray()
    try:
        async with asyncio.timeout(READ_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > most_bytes:
                    raise RefusedError(TOO_LARGE)
    except TimeoutError:
        raise RefusedError(TOO_SLOW) from None
    except ClientDisconnect:
        raise RefusedError(GONE) from None
    return bytes(body)


def segment_of_page(body: bytes) -> int:
    """Return the id of the segment that a webhook of Heap is about.

    :raises RefusedError: it is none, or passes the limits.
    """
    try:
        _check_limits(body, parse(body))
        return segment_of(body)
    except ValueError:
        raise RefusedError(MALFORMED) from None


def line_of_batch(body: bytes) -> bytes | None:
    """Return a batch of Braze as it is landed, without the line's end; None where there is nothing in it.

    Any JSON is landed as it came: what is not known today may be read tomorrow.

    :raises RefusedError: it is no JSON, or passes the limits.
    """
    if not body or body.isspace():
        return None
    try:
        batch = parse(body)
    except ValueError:
        raise RefusedError(DAMAGED) from None
    _check_limits(body, batch)
    if not batch or batch == {"events": []}:
        return None
    # In JSON a line's end can only stand between two tokens: within a text it is escaped.
    return body.replace(b"\r", b" ").replace(b"\n", b" ")


def _check_limits(body: bytes, value: Any) -> None:
    crowded = body.count(b",") >= MOST_ITEMS  # else no list can have too many
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(DEEPEST):
        if not level:
            return
        if crowded and any(len(item) > MOST_ITEMS for item in level):
            raise RefusedError(TOO_MANY)
        level = [
            child
            for item in level
            for child in (item.values() if type(item) is dict else item)
            if type(child) is dict or type(child) is list  # every member and event comes by: no call here
        ]
    if level:
        raise RefusedError(TOO_DEEP)
