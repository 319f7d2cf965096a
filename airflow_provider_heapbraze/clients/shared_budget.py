"""A budget that many processes share, on one machine or on many."""

from __future__ import annotations

import logging
import math
import secrets
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_heapbraze.clients.budget import Limit, check_limit, told_by
from airflow_provider_heapbraze.clients.budget_stores import exchange
from airflow_provider_heapbraze.clients.clock import SYSTEM_CLOCK, never, wait
from airflow_provider_heapbraze.clients.errors import BudgetAwayError, HeapBrazeError
from airflow_provider_heapbraze.clients.sharing import Ask, Grant, Sharing, Terms

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_provider_heapbraze.clients.budget import Told
    from airflow_provider_heapbraze.clients.budget_stores import BudgetStore, Seen
    from airflow_provider_heapbraze.clients.clock import Clock

log = logging.getLogger(__name__)

# A store that is started anew is back by then; nothing is sent meanwhile.
AWAY_SECONDS = 60.0
LOOK_AGAIN_SECONDS = 1.0
# Twice as many are wanted each time that all were used at once.
FIRST_WANTED = 8
# So much slower than the pace of our places: they are no longer right.
MUCH_SLOWER = 1.1


@dataclass
class _Places:
    """What was granted: evenly spread, and used soon or not at all."""

    number: int = 0
    begin: float = -math.inf
    distance: float = 0.0
    usable_until: float = -math.inf
    used: int = 0

    @property
    def next(self) -> float:
        """Return when the next place is."""
        return self.begin + self.used * self.distance

    def seconds_left(self, now: float) -> float | None:
        """Return the seconds until the next place; None where there is none."""
        usable = self.used < self.number and now <= self.usable_until
        return self.next - now if usable else None


