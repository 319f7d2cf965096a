"""What happened to every row since the last record, and the writing of it."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from airflow_provider_heapbraze.events.progress import Progress

if TYPE_CHECKING:
    from airflow_provider_heapbraze.events.checkpoint import Checkpoint
    from airflow_provider_heapbraze.events.outbox import Waiting
    from airflow_provider_heapbraze.events.progress import FileState

FLUSH_SECONDS = 1.0


class EventAccount:
    """Rows that are settled and not recorded yet; used by one thread."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self._progress, self._unwritten = Progress(), Progress()
        self._aside: list[bytes] = []
        self._recorded_at = time.monotonic()

    @property
    def is_due(self) -> bool:
        """Tell whether it is time to record."""
        return time.monotonic() - self._recorded_at >= FLUSH_SECONDS

    def sending(self, batch: list[Waiting]) -> None:
        """Note events that are about to be sent: until there is an answer, they are in doubt."""
        for waiting in batch:
            waiting.state.doubtful.add(waiting.row)
            self._progress.of(waiting.state).sending.add(waiting.row)
            self._progress.sending_ids.append(waiting.key)
            self._checkpoint.doubtful_ids.add(waiting.key)

    def answered(self, waiting: Waiting, refused: str = "") -> None:
        """Settle an event that Heap took, or refused for a reason, and its twins."""
        event = waiting.event
        self._checkpoint.doubtful_ids.discard(waiting.key)
        if refused:
            self.keep_aside(waiting.state, waiting.row, refused, event.body)
            outcome = twins_outcome = f"rejected:{refused}"
        else:
            outcome, twins_outcome = "sent", "duplicates"
            self._progress.ids[event.hour].append(waiting.key)
            self._progress.counts.update({"cut": event.cuts, "finer_time": int(event.finer_time)})
            self._checkpoint.seen.add(event.hour, waiting.key)
        self.settle(waiting.state, waiting.row, outcome)
        for state, row in waiting.twins:
            self.settle(state, row, twins_outcome)

    def settle(self, state: FileState, row: int, outcome: str) -> None:
        """Settle a row.

        :param outcome: what became of it: ``outcome``, or ``outcome:reason``.
        """
        state.settled.add(row)
        state.held.discard(row)
        state.doubtful.discard(row)
        self._progress.of(state).settled.add(row)
        self._progress.counts[outcome] += 1
        self._progress.counts["events"] += 1

    def keep_aside(self, state: FileState, row: int, reason: str, body: bytes | None) -> None:
        """Keep an event that is not sent, as far as Heap would have got it."""
        place = json.dumps({"file": state.name, "row": row, "reason": reason})[:-1].encode()
        self._aside.append(place + b', "event": ' + (body or b"null") + b"}")

    def end_of_file(self, state: FileState, rows: int, bad: str) -> None:
        """Note how many events a file has, and why it is set aside, where it is."""
        change = self._progress.of(state)
        change.rows, change.bad = rows, bad

    def close(self, state: FileState) -> None:
        """Note that every row of a file is settled."""
        self._progress.of(state)
        self._progress.counts["files"] += not state.bad
        self._checkpoint.keep(state)

    def record(self) -> None:
        """Write down what happened since the last time.

        :raises PlaceLostError: another run took the source.
        """
        self._recorded_at = time.monotonic()
        self._write()
        if self._progress:
            if self._aside:
                self._progress.aside = self._checkpoint.keep_aside(self._aside)
            self._unwritten, self._progress, self._aside = self._progress, Progress(), []
            self._write()

    def _write(self) -> None:
        """Write a record; one that failed is written again as it was, since it may be there all the same."""
        if self._unwritten:
            self._checkpoint.record(self._unwritten)
            self._unwritten = Progress()
