"""How many deliveries are open; and which of them are still being read, so that others may wait for them."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from airflow_provider_heapbraze.landing.answers import BUSY, RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterator

HEAP, BRAZE = "heap", "braze"


class Doors:
    """One for each sender: whoever crowds at one does not shut the other.

    :param most_open: deliveries of each sender.
    """

    def __init__(self, most_open: int) -> None:
        self._most_open = most_open
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
            raise RefusedError(BUSY)
        self._open[route] += 1
        try:
            yield
        finally:
            self._open[route] -= 1

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Say that a delivery is being read for as long as the context lasts."""
        self._reading += 1
        self._all_read.clear()
        try:
            yield
        finally:
            self._reading -= 1
            if not self._reading:
                self._all_read.set()

    async def all_read(self, seconds: float) -> None:
        """Return when no delivery is being read, or after so many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._all_read.wait()