class SharedBudget:
    """At most ``limit`` requests in any ``period``, by all together who name the same budget.

    It paces like :class:`.budget.Budget`, and takes its places from a store, in grants for about half a
    second; what one of those who share it is told by an answer, all know within a second.

    :param name: of the budget in the store; tells nobody anything.
    :param limit: requests per period, 1 or more.
    :param period: seconds.
    :raises ConfigurationError: the limit or the period is not positive.
    """

    def __init__(
        self, store: BudgetStore, name: str, limit: int, period: float, *, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        check_limit(limit, period)
        self._store = store
        self._name = name
        self._limit = Limit(limit, period)
        self._clock = clock
        self._lane = secrets.token_hex(6)
        # One thread waits at the head of the queue, and takes grants; the others are behind this lock.
        self._queue = threading.Lock()
        self._state = threading.Lock()
        terms = Terms.of(limit, period)
        self._usable_for = terms.usable
        self._places = _Places()
        self._cost = terms.interval
        self._granted_at = self._ask_from = -math.inf
        self._most = max(1, math.ceil(2 * terms.slice / terms.interval))
        self._wanted = min(FIRST_WANTED, self._most)
        self._weight = 1.0
        self._told: Told | None = None
        self._told_until = -math.inf
        self._paused_until = -math.inf
        self._away_since: float | None = None
        self._takes_part = False

    def acquire(self, interrupted: Callable[[], bool] = never) -> float:
        """Block until a request may go.

        :param interrupted: asked while waiting; True ends the wait.
        :returns: seconds waited at the head of the queue.
        :raises BudgetAwayError: the store cannot be reached for a minute; nothing may go.
        :raises ConfigurationError: the store refuses us, or is damaged.
        :raises InterruptedCallError: ``interrupted`` said so.
        """
        with self._queue:
            return wait(self._clock, self._book, interrupted)

    def observe(self, headers: Mapping[str, str]) -> None:
        """Learn from an answer how much is left; the others hear of it with our next grant.

        As :meth:`.budget.Budget.observe`.
        """
        told = told_by(headers, now=self._clock.now(), period=self._limit.seconds)
        if told.limit is None and told.remaining is None:
            return
        with self._state:
            self._told, self._told_until = told, self._clock.monotonic() + told.seconds
            if told.remaining is not None and told.seconds > MUCH_SLOWER * self._cost * told.remaining:
                self._drop_places()

    def pause(self, seconds: float) -> None:
        """Let nobody go before so many seconds have passed, wherever they are."""
        with self._state:
            self._paused_until = max(self._paused_until, self._clock.monotonic() + seconds)
            self._drop_places()
        with suppress(BudgetAwayError):  # whoever sends next finds out
            self._tell(Ask(self._lane, self._weight, pause=seconds))

    def seconds_for(self, requests: int) -> float:
        """Estimate how many seconds so many requests take at the present rate, if nobody else sends."""
        with self._state:
            return requests * self._cost

    def expect(self, requests: int) -> None:
        """Hear how many requests a delivery has left: whoever has fewer gets more."""
        self._weight = 1 / math.sqrt(max(1, requests))

    def close(self) -> None:
        """Leave to the others what is left; where the store does not hear it, they notice in seconds."""
        if self._takes_part:
            self._takes_part = False
            with suppress(HeapBrazeError):
                self._tell(self._ask(leaves=True))

    def _book(self) -> float:
        """Take a place, or return the seconds until there is one."""
        seconds = self._take()
        if seconds is not None:
            return seconds
        asked_at = self._clock.monotonic()
        if asked_at < self._ask_from:
            return self._ask_from - asked_at
        try:
            grant = self._tell(self._ask())
        except BudgetAwayError as error:
            if self._away_since is None:
                log.warning("%s It is tried again, for %.0f s.", error, AWAY_SECONDS)
            self._give_up_in_the_end(error)
            return LOOK_AGAIN_SECONDS
        self._spread(grant, asked_at)
        seconds = self._take()
        return seconds if seconds is not None else grant.seconds

    def _take(self) -> float | None:
        """Take the next place, or return the seconds until then; None where none is granted."""
        with self._state:
            now = self._clock.monotonic()
            if now < self._paused_until:
                return self._paused_until - now
            seconds = self._places.seconds_left(now)
            if seconds is not None and seconds <= 0:
                self._places.used += 1
            return seconds

    def _ask(self, *, leaves: bool = False) -> Ask:
        """Return what to ask the store for; what is left of the last grant is given back."""
        with self._state:
            places = self._places
            unused = places.number - places.used
            if unused:
                self._wanted = max(1, places.used)
            elif self._clock.monotonic() <= places.usable_until:
                self._wanted = min(2 * self._wanted, self._most)
            # The next places are no nearer to the last one than these are to each other.
            self._places = _Places(begin=places.next)
            told = self._news()
            self._takes_part = not leaves
        returned = unused * self._cost
        return Ask(self._lane, self._weight, self._wanted, returned, self._granted_at, told, leaves=leaves)

    def _news(self) -> Told | None:
        """Return what the newest answer told, once, and as long as it is true."""
        told, self._told = self._told, None
        if told is None:
            return None
        seconds = self._told_until - self._clock.monotonic()
        return told._replace(seconds=seconds) if seconds > 0 else told._replace(remaining=None)

    def _spread(self, grant: Grant, asked_at: float) -> None:
        """Lay out what was granted."""
        now, usable_until = self._clock.monotonic(), asked_at + self._usable_for
        if now > usable_until:
            self._give_up_in_the_end(
                BudgetAwayError(
                    f"The store of the shared budget took {now - asked_at:.2f} s to answer, and what it "
                    f"grants is good for {self._usable_for:.2f} s. Nothing was sent on it."
                )
            )
        else:
            self._away_since = None
        with self._state:
            self._cost = grant.cost
            if grant.places:
                begin = min(max(now, self._places.begin), usable_until)
                self._places = _Places(grant.places, begin, grant.seconds / grant.places, usable_until)
                self._granted_at = grant.at
                self._ask_from = asked_at + grant.again

    def _drop_places(self) -> None:
        self._places.usable_until = -math.inf

    def _tell(self, ask: Ask) -> Grant:
        """Take a step in the store."""

        def change(seen: Seen) -> tuple[str, Grant]:
            sharing = Sharing.read(seen.document, seen.now)
            grant = sharing.step(ask, *self._limit)
            return sharing.written(), grant

        return exchange(self._store, self._name, change, self._clock.sleep)

    def _give_up_in_the_end(self, error: BudgetAwayError) -> None:
        """Bear it for a minute that nothing can be granted."""
        now = self._clock.monotonic()
        if self._away_since is None:
            self._away_since = now
        if now - self._away_since >= AWAY_SECONDS:
            raise error
