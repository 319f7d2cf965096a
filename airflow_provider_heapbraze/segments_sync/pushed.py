"""How what Heap pushed becomes the members of a segment."""

from __future__ import annotations

import logging
import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_heapbraze import storage
from airflow_provider_heapbraze.clients.errors import ConfigurationError
from airflow_provider_heapbraze.membership.arguments import limit
from airflow_provider_heapbraze.membership.files import column_place
from airflow_provider_heapbraze.membership.members import Part
from airflow_provider_heapbraze.moments import moment
from airflow_provider_heapbraze.segments_sync.folding import Rules, fold
from airflow_provider_heapbraze.segments_sync.pages import LEAST_ID, MOST_ID, START_ANEW, segment_folder
from airflow_provider_heapbraze.segments_sync.record import SegmentLedger
from airflow_provider_heapbraze.segments_sync.refusals import first_few

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_heapbraze.membership.members import Access
    from airflow_provider_heapbraze.membership.tables import Workspace
    from airflow_provider_heapbraze.segments_sync.folding import Fold
    from airflow_provider_heapbraze.segments_sync.members import SegmentSyncMembers

log = logging.getLogger(__name__)


def pushed_members(
    members: SegmentSyncMembers, space: Workspace, access: Access, columns: Sequence[str]
) -> Part:
    """Fold what has landed, and give all members as one part; see :class:`.members.SegmentSyncMembers`."""
    segment_id = _segment_id(members.segment_id)
    rules = _rules(members)
    if not members.path.strip():
        raise ConfigurationError("The path of SegmentSyncMembers is empty. Nothing was sent.")
    source = f"Segment {segment_id}, as Heap pushed it,"
    for column in columns:
        column_place(column, [members.id_column], source)
    path = access.path(members.path.strip())
    path = storage.local(path) or path
    if not path.exists():
        raise ConfigurationError(
            f"There is no landing path {storage.uri(path)}: what Heap pushed cannot be read, which is no "
            "empty segment. Nothing was sent. Look at path, and whether its storage is there."
        )
    ledger = SegmentLedger(access.ledger, storage.uri(path).rstrip("/"), segment_id)
    folded = fold(space, segment_folder(path, segment_id), segment_id, ledger, rules)
    taken_at = datetime.fromtimestamp(folded.snapshot.as_of / 1000, UTC)
    _tell(segment_id, folded, taken_at)
    wanted = ", ".join(f"id::JSON AS c{place}" for place in range(len(columns)))
    return Part(source, f"SELECT {wanted} FROM ({folded.members})", taken_at)


def _rules(members: SegmentSyncMembers) -> Rules:
    seconds = limit(members.wait_seconds, "wait_seconds of SegmentSyncMembers")
    if seconds is None or math.isinf(seconds):
        raise ConfigurationError(
            "wait_seconds of SegmentSyncMembers must be a number of seconds. Nothing was sent."
        )
    if members.on_incomplete not in {"fail", "skip"}:
        raise ConfigurationError(
            "on_incomplete of SegmentSyncMembers must be 'fail' or 'skip'. Nothing was sent."
        )
    skips = members.on_incomplete == "skip"
    return Rules(seconds, skips, _milliseconds(members.full_since), members.clock)


def _segment_id(value: Any) -> int:
    try:
        segment_id = int(str(value).strip())
    except ValueError:
        segment_id = MOST_ID + 1
    if not LEAST_ID <= segment_id <= MOST_ID:
        raise ConfigurationError(
            "segment_id of SegmentSyncMembers must be the segment's number in Heap. Nothing was sent."
        )
    return segment_id


def _milliseconds(value: Any) -> int:
    """Return a time as UTC epoch milliseconds; 0 where a template made nothing of it."""
    given = moment(value, "full_since of SegmentSyncMembers")
    return 0 if given is None else round(given.timestamp() * 1000)


def _tell(segment_id: int, folded: Fold, taken_at: datetime) -> None:
    snapshot = folded.snapshot
    log.info(
        "Segment %s: %s syncs folded, %s members, as of %s; %s changes said both to add and to remove, and "
        "were taken for removals",
        segment_id,
        f"{folded.tasks:,}",
        f"{snapshot.present:,}",
        taken_at.isoformat(timespec="seconds"),
        f"{folded.both:,}",
    )
    if folded.left_out:
        log.warning(
            "Segment %s: incomplete syncs were left out for good: %s", segment_id, first_few(folded.left_out)
        )
    if folded.late:
        log.warning(
            "Segment %s: %s pages came of syncs that had been left out, and changed nothing",
            segment_id,
            f"{folded.late:,}",
        )
    if snapshot.is_doubtful:
        log.warning(
            "Segment %s may not be what it is in Heap: a sync that began at %s was left out, and who left "
            "in it is still a member; %s",
            segment_id,
            datetime.fromtimestamp(snapshot.left_out_at / 1000, UTC).isoformat(timespec="seconds"),
            START_ANEW,
        )
    if folded.unknown:
        log.warning(
            "Segment %s: %s people were removed who had never been added; one or few may have got the "
            "matching key after they came, but many mean that a sync has not landed: then %s",
            segment_id,
            f"{folded.unknown:,}",
            START_ANEW,
        )
    if folded.drains_again:
        log.warning(
            "Segment %s: Heap emptied it again within four hours, which was taken for a repetition, and "
            "who had come in between stays; if it was meant, %s",
            segment_id,
            START_ANEW,
        )
