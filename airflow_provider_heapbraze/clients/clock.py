"""Time as something that is handed in, so that an hour's wait takes a test no time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from airflow_provider_heapbraze.clients.errors import InterruptedCallError

if TYPE_CHECKING:
    from collections.abc import Callable

# Long sleeps are cut in slices: between two of them a killed task, a new pause and a higher rate are noticed.
SLICE = 0.5
# Shorter sleeps are not worth a system call, and on a large clock value they would not move it at all.
SHORTEST = 0.0001


class Clock(Protocol):
    """What this package knows of time."""

    def now(self) -> float:
        """Return UTC epoch seconds."""

    def monotonic(self) -> float:
        """Return seconds on a clock that only runs forward."""

    def sleep(self, seconds: float) -> None:
        """Return after so many seconds."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        """Return UTC epoch seconds."""
        return time.time()

    def monotonic(self) -> float:
        """Return seconds on a clock that only runs forward."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Return after so many seconds."""
        time.sleep(seconds)


SYSTEM_CLOCK: Clock = SystemClock()


def never() -> bool:
    """Tell that nobody interrupts."""
    return False


def wait(clock: Clock, seconds_left: Callable[[], float], interrupted: Callable[[], bool]) -> float:
    """Sleep until no seconds are left.

    :param seconds_left: asked again after each slice of sleep; the wait may grow and shrink meanwhile.
    :param interrupted: asked as often; True ends the wait.
    :returns: seconds waited.
    :raises InterruptedCallError: ``interrupted`` said so.
    """
    started = clock.monotonic()
    while (seconds := seconds_left()) > 0:
        if interrupted():
            raise InterruptedCallError("The wait for a request was interrupted; the request was not sent.")
        clock.sleep(min(max(seconds, SHORTEST), SLICE))
    return clock.monotonic() - started
