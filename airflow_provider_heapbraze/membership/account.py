"""Which rows have an answer that is not recorded yet."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from airflow_provider_heapbraze.clients.errors import PermanentError, UnclearAnswerError
from airflow_provider_heapbraze.membership.entries import Settled

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_heapbraze.membership.batches import Batch, Refusals

FLUSH_SECONDS = 1.0
FLUSH_BATCHES = 100
# A few refused people are theirs to mend; many, with nobody accepted, are a wrong setting.
REFUSED_WITHOUT_SUCCESS = 100


class Account:
    """Answers that have come and are not recorded yet; written by many threads, taken by one."""

    def __init__(self, monotonic: Callable[[], float], destination: str) -> None:
        self._destination = destination
        self._lock = threading.Lock()
        self._monotonic = monotonic
        self._taken_at = monotonic()
        self._acknowledged: list[tuple[int, int]] = []
        self._rejected: dict[int, str] = {}
        self._named = False
        self._batches = 0
        self._accepted_rows = 0
        self._refused_rows = 0
        self._left_open = 0

    def acknowledge(self, batch: Batch, refusals: Refusals) -> None:
        """Note the rows of a batch that were accepted: all but those that the answer names."""
        excepted = refusals.rejected.keys() | refusals.unsure
        with self._lock:
            self._batches += 1
            self._acknowledged += batch.ranges(without=excepted)
            self._accepted_rows += len(batch.rows) - len(excepted)

    def reject(self, rejected: dict[int, str]) -> None:
        """Note rows that were refused for good."""
        with self._lock:
            self._rejected.update(rejected)
            self._refused_rows += len(rejected)

    def named(self) -> None:
        """Note that the target took its name."""
        with self._lock:
            self._named = True

    def leave_open(self, batch: Batch) -> None:
        """Note rows whose fate no answer settled; the others go on."""
        with self._lock:
            self._left_open += len(batch.rows)

    def check_none_left_open(self) -> None:
        """Fail where the fate of rows is not known.

        :raises UnclearAnswerError: it is not.
        """
        if self._left_open:
            raise UnclearAnswerError(
                f"{self._destination} reported errors of no documented kind for {self._left_open} people, "
                "also when each was sent alone. All others that were sent are settled and recorded; nobody "
                "is added before each removal has its answer. Clear the task to try them again; if it stays "
                f"so, ask {self._destination}'s support."
            )

    def check_somebody_passes(self, answer: str) -> None:
        """Fail where many are refused and nobody is accepted: it is no person's fault then.

        :param answer: what the other side said last.
        :raises PermanentError: it is so.
        """
        with self._lock:
            failed, accepted = self._refused_rows + self._left_open, self._accepted_rows
        if failed >= REFUSED_WITHOUT_SUCCESS and not accepted:
            raise PermanentError(
                f"{self._destination} refuses everybody: {failed} people were refused, none was accepted. "
                f"{answer} Look at the connection, and at the cohort's id, the attribute or the property. "
                "The plan is kept; a re-run goes on with it."
            )

    def due(self) -> bool:
        """Tell whether it is time to record: a second, or 100 batches."""
        with self._lock:
            return self._batches >= FLUSH_BATCHES or self._monotonic() - self._taken_at >= FLUSH_SECONDS

    def take(self, *, final: bool = False) -> Settled:
        """Hand out what has come since the last time.

        Rejections are held back until somebody is accepted: if nobody is, a setting is wrong, not they.

        :param final: everybody has an answer; hand out all.
        """
        with self._lock:
            answers = Settled(named=self._named)
            answers.merge(Settled(acknowledged=self._acknowledged))
            self._acknowledged, self._named = [], False
            if self._accepted_rows or final:
                answers.rejected, self._rejected = self._rejected, {}
            self._batches = 0
            self._taken_at = self._monotonic()
            return answers
