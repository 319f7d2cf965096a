"""Braze's segments: the list, the details of one, and its sizes day by day."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

from airflow_provider_heapbraze.sandbox.exchange import Endpoint, Refusal, Reply, Work
from airflow_provider_heapbraze.sandbox.reading import Reading
from airflow_provider_heapbraze.sandbox.rest import authorise

if TYPE_CHECKING:
    from airflow_provider_heapbraze.sandbox.exchange import Call
    from airflow_provider_heapbraze.sandbox.models import Segment
    from airflow_provider_heapbraze.sandbox.world import World

SEGMENTS_PER_PAGE = 100
MOST_DAYS = 100


def find(world: World, segment_id: object) -> Segment:
    """Return a segment.

    :raises Refusal: there is none with this id.
    """
    segment = world.segments.get(segment_id) if isinstance(segment_id, str) else None
    if segment is None:
        raise Refusal(400, "Invalid segment_id")
    return segment


def prepare_segments_list(world: World, call: Call) -> Work:
    """List the segments, 100 a page, in the order in which they were made (``desc``: the newest first)."""
    page, direction = call.query.get("page", "0"), call.query.get("sort_direction", "asc")
    if not re.fullmatch("[0-9]{1,9}", page):
        raise Refusal(400, "page must be a number from 0")
    if direction not in ("asc", "desc"):
        raise Refusal(400, "sort_direction must be asc or desc")
    segments = list(world.segments.values())[:: 1 if direction == "asc" else -1]
    first = int(page) * SEGMENTS_PER_PAGE
    fields = {"id", "name", "analytics_tracking_enabled", "tags"}
    found = [segment.model_dump(include=fields) for segment in segments[first : first + SEGMENTS_PER_PAGE]]
    return Work(lambda: Reply(200, {"message": "success", "segments": found}))


def prepare_segment_details(world: World, call: Call) -> Work:
    """Describe one segment."""
    segment = find(world, call.query.get("segment_id"))
    details = {
        "message": "success",
        "name": segment.name,
        "description": segment.description,
        "text_description": segment.description,
        "created_at": segment.created_at,
        "updated_at": segment.updated_at,
        "tags": segment.tags,
        "teams": [],
    }
    return Work(lambda: Reply(200, details))


def prepare_data_series(world: World, call: Call) -> Work:
    """Tell a segment's sizes, the oldest day first: those that are known of past days, and today's."""
    segment = find(world, call.query.get("segment_id"))
    length = call.query.get("length", "")
    if not re.fullmatch("[0-9]{1,3}", length) or not 1 <= int(length) <= MOST_DAYS:
        raise Refusal(400, "length must be a number from 1 to 100")
    until = _day(call.query.get("ending_at"))

    def apply() -> Reply:
        sizes = [*segment.sizes, len(Reading(world).members(segment))]
        today = datetime.now(UTC).date()
        days = [today - timedelta(days=age) for age in reversed(range(len(sizes)))]
        data = [
            {"time": f"{day.isoformat()}T00:00:00.000Z", "size": size}
            for day, size in zip(days, sizes, strict=True)
            if until is None or day <= until
        ]
        return Reply(200, {"message": "success", "data": data[-int(length) :]})

    return Work(apply)


def _day(text: str | None) -> date | None:
    """Read the UTC day of a moment."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC).date()
    except (ValueError, OverflowError):
        raise Refusal(400, "ending_at must be a valid ISO 8601 time") from None


ENDPOINTS = (
    Endpoint(
        "segments-list",
        "GET",
        "/segments/list",
        group="pool",
        authorise=authorise,
        prepare=prepare_segments_list,
        permission="segments.list",
    ),
    Endpoint(
        "segments-details",
        "GET",
        "/segments/details",
        group="pool",
        authorise=authorise,
        prepare=prepare_segment_details,
        permission="segments.details",
    ),
    Endpoint(
        "segments-data-series",
        "GET",
        "/segments/data_series",
        group="pool",
        authorise=authorise,
        prepare=prepare_data_series,
        permission="segments.data_series",
    ),
)
