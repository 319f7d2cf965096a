"""Send batches to Heap, a few at a time; where an event is at fault, find it and send the rest."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_provider_heapbraze.clients.errors import (
    InterruptedCallError,
    PermanentError,
    RequestRejectedError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_heapbraze.clients.event_budget import EventBudget, Ticket
    from airflow_provider_heapbraze.clients.heap import HeapClient
    from airflow_provider_heapbraze.events.outbox import Waiting

# One at a time would do for 250 events a second; the others are for slow answers, and for what is sent again.
CONNECTIONS = 4
SPLITTABLE = frozenset({400, 413})
# Some refused events are theirs to mend; so many, with none accepted, are a wrong setting.
REFUSED_WITHOUT_SUCCESS = 20
FRESH_SECONDS = 4.0


@dataclass
class Answered:
    """What became of the events of a batch.

    :param refused: with the reason; each was sent alone.
    :param error: what ended the batch before every event had its answer.
    """

    accepted: list[Waiting] = field(default_factory=list)
    refused: list[tuple[Waiting, str]] = field(default_factory=list)
    error: BaseException | None = None


class EventSender:
    """A pool of threads that send; used by one thread.

    :param budget: room for a batch is taken before it is handed over; for what is sent again, here.
    :param accepted_before: whether this environment ever accepted an event: then an event that is refused
        is at fault, and not the app id.
    """

    def __init__(
        self,
        client: HeapClient,
        budget: EventBudget,
        *,
        accepted_before: bool = False,
        connections: int = CONNECTIONS,
    ) -> None:
        self._client = client
        self._budget = budget
        self._connections = connections
        # A plain flag: it is set in signal handlers, where taking a lock may never end.
        self._stopped = False
        self._pool = ThreadPoolExecutor(connections, thread_name_prefix="track")
        self._under_way: dict[Future[Answered], _Room] = {}
        self._arrived = Answered()
        self._anything_accepted = accepted_before

    @property
    def is_busy(self) -> bool:
        """Tell whether no further batch can begin now."""
        return len(self._under_way) >= self._connections

    @property
    def is_idle(self) -> bool:
        """Tell whether nothing is under way."""
        return not self._under_way

    def send(self, batch: list[Waiting], ticket: Ticket) -> None:
        """Begin to send a batch.

        :param ticket: of the room that it has.
        """
        room = _Room(self._budget, batch, self._is_stopped, ticket)
        self._under_way[self._pool.submit(self._begin, batch, room)] = room

    def collect(self, seconds: float) -> Answered:
        """Wait for answers, for some seconds at most, and return what became of their events.

        :raises PermanentError: many events were refused and none was accepted.
        :raises HeapBrazeError: what the client raised; what was accepted is still to be had by
            :meth:`arrived`.
        """
        wait(self._under_way, timeout=seconds, return_when=FIRST_COMPLETED)
        self._sort_out()
        if self._arrived.error is not None:
            raise self._arrived.error
        refused = self._arrived.refused
        if self._anything_accepted:
            self._arrived.refused = []
            return Answered(self._take_accepted(), refused)
        if len(refused) >= REFUSED_WITHOUT_SUCCESS:
            self.check_something_passes()
        return Answered()

    def arrived(self) -> list[Waiting]:
        """Return the accepted events whose answers are there, whatever else happened."""
        self._sort_out()
        return self._take_accepted()

    def check_something_passes(self) -> None:
        """Fail where events were refused and none was accepted: it may be no event's fault then.

        :raises PermanentError: it is so.
        """
        if self._arrived.refused:
            raise _everything_is_refused(len(self._arrived.refused))

    def stop(self) -> None:
        """Let nothing more go. Safe in a signal handler."""
        self._stopped = True
        self._client.interrupt()

    def ends_within(self, seconds: float) -> bool:
        """Begin nothing more, wait for what is under way, and tell whether all of it has ended."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        under_way = [future for future in self._under_way if not future.cancelled()]
        return not wait(under_way, timeout=seconds).not_done

    def close(self) -> None:
        """End the threads; what is under way is waited for, since its end is what it waits for."""
        self._pool.shutdown(cancel_futures=True)

    def _check_not_everything_refused(self, answered: Answered) -> None:
        """End a batch soon where the app id is wrong: else each of its events would be sent alone."""
        none_accepted = not self._anything_accepted and not answered.accepted
        if none_accepted and len(answered.refused) >= REFUSED_WITHOUT_SUCCESS:
            raise _everything_is_refused(len(answered.refused))

    def _sort_out(self) -> None:
        """Take over what the threads have finished."""
        for future in [future for future in self._under_way if future.done()]:
            room = self._under_way.pop(future)
            if future.cancelled():
                room.leave()
            else:
                answered = future.result()
                self._arrived.accepted += answered.accepted
                self._arrived.refused += answered.refused
                self._arrived.error = self._arrived.error or answered.error
                self._anything_accepted = self._anything_accepted or bool(answered.accepted)

    def _take_accepted(self) -> list[Waiting]:
        accepted, self._arrived.accepted = self._arrived.accepted, []
        return accepted

    def _is_stopped(self) -> bool:
        return self._stopped

    def _begin(self, batch: list[Waiting], room: _Room) -> Answered:
        answered = Answered()
        try:
            self._deliver(batch, room, answered)
        except BaseException as error:  # noqa: BLE001 - it goes to the thread that collects
            answered.error = error
        return answered

    def _deliver(self, batch: list[Waiting], room: _Room, answered: Answered) -> None:
        try:
            self._client.track([waiting.event.body for waiting in batch], check=room.check)
        except RequestRejectedError as error:
            if error.status not in SPLITTABLE:
                raise
            room.leave()
            if len(batch) == 1:
                answered.refused.append((batch[0], f"refused_{error.status}"))
                self._check_not_everything_refused(answered)
                return
            middle = len(batch) // 2
            for half in (batch[:middle], batch[middle:]):
                self._deliver(half, _Room(self._budget, half, self._is_stopped), answered)
        else:
            answered.accepted += batch
        finally:
            room.leave()


