"""How many deliveries are open; and which of them are still being read, so that others may wait for them."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING

from airflow_provider_heapbraze.landing.answers import BUSY, TOO_SLOW, RefusedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from airflow_provider_heapbraze.clients.clock import Clock

HEAP, BRAZE = "heap", "braze"
READ_SECONDS = 30.0  # for the whole body
LONG = 2.0  # seconds; where a place is wanted, nobody is waited for longer


class Doors:
    """One for each sender: whoever crowds at one does not shut the other.

    Who has been read for long makes room for the next one: whether Heap has signed a body is known at its
    end, and a stranger could keep a place by never coming there.

    :param most_open: deliveries of each sender.
    :param clock: time, handed in.
    """

    def __init__(self, most_open: int, clock: Clock) -> None:
        self._most_open = most_open
        self._clock = clock
        # Since when each is being read; the oldest first.
        self._readers: dict[str, dict[asyncio.Timeout, float]] = {HEAP: {}, BRAZE: {}}
        self._open = {HEAP: 0, BRAZE: 0}
        self._reading = 0
        self._all_read = asyncio.Event()
        self._all_read.set()

    def open(self, route: str) -> int:
        """Return how many deliveries of a sender are open."""
        return self._open[route]

    @contextmanager
    def entered(self, route: str) -> Iterator[None]:
        """Let a delivery in for as long as the context lasts.

        :raises RefusedError: there are too many.
        """
        if self._open[route] >= self._most_open:
            self._make_room(route)
        self._open[route] += 1
        try:
            yield
        finally:
            self._open[route] -= 1

    @asynccontextmanager
    async def reading(self, route: str) -> AsyncIterator[None]:
        """Say that a delivery is being read for as long as the context lasts.

        :raises RefusedError: it takes too long.
        """
        self._reading += 1
        self._all_read.clear()
        readers = self._readers[route]
        try:
            async with asyncio.timeout(READ_SECONDS) as limit:
                readers[limit] = self._clock.monotonic()
                try:
                    yield
                finally:
                    readers.pop(limit, None)
        except TimeoutError:
            raise RefusedError(TOO_SLOW) from None
        finally:
            self._reading -= 1
            if not self._reading:
                self._all_read.set()

    async def all_read(self, seconds: float) -> None:
        """Return when no delivery is being read, or after so many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._all_read.wait()

    def _make_room(self, route: str) -> None:
        limit, since = next(iter(self._readers[route].items()), (None, 0.0))
        if limit is None or self._clock.monotonic() < since + LONG:
            raise RefusedError(BUSY)
        del self._readers[route][limit]
        with suppress(RuntimeError):  # its own time is over at this very moment: it goes by itself
            limit.reschedule(asyncio.get_running_loop().time())
