"""Members that Heap pushed: its Segments Sync, as it has landed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from airflow_provider_heapbraze.clients.clock import SYSTEM_CLOCK, Clock

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from airflow_provider_heapbraze.membership.members import Access, Part
    from airflow_provider_heapbraze.membership.tables import Workspace


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
        from airflow_provider_heapbraze.segments_sync.pushed import pushed_members

        yield pushed_members(self, space, access, columns)
