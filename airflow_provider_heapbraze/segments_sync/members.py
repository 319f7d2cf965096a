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
from airflow_provider_heapbraze.segments_sync.folding import Patience, fold
from airflow_provider_heapbraze.segments_sync.pages import LEAST_ID, MOST_ID, segment_folder
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

    A page that comes twice changes nothing. A sync whose pages have not all landed is waited for, and never
    applied in part. Later syncs win; where one sync both adds and removes a member, it is removed.

    :param path: location of all that has landed, as the landing service has it.
    :param segment_id: the segment's number in Heap.
    :param id_column: what ``IdentityMapping`` calls the pushed value: the user property that was chosen in
        Heap as the matching key.
    :param wait_seconds: how long to wait for missing pages since the sync's newest one arrived.
    :param on_incomplete: after that, ``fail`` (a later try may pass) or ``skip``: leave this sync out for
        good. Its pages change nothing then, even where they come late; start the sync anew in Heap.
    """

    template_fields: ClassVar[Sequence[str]] = (
        "path",
        "segment_id",
        "id_column",
        "wait_seconds",
        "on_incomplete",
    )

    path: str
    segment_id: int | str
    id_column: str = "identity"
    wait_seconds: float | str = 900
    on_incomplete: str = "fail"
    clock: Clock = field(default=SYSTEM_CLOCK, repr=False, compare=False)

    def parts(self, space: Workspace, access: Access, columns: Sequence[str]) -> Iterator[Part]:
        """Give all members as one part; see :class:`.members.Members`.

        :raises IncompleteSyncError: pages are missing.
        :raises UnusablePageError: a page cannot be understood.
        """
        segment_id = _segment_id(self.segment_id)
        patience = self._patience()
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
        folded = fold(space, segment_folder(path, segment_id), segment_id, ledger, patience)
        taken_at = datetime.fromtimestamp(folded.snapshot.as_of / 1000, UTC)
        _tell(segment_id, folded, taken_at)
        wanted = ", ".join(f"id::JSON AS c{place}" for place in range(len(columns)))
        yield Part(source, f"SELECT {wanted} FROM ({folded.members})", taken_at)

    def _patience(self) -> Patience:
        seconds = limit(self.wait_seconds, "wait_seconds of SegmentSyncMembers")
        if seconds is None or math.isinf(seconds):
            raise ConfigurationError(
                "wait_seconds of SegmentSyncMembers must be a number of seconds. Nothing was sent."
            )
        if self.on_incomplete not in {"fail", "skip"}:
            raise ConfigurationError(
                "on_incomplete of SegmentSyncMembers must be 'fail' or 'skip'. Nothing was sent."
            )
        return Patience(seconds, self.on_incomplete == "skip", self.clock)


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


def _tell(segment_id: int, folded: Fold, taken_at: datetime) -> None:
    log.info(
        "Segment %s: %s tasks folded, %s members, as of %s; %s changes said both to add and to remove, and "
        "were taken for removals",
        segment_id,
        f"{folded.tasks:,}",
        f"{folded.snapshot.present:,}",
        taken_at.isoformat(timespec="seconds"),
        f"{folded.both:,}",
    )
    if folded.left_out:
        log.warning(
            "Segment %s: %s incomplete tasks were left out for good; start the segment's sync anew in Heap",
            segment_id,
            folded.left_out,
        )
    if folded.late:
        log.warning(
            "Segment %s: %s pages came of tasks that had been left out, and changed nothing; start the "
            "segment's sync anew in Heap if that has not been done since",
            segment_id,
            folded.late,
        )
