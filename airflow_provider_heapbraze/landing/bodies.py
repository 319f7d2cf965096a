"""The body of a delivery: read within limits, and made the line that is landed."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from starlette.requests import ClientDisconnect

from airflow_provider_heapbraze.events.currents import parse
from airflow_provider_heapbraze.landing.answers import (
    GONE,
    TOO_DEEP,
    TOO_LARGE,
    TOO_MANY,
    Answer,
    RefusedError,
)
from airflow_provider_heapbraze.segments_sync.pages import segment_of

if TYPE_CHECKING:
    from starlette.requests import Request

# Far above what comes: a page has about a thousand members and a batch about a hundred events.
MOST_ITEMS = 100_000  # of any one list
DEEPEST = 64


def check_length(request: Request, most_bytes: int) -> None:
    """Refuse a body that says itself that it is too large.

    :raises RefusedError: it does.
    """
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length[:20]) > most_bytes:
        raise RefusedError(TOO_LARGE)


async def read(request: Request, most_bytes: int) -> bytes:
    """Read a body, however it is sent, no further than to the limit.

    :raises RefusedError: it is too large or cut off.
    """
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > most_bytes:
                raise RefusedError(TOO_LARGE)
    except ClientDisconnect:
        raise RefusedError(GONE) from None
    return bytes(body)


def segment_of_page(body: bytes) -> int | None:
    """Return the id of the segment that a webhook of Heap is about; None where it cannot be understood.

    Nor can one that passes the limits: Heap does not split a page. One that is JSON to some readers only (a
    lone surrogate, NaN) would keep others from reading the pages that share its file.
    """
    with suppress(ValueError):
        if _beyond_limits(body, parse(body)) is None:
            return segment_of(body)
    return None


def line_of_batch(body: bytes) -> bytes | None:
    """Return a batch of Braze as it is landed, without the line's end; empty where there is nothing in it.

    Any JSON is landed as it came: what is not known today may be read tomorrow. None where it is no JSON, or
    passes the limits with a single event.

    :raises RefusedError: it passes the limits, and Braze can split it.
    """
    if not body or body.isspace():
        return b""
    try:
        batch = parse(body)
    except ValueError:
        return None
    refusal = _beyond_limits(body, batch)
    if refusal is not None:
        if _has_several_events(batch):
            raise RefusedError(refusal)
        return None
    if not batch or batch == {"events": []}:
        return b""
    # In JSON a line's end can only stand between two tokens: within a text it is escaped.
    return body.replace(b"\r", b" ").replace(b"\n", b" ")


def _has_several_events(batch: Any) -> bool:
    events = batch.get("events") if isinstance(batch, dict) else None
    return isinstance(events, list) and len(events) > 1


def _beyond_limits(body: bytes, value: Any) -> Answer | None:
    crowded = body.count(b",") >= MOST_ITEMS  # else no list can have too many
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(DEEPEST):
        if not level:
            return None
        if crowded and any(len(item) > MOST_ITEMS for item in level):
            return TOO_MANY
        level = [
            child
            for item in level
            for child in (item.values() if type(item) is dict else item)
            if type(child) is dict or type(child) is list  # every member and event comes by: no call here
        ]
    return TOO_DEEP if level else None
