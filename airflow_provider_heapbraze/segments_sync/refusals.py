"""Why a pushed segment is not read: what happened, what is kept, and what to do, for the person on call."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import count, islice
from typing import TYPE_CHECKING, Any

from airflow_provider_heapbraze import storage
from airflow_provider_heapbraze.clients.errors import ConfigurationError
from airflow_provider_heapbraze.segments_sync.arrivals import end_of_hour, hour_of
from airflow_provider_heapbraze.segments_sync.errors import (
    FirstSyncMissingError,
    IncompleteSyncError,
    LostPagesError,
)
from airflow_provider_heapbraze.segments_sync.pages import START_ANEW

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

NAMED = 3  # of syncs and pages in a message


def nothing_landed(segment_id: int) -> ConfigurationError:
    """Say that there is nothing to read."""
    return ConfigurationError(
        f"Nothing has landed for segment {segment_id}: it cannot be read, which is not an empty "
        "segment. Nothing was sent. Look at the segment's id, at the landing path, which must be the "
        "landing service's, and whether Heap's Segments Sync sends this segment's webhooks there."
    )


def first_sync_missing(segment_id: int, unknown: int) -> FirstSyncMissingError:
    """Say that people were removed who had never been added.

    :param unknown: how many.
    """
    return FirstSyncMissingError(
        f"What has landed of segment {segment_id} removes {unknown:,} people whom it never added: "
        "its first sync, which adds everybody, has not landed, or its pages were deleted. Nothing was "
        f"sent. To have everybody, {START_ANEW}. If this is everybody, set full_since to a time before "
        "the first page that has landed."
    )


def pages_lost(segment_id: int, landed: Path, gone: Collection[str]) -> LostPagesError:
    """Say that files are gone before they were folded.

    :param landed: the segment's folder.
    :param gone: names of the files.
    """
    first, end = min(map(hour_of, gone)), max(map(end_of_hour, gone))
    return LostPagesError(
        f"{len(gone):,} landed files of segment {segment_id} are gone that a failed run had seen, "
        f"and that are not folded: they landed from {_time(first)} to {_time(end)} "
        f"in {storage.uri(landed)}. Nothing was sent. What they said is not known, so neither is "
        f"who is in the segment. Put them back, each in its hour's folder; or {START_ANEW}. While "
        "matches fail, let nothing delete landed files."
    )


def sync_incomplete(
    segment_id: int, incomplete: Sequence[Mapping[str, Any]], *, folder: Path, now: float, present: int | None
) -> IncompleteSyncError:
    """Say which pages of a sync are missing.

    :param incomplete: the tasks with missing pages, the oldest first.
    :param folder: where the first one's first page landed.
    :param now: UTC epoch seconds.
    :param present: how many members there are without them; None where nobody knows.
    """
    first = incomplete[0]
    more = f" (And {len(incomplete) - 1} more like it.)" if len(incomplete) > 1 else ""
    age = _span(now - first["newest_at"] / 1000)
    if present is None:
        known = "is not known at all"
        way_on = "It cannot be left out: nothing that came before it says who is in the segment."
    else:
        known = f"has {present:,} members"
        way_on = "To go on without it until then, on_incomplete='skip' leaves it out for good."
    return IncompleteSyncError(
        f"Sync {first['label']} of segment {segment_id} is incomplete: {first['here']:,} of "
        f"{first['total']:,} pages have landed, the newest {age} ago, the first one in "
        f"{storage.uri(folder)}; {_missing(first)}.{more} Nothing was sent. Nothing of it was applied; "
        f"without it the segment {known}. Heap sends pages again that were not taken: the next "
        f"try looks for them. If they do not come, {START_ANEW}. {way_on}"
    )


def nobody_known(segment_id: int, full_since: int) -> ConfigurationError | IncompleteSyncError:
    """Say that nothing tells who is in the segment.

    :param full_since: UTC epoch milliseconds from which on a sync is looked for; 0 for any.
    """
    unknown = "who is in it is not known, which is not an empty segment. Nothing was sent."
    if full_since:
        return IncompleteSyncError(
            f"No sync of segment {segment_id} has landed that began since "
            f"{_time(full_since)} (full_since): {unknown} The next try looks for one. If the "
            "segment's sync was started anew in Heap before that, set full_since of SegmentSyncMembers "
            "to just before it was; if it was not, start it."
        )
    return ConfigurationError(
        f"No sync of segment {segment_id} has landed as a whole: {unknown} Start the segment's "
        "sync anew in Heap."
    )


def first_few(names: Sequence[str], number: int | None = None) -> str:
    """Return the first few names as a text.

    :param number: how many there are, where these are the first ones.
    """
    more = (number or len(names)) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more:,} more" if more > 0 else "")


def _missing(task: Mapping[str, Any]) -> str:
    """Return which pages of a task are missing; Heap's sample counts from 1."""
    here = set(task["numbers"])
    begin = 0 if 0 in here else 1
    missing = task["total"] - task["here"]
    numbers = islice((str(number) for number in count(begin) if number not in here), min(missing, NAMED))
    return f"missing, counted from {begin}: {first_few(list(numbers), missing)}"


def _time(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds")


def _span(seconds: float) -> str:
    """Return a time for people."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
