"""Send batches to Heap, a few at a time; where an event is at fault, find it and send the rest."""

from __future__ import annotations

import threading
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

    from airflow_provider_heapbraze.clients.event_budget import EventBudget
    from airflow_provider_heapbraze.clients.heap import HeapClient
    from airflow_provider_heapbraze.events.outbox import Waiting

# One at a time would do for 250 events a second; the others are for slow answers, and for what is sent again.
CONNECTIONS = 4
SPLITTABLE = frozenset({400, 413})
# Some refused events are theirs to mend; so many, with none accepted, are a wrong setting.
REFUSED_WITHOUT_SUCCESS = 100


@dataclass
class Answered:
    """What became of the events of a batch.

    :param refused: with the reason; each was sent alone.
    """

    accepted: list[Waiting] = field(default_factory=list)
    refused: list[tuple[Waiting, str]] = field(default_factory=list)


class EventSender:
    """A pool of threads that send; used by one thread.

    :param budget: room for a batch is taken before it is handed over; for what is sent again, here.
    """

    def __init__(self, client: HeapClient, budget: EventBudget, *, connections: int = CONNECTIONS) -> None:
        self._client = client
        self._budget = budget
        self._connections = connections
        self._stopped = threading.Event()
        self._pool = ThreadPoolExecutor(connections, thread_name_prefix="track")
        self._under_way: set[Future[Answered]] = set()
        self._refused: list[tuple[Waiting, str]] = []
        self._anything_accepted = False

    @property
    def is_busy(self) -> bool:
        """Tell whether no further batch can begin now."""
        return len(self._under_way) >= self._connections

    @property
    def is_idle(self) -> bool:
        """Tell whether nothing is under way."""
        return not self._under_way

    def send(self, batch: list[Waiting], ticket: int) -> None:
        """Begin to send a batch.

        :param ticket: of the room that it has.
        """
        self._under_way.add(self._pool.submit(self._begin, batch, ticket))

    def collect(self, seconds: float) -> Answered:
        """Wait for answers, for some seconds at most, and return what became of their events.

        :raises PermanentError: many events were refused and none was accepted.
        :raises HeapBrazeError: what the client raised.
        """
        wait(self._under_way, timeout=seconds, return_when=FIRST_COMPLETED)
        whole = Answered(accepted=self.arrived())
        for future in [future for future in self._under_way if future.done()]:
            self._under_way.remove(future)
            future.result()
        if self._anything_accepted:
            whole.refused, self._refused = self._refused, []
        elif len(self._refused) >= REFUSED_WITHOUT_SUCCESS:
            self.check_something_passes()
        return whole

    def arrived(self) -> list[Waiting]:
        """Return the accepted events whose answers are there, whatever else happened."""
        accepted: list[Waiting] = []
        for future in [future for future in self._under_way if future.done()]:
            if not future.cancelled() and future.exception() is None:
                self._under_way.remove(future)
                accepted += future.result().accepted
                self._refused += future.result().refused
        self._anything_accepted = self._anything_accepted or bool(accepted)
        return accepted

    def check_something_passes(self) -> None:
        """Fail where events were refused and none was accepted: it may be no event's fault then.

        :raises PermanentError: it is so.
        """
        if self._refused:
            raise PermanentError(
                f"Heap refuses everything: {len(self._refused)} events were refused, each of them "
                "alone, and none was accepted. It refuses a wrong app id in the same way: look at the login "
                "and the region of the Heap connection. The events stay where they are; clear the task to go "
                "on. If only the events are at fault, they are set aside as soon as another one is accepted."
            )

    def stop(self) -> None:
        """Let nothing more go. Safe in a signal handler."""
        self._stopped.set()
        self._client.interrupt()

    def close(self) -> None:
        """End the threads; what is under way is waited for, since its end is what it waits for."""
        self._pool.shutdown(cancel_futures=True)

    def _begin(self, batch: list[Waiting], ticket: int) -> Answered:
        answered = Answered()
        self._deliver(batch, _Room(self._budget, batch, self._stopped.is_set, ticket), answered)
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
                return
            middle = len(batch) // 2
            for half in (batch[:middle], batch[middle:]):
                self._deliver(half, _Room(self._budget, half, self._stopped.is_set), answered)
        else:
            answered.accepted += batch
        finally:
            room.leave()


class _Room:
    """The room that the tries of one request take: Heap may count each of them."""

    def __init__(
        self,
        budget: EventBudget,
        batch: list[Waiting],
        stopped: Callable[[], bool],
        ticket: int | None = None,
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
        if self._tried or self._ticket is None:
            self.leave()
            self._ticket = self._budget.take_again(self._events, self._stopped)
        self._tried = True

    def leave(self) -> None:
        """Note that the last try has its answer."""
        if self._ticket is not None:
            self._budget.answered(self._ticket)
            self._ticket = None
