"""Members that Heap pushed: its Segments Sync, as it has landed."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_heapbraze import storage
from airflow_provider_heapbraze.clients.clock import SYSTEM_CLOCK, Clock
from airflow_provider_heapbraze.clients.errors import ConfigurationError
from airflow_provider_heapbraze.membership.arguments import limit
from airflow_provider_heapbraze.membership.files import column_place
from airflow_provider_heapbraze.membership.members import Part
from airflow_provider_heapbraze.moments import moment
from airflow_provider_heapbraze.segments_sync.folding import Rules, first_few, fold
from airflow_provider_heapbraze.segments_sync.pages import LEAST_ID, MOST_ID, START_ANEW, segment_folder
from airflow_provider_heapbraze.segments_sync.record import SegmentLedger

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from airflow_provider_heapbraze.membership.members import Access
    from airflow_provider_heapbraze.membership.tables import Workspace
    from airflow_provider_heapbraze.segments_sync.folding import Fold

log = logging.getLogger(__name__)


@dataclass
class SegmentSyncMembers:
    """Members that Heap's Segments Sync pushed to the landing service.

    What has landed is folded into the present members, which are kept in the ledger: the next run reads only
    what came since. A page that was folded may be deleted; then the ledger is its only record. Heap pushes
    changes, and everybody only in a segment's first sync: that one must have landed, too.

    A page that comes twice changes nothing; neither does an order to empty the segment that comes again
    within four hours. A sync whose pages have not all landed is waited for, and never applied in part. Later
    syncs win; where one sync both adds and removes a member, it is removed.

    :param path: location of all that has landed, as the landing service has it.
    :param segment_id: the segment's number in Heap.
    :param id_column: what ``IdentityMapping`` calls the pushed value: the user property that was chosen in
        Heap as the matching key.
    :param wait_seconds: how long to wait for missing pages since the sync's newest one arrived.
    :param on_incomplete: after that, ``fail`` (a later try may pass) or ``skip``: leave this sync out for
        good. Its pages change nothing then, even where they come late, and every run warns until the segment
        starts anew: by ``full_since``, or where Heap empties it. A first sync is never left out.
    :param full_since: a time, with its offset or in UTC, since when Heap has sent everybody again: just
        before the segment's sync was started anew in Heap. What was said earlier has no effect then, for
        good: an earlier time, given later, changes nothing. Until a sync has landed since, runs fail. It may
        stay in the DAG, and must not depend on the run: each would start from its own changes.
    """

    template_fields: ClassVar[Sequence[str]] = (
        "path",
        "segment_id",
        "id_column",
        "wait_seconds",
        "on_incomplete",
        "full_since",
    )

    path: str
    segment_id: int | str
    id_column: str = "identity"
    wait_seconds: float | str = 900
    on_incomplete: str = "fail"
    full_since: datetime | str | None = None
    clock: Clock = field(default=SYSTEM_CLOCK, repr=False, compare=False)

    def parts(self, space: Workspace, access: Access, columns: Sequence[str]) -> Iterator[Part]:
        """Give all members as one part; see :class:`.members.Members`.

        :raises IncompleteSyncError: pages are missing, or no sync has landed since ``full_since``.
        :raises UnusablePageError: a page cannot be understood.
        :raises LostPagesError: pages were deleted before they were folded.
        :raises FirstSyncMissingError: what has landed does not begin with everybody.
        """
        segment_id = _segment_id(self.segment_id)
        rules = self._rules()
        if not self.path.strip():
            raise ConfigurationError("The path of SegmentSyncMembers is empty. Nothing was sent.")
        source = f"Segment {segment_id}, as Heap pushed it,"
        for column in columns:
            column_place(column, [self.id_column], source)
        path = access.path(self.path.strip())
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
        yield Part(source, f"SELECT {wanted} FROM ({folded.members})", taken_at)

    def _rules(self) -> Rules:
        seconds = limit(self.wait_seconds, "wait_seconds of SegmentSyncMembers")
        if seconds is None or math.isinf(seconds):
            raise ConfigurationError(
                "wait_seconds of SegmentSyncMembers must be a number of seconds. Nothing was sent."
            )
        if self.on_incomplete not in {"fail", "skip"}:
            raise ConfigurationError(
                "on_incomplete of SegmentSyncMembers must be 'fail' or 'skip'. Nothing was sent."
            )
        return Rules(seconds, self.on_incomplete == "skip", _milliseconds(self.full_since), self.clock)


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
