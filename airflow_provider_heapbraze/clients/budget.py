"""How many requests an endpoint may take in a time, shared by every thread that uses it."""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING, NamedTuple, Protocol

from airflow_provider_heapbraze.clients.clock import SYSTEM_CLOCK, never, wait
from airflow_provider_heapbraze.clients.errors import ConfigurationError
from airflow_provider_heapbraze.clients.waiting import lower_case, number, seconds_to_reset

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_provider_heapbraze.clients.clock import Clock

# So much of the limit may go at once: it makes up for threads that wake late.
BURST_SHARE = 0.005
# Our clock and the other side's do not run equally fast.
SLACK = 1.001


class Limit(NamedTuple):
    """So many requests in so many seconds."""

    requests: int
    seconds: float


class Told(NamedTuple):
    """What an answer tells of a limit; None where it does not.

    :param remaining: requests that are left until the reset.
    :param seconds: until the reset.
    """

    limit: int | None
    remaining: float | None
    seconds: float


def told_by(headers: Mapping[str, str], *, now: float, period: float) -> Told:
    """Read ``X-RateLimit-Limit``, ``-Remaining`` and ``-Reset`` (Braze: API rate limits).

    :param now: UTC epoch seconds.
    :param period: seconds after which the limit resets, at the latest.
    """
    lowered = lower_case(headers)
    limit = number(lowered.get("x-ratelimit-limit", ""))
    seconds = seconds_to_reset(lowered, now=now)
    return Told(
        limit=int(limit) if limit is not None and limit >= 1 else None,
        remaining=number(lowered.get("x-ratelimit-remaining", "")),
        # Limits reset on the clock's hour or minute, so the clock knows where no header says it.
        seconds=min(seconds, period) if seconds is not None else period - now % period,
    )


def check_limit(limit: int, period: float) -> None:
    """Make sure that a limit lets something through.

    :raises ConfigurationError: it does not.
    """
    if limit < 1 or period <= 0:
        raise ConfigurationError(
            f"A limit must be at least 1 request in more than 0 seconds, not {limit} in {period}."
        )


class Pacer(Protocol):
    """What a transport asks before each request, and tells after it; safe to share between threads."""

    def acquire(self, interrupted: Callable[[], bool] = never) -> float:
        """Block until a request may go; return the seconds waited."""

    def observe(self, headers: Mapping[str, str]) -> None:
        """Learn from an answer how much is left."""

    def pause(self, seconds: float) -> None:
        """Let nobody go before so many seconds have passed."""

    def seconds_for(self, requests: int) -> float:
        """Estimate how many seconds so many requests take."""

    def expect(self, requests: int) -> None:
        """Hear how many requests a delivery has left."""

    def close(self) -> None:
        """Take part no longer."""


class Budget:
    """At most ``limit`` requests in any ``period``, evenly paced; safe to share between threads.

    Braze's limits reset on the clock hour or minute. What holds for every window of that length holds for the
    clock's windows too. Pacing is the generic cell rate algorithm: one number, the time at which the requests
    so far would have gone if each had waited its turn, tells when the next one may go.

    :param limit: requests per period, 1 or more.
    :param period: seconds.
    :raises ConfigurationError: the limit or the period is not positive.
    """

    def __init__(self, limit: int, period: float, *, clock: Clock = SYSTEM_CLOCK) -> None:
        check_limit(limit, period)
        self._granted = limit
        self._period = period
        self._clock = clock
        # One thread waits at the head of the queue and the others behind this lock, so that a place wakes one
        # thread and not all. It is booked at the moment the request goes, never ahead of it: who wakes late
        # would else meet the next one.
        self._queue = threading.Lock()
        self._state = threading.Lock()
        self._earned_until = -math.inf
        self._paused_until = -math.inf
        self._slow_interval = 0.0
        self._slow_until = -math.inf
        self._adopt(limit)

    def acquire(self, interrupted: Callable[[], bool] = never) -> float:
        """Block until a request may go.

        :param interrupted: asked while waiting; True ends the wait.
        :returns: seconds waited at the head of the queue.
        :raises InterruptedCallError: ``interrupted`` said so.
        """
        with self._queue:
            return wait(self._clock, self._book, interrupted)

    def observe(self, headers: Mapping[str, str]) -> None:
        """Learn from an answer how much is left: others may use the same limit.

        A smaller limit than ours is adopted; a larger one only up to what was set, which may be a share on
        purpose. Few requests left until the reset make the pace slower; none left make a pause.
        """
        told = told_by(headers, now=self._clock.now(), period=self._period)
        with self._state:
            if told.limit is not None:
                self._adopt(min(told.limit, self._granted))
            if told.remaining is not None:
                self._spread(told.remaining, told.seconds)

    def pause(self, seconds: float) -> None:
        """Let nobody go before so many seconds have passed, those included who wait already."""
        with self._state:
            self._paused_until = max(self._paused_until, self._clock.monotonic() + seconds)

    def seconds_for(self, requests: int) -> float:
        """Estimate how many seconds so many requests take at the present rate."""
        with self._state:
            return requests * self._current_interval(self._clock.monotonic())

    def expect(self, requests: int) -> None:
        """Do nothing: nobody else takes from this budget."""

    def close(self) -> None:
        """Do nothing: nobody else waits for what this budget leaves."""

    def _adopt(self, limit: int) -> None:
        burst = max(1, int(BURST_SHARE * limit))
        # A burst and then one request per interval make at most `limit` in a period.
        self._interval = SLACK * self._period / (limit - burst + 1)
        self._ahead = (burst - 1) * self._interval

    def _book(self) -> float:
        """Take a place, or return the seconds until there is one."""
        with self._state:
            now = self._clock.monotonic()
            seconds_left = max(self._paused_until, self._earned_until - self._ahead) - now
            if seconds_left <= 0:
                self._earned_until = max(self._earned_until, now) + self._current_interval(now)
            return seconds_left

    def _current_interval(self, now: float) -> float:
        return max(self._interval, self._slow_interval) if now < self._slow_until else self._interval

    def _spread(self, remaining: float, seconds: float) -> None:
        """Make what remains last until the reset."""
        reset_at = self._clock.monotonic() + seconds
        if remaining < 1:
            self._paused_until = max(self._paused_until, reset_at)
        else:
            self._slow_interval = seconds / remaining
            self._slow_until = reset_at