def _everything_is_refused(events: int) -> PermanentError:
    return PermanentError(
        f"Heap refuses everything: {events} events were refused, each of them alone, and none was accepted. "
        "It refuses a wrong app id in the same way: look at the login and the region of the Heap connection. "
        "The events stay where they are; clear the task to go on. If only the events are at fault, they are "
        "kept aside as soon as another one is accepted."
    )


class _Room:
    """The room that the tries of one request take: Heap may count each of them."""

    def __init__(
        self,
        budget: EventBudget,
        batch: list[Waiting],
        stopped: Callable[[], bool],
        ticket: Ticket | None = None,
    ) -> None:
        self._budget = budget
        self._events = Counter(waiting.identity for waiting in batch)
        self._stopped = stopped
        self._ticket = ticket
        self._tried = False

    def check(self) -> None:
        """Make sure that a try may go; called right before each."""
        if self._stopped():
            raise InterruptedCallError(
                "The export was told to stop. What was accepted is recorded; a re-run sends only the rest."
            )
        # A ticket is good for one try, and not for one that was held back meanwhile.
        if self._ticket is None or self._tried or not self._is_fresh(self._ticket):
            self.leave()
            self._ticket = self._budget.take_again(self._events, self._stopped)
        self._tried = True

    def _is_fresh(self, ticket: Ticket) -> bool:
        return self._budget.now() - ticket.taken_at <= FRESH_SECONDS

    def leave(self) -> None:
        """Note that the last try has its answer, or that there was none."""
        if self._ticket is not None:
            if self._tried:
                self._budget.answered(self._ticket)
            else:
                self._budget.give_back(self._ticket)
            self._ticket = None
