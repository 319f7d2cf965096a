"""Events on their way to Heap: what waits, what is under way, and what became of it."""

from __future__ import annotations

import logging
import time
from collections import Counter
from typing import TYPE_CHECKING

from airflow_provider_heapbraze.clients.errors import InterruptedCallError
from airflow_provider_heapbraze.clients.heap import EVENTS_PER_REQUEST
from airflow_provider_heapbraze.events.account import FLUSH_SECONDS
from airflow_provider_heapbraze.events.outbox import Outbox, Waiting
from airflow_provider_heapbraze.events.seen import id_key
from airflow_provider_heapbraze.events.sending import EventSender

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_heapbraze.clients.event_budget import EventBudget
    from airflow_provider_heapbraze.clients.heap import HeapClient
    from airflow_provider_heapbraze.events.account import EventAccount
    from airflow_provider_heapbraze.events.checkpoint import Checkpoint
    from airflow_provider_heapbraze.events.mapping import HeapEvent
    from airflow_provider_heapbraze.events.progress import FileState
    from airflow_provider_heapbraze.pace import Pace

log = logging.getLogger(__name__)

CHECK_SECONDS = 5.0
RECORDS_BETWEEN_COMMITS = 300
# A limit that comes back in pieces is used in pieces of a second's worth at least.
SECONDS_WORTH = 60


class EventDelivery:
    """Sends what it is offered, and keeps the account of it; used by the thread that reads.

    :param budget: of Heap's environment; shared.
    :param answered: told of a file some of whose events have their answers.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        account: EventAccount,
        client: HeapClient,
        budget: EventBudget,
        answered: Callable[[FileState], None],
    ) -> None:
        self._checkpoint = checkpoint
        self._account = account
        self._budget = budget
        self._answered = answered
        self._outbox = Outbox(fewest=max(1, budget.limits.events // SECONDS_WORTH))
        self._sender = EventSender(client, budget, accepted_before=checkpoint.has_sent)
        self._waiting_ids: dict[int, Waiting] = {}
        self._seconds_to_room = 0.0
        self._stopped = False
        self._checked_at = time.monotonic()

    def begin(self, pace: Pace) -> None:
        """Show from now on how fast it goes."""
        self._pace = pace

    def stop(self) -> None:
        """End soon. Safe in a signal handler."""
        self._stopped = True
        self._sender.stop()

    def close(self) -> None:
        """Send nothing more."""
        self._sender.stop()
        self._sender.close()

    @property
    def is_full(self) -> bool:
        """Tell whether enough is ready for a request."""
        return self._outbox.is_full

    @property
    def has_room_aside(self) -> bool:
        """Tell whether more may be taken of identities whose share is used up."""
        return self._outbox.has_room_aside

    @property
    def only_hot_ones_wait(self) -> bool:
        """Tell whether whatever waits is of identities whose share is used up."""
        return bool(self._outbox) and not self._outbox.ready

    @property
    def is_drained(self) -> bool:
        """Tell whether nothing waits, and nothing is under way."""
        return not self._outbox and self._sender.is_idle

    def check_something_passes(self) -> None:
        """Fail where events were refused and none was accepted; see :class:`.EventSender`."""
        self._sender.check_something_passes()

    def offer(self, state: FileState, row: int, event: HeapEvent, *, with_doubtful: bool) -> None:
        """Take an event that is to be sent; it is known where it is sent, or on its way, already.

        :param with_doubtful: take one that a process which died may have sent.
        """
        key = id_key(event.id)
        twin = self._waiting_ids.get(key)
        if twin is not None:
            twin.twins.append((state, row))
            state.held.add(row)
        elif (event.hour, key) in self._checkpoint.seen:
            self._account.settle(state, row, "duplicates")
        elif key in self._checkpoint.doubtful_ids and not with_doubtful:
            state.doubtful.add(row)  # the same event as one in doubt, in another file
        else:
            waiting = Waiting(state, row, event, self._budget.identity(event.identity), key)
            if self._outbox.offer(waiting):
                state.held.add(row)
                self._waiting_ids[key] = waiting

    def send_until(self, reached: Callable[[], bool]) -> None:
        """Send what may go until something is reached."""
        while not reached():
            self.look_up()
            if not self._send_one():
                self._wait()

    def look_up(self) -> None:
        """Do what is due: stop, take answers, record, look whether the source is still this run's."""
        if self._stopped:
            self._record_arrived()  # now: a file that is being copied may take its time
            raise InterruptedCallError(
                "The export was told to stop. What was accepted is recorded; a re-run sends only the rest."
            )
        if not self._sender.is_idle:
            self._collect(0)
        if self._account.is_due:
            self._account.record()
        counts = self._checkpoint.counts
        self._pace.at(counts["events"], sent=counts["sent"])
        if time.monotonic() - self._checked_at >= CHECK_SECONDS:
            self._checkpoint.check()
            self._checked_at = time.monotonic()
        if self._checkpoint.records_since_commit >= RECORDS_BETWEEN_COMMITS:
            self._account.record()
            self._checkpoint.commit()

    def end_early(self) -> None:
        """Record the answers that are there, on every way out, and those that still come."""
        self._sender.stop()
        # At once, and then every second: requests may take a minute to end, and a kill does not wait.
        self._record_arrived()
        while not self._sender.ends_within(FLUSH_SECONDS):
            self._record_arrived()
        self._record_arrived()

    def _send_one(self) -> bool:
        """Hand the next batch over; tell whether there was one."""
        if self._sender.is_busy:
            return False
        with self._budget.turn() as turn:
            batch, turned_away = self._outbox.take(turn.room, EVENTS_PER_REQUEST)
            self._seconds_to_room = turn.room.seconds
            ticket = turn.take(Counter(waiting.identity for waiting in batch)) if batch else None
        for waiting in turned_away:
            self._let_go(waiting)
        if ticket is None:
            return False
        self._account.sending(batch)
        try:
            self._account.record()
        except BaseException:
            self._budget.give_back(ticket)
            raise
        self._sender.send(batch, ticket)
        return True

    def _wait(self) -> None:
        """Wait for an answer, for room, or for the time to record."""
        seconds = FLUSH_SECONDS
        if not self._sender.is_busy and self._outbox:
            seconds = min(seconds, max(self._seconds_to_room, 0.001))
        if self._sender.is_idle:
            time.sleep(seconds if self._outbox else 0)
        else:
            self._collect(seconds)
            self._account.record()  # there is time: the sooner it is known, the less goes twice after a kill

    def _collect(self, seconds: float) -> None:
        answered = self._sender.collect(seconds)
        for waiting in answered.accepted:
            self._settle(waiting)
        for waiting, reason in answered.refused:
            self._settle(waiting, reason)

    def _settle(self, waiting: Waiting, refused: str = "") -> None:
        del self._waiting_ids[waiting.key]
        self._account.answered(waiting, refused)
        for state in (waiting.state, *(state for state, _ in waiting.twins)):
            self._answered(state)

    def _let_go(self, waiting: Waiting) -> None:
        """Leave an event to be read again."""
        del self._waiting_ids[waiting.key]
        for state, row in [(waiting.state, waiting.row), *waiting.twins]:
            state.held.discard(row)

    def _record_arrived(self) -> None:
        try:
            for waiting in self._sender.arrived():
                self._settle(waiting)
            self._account.record()
        except Exception:  # the error that ends the run is the one to see
            log.exception("The last answers could not be recorded; the next run sends those events again.")
