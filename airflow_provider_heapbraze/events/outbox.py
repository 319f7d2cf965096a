"""Events that wait until they may be sent.

Heap takes so many events a minute in all, and so many of one identity. An identity that has used up its own
share waits aside, while the others go on. What waits aside is bounded: an event beyond that is not taken,
stays unsettled in its file, and is read again when there is room. So neither the rest nor memory suffers
from an identity with millions of events; its files are read more than once. Events of an identity may
overtake each other: their times, not their order, say what came first.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_provider_heapbraze.clients.heap import EVENTS_PER_REQUEST

if TYPE_CHECKING:
    from airflow_provider_heapbraze.clients.event_budget import Room
    from airflow_provider_heapbraze.events.mapping import HeapEvent
    from airflow_provider_heapbraze.events.progress import FileState

# Heap documents no limit of a request's size; this is what Braze takes at most, and bounds memory.
MOST_BYTES = 4 << 20
MOST_BYTES_READY = 16 << 20
MOST_BYTES_ASIDE = 48 << 20


@dataclass(slots=True, eq=False)
class Waiting:
    """An event on its way, and where it comes from.

    :param identity: what stands for the identity in the budget.
    :param key: of the event's id.
    :param twins: rows with the same event, which share its fate.
    """

    state: FileState
    row: int
    event: HeapEvent
    identity: bytes
    key: int
    twins: list[tuple[FileState, int]] = field(default_factory=list)


class Outbox:
    """A queue in which nobody waits behind an identity that may not go.

    :param fewest: a request waits until so many events may go, or all that are ready: a limit that comes
        back in small pieces would else be used in small requests.
    :param most_bytes_aside: of events that wait for their identity's share.
    """

    def __init__(self, *, fewest: int, most_bytes_aside: int = MOST_BYTES_ASIDE) -> None:
        self._fewest = fewest
        self._most_bytes_aside = most_bytes_aside
        self._ready: deque[Waiting] = deque()
        self._aside: defaultdict[bytes, deque[Waiting]] = defaultdict(deque)
        self._bytes_aside = self._bytes_ready = 0

    def __len__(self) -> int:
        return self.ready + sum(map(len, self._aside.values()))

    @property
    def ready(self) -> int:
        """Return how many events wait for nothing but the limit in all, as far as is known."""
        return len(self._ready)

    @property
    def is_full(self) -> bool:
        """Tell whether there is enough for a request: no more needs to be read."""
        return self.ready >= EVENTS_PER_REQUEST or self._bytes_ready >= MOST_BYTES_READY

    @property
    def has_room_aside(self) -> bool:
        """Tell whether more of what waits aside may be taken."""
        return self._bytes_aside < self._most_bytes_aside // 2

    def offer(self, waiting: Waiting) -> bool:
        """Take an event, unless too many wait aside already.

        :returns: False where it was not taken.
        """
        if waiting.identity not in self._aside:
            self._ready.append(waiting)
            self._bytes_ready += len(waiting.event.body)
            return True
        return self._put_aside(waiting)

    def take(self, room: Room, most: int) -> tuple[list[Waiting], list[Waiting]]:
        """Take the events of the next request.

        :param most: events in a request.
        :returns: the events, and those for whose identity there is neither room now nor a place aside.
        """
        batch = _Batch(room, most)
        turned_away: list[Waiting] = []
        if room.left < min(self._fewest, most, max(1, self.ready)):
            return [], turned_away
        for identity in list(self._aside):
            self._take_aside(identity, batch)
        while self._ready and not batch.is_full_for(self._ready[0]):
            waiting = self._ready.popleft()
            self._bytes_ready -= len(waiting.event.body)
            if batch.may_hold(waiting):
                batch.add(waiting)
            elif not self._put_aside(waiting):
                turned_away.append(waiting)
        return batch.events, turned_away

    def _take_aside(self, identity: bytes, batch: _Batch) -> None:
        queue = self._aside[identity]
        while queue and not batch.is_full_for(queue[0]) and batch.may_hold(queue[0]):
            waiting = queue.popleft()
            self._bytes_aside -= len(waiting.event.body)
            batch.add(waiting)
        if not queue:
            del self._aside[identity]

    def _put_aside(self, waiting: Waiting) -> bool:
        size = len(waiting.event.body)
        if self._bytes_aside + size > self._most_bytes_aside:
            return False
        self._aside[waiting.identity].append(waiting)
        self._bytes_aside += size
        return True


class _Batch:
    """Events of one request, as far as there is room."""

    def __init__(self, room: Room, most: int) -> None:
        self.events: list[Waiting] = []
        self._room = room
        self._most = min(most, room.left)
        self._bytes = 0
        self._taken: Counter[bytes] = Counter()

    def is_full_for(self, waiting: Waiting) -> bool:
        """Tell whether an event is one too many, whoever's it is."""
        too_large = self.events and self._bytes + len(waiting.event.body) > MOST_BYTES
        return bool(too_large) or len(self.events) >= self._most

    def may_hold(self, waiting: Waiting) -> bool:
        """Tell whether the identity of an event has some of its share left."""
        return self._taken[waiting.identity] < self._room.of(waiting.identity)

    def add(self, waiting: Waiting) -> None:
        """Add an event that fits in."""
        self.events.append(waiting)
        self._taken[waiting.identity] += 1
        self._bytes += len(waiting.event.body)
