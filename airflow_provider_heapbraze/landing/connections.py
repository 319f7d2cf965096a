"""Connections of the standalone server: not too many, and none that waits for ever for a request."""

from __future__ import annotations

import asyncio
from typing import Any

# From the start of a connection, or from the first byte after an answer, to the end of a request's head.
HEAD_SECONDS = 20.0
MOST_CONNECTIONS = 512  # each takes a file descriptor, and so does each file that is written


class LimitedConnection(asyncio.Protocol):
    """What uvicorn's connections lack; it goes before one of them.

    uvicorn counts the time between two requests, and forgets it when the first byte of one has come. Its
    ``limit_concurrency`` refuses requests where there are many connections, but leaves these open.
    """

    cycle: Any = None  # the newest request whose head has come; uvicorn sets both
    connections: set[Any]
    _head_due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Give the client its time; or close, where there are too many."""
        super().connection_made(transport)
        self._transport = transport
        self._wait_for_head()
        if len(self.connections) > MOST_CONNECTIONS:
            transport.close()

    def data_received(self, data: bytes) -> None:
        """See whether a request has begun; what comes after an answer is the head of another one."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()
        elif self._head_due is None:
            self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the time."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait_for_head(self) -> None:
        self._head_due = asyncio.get_running_loop().call_later(HEAD_SECONDS, self._transport.close)

    def _stop_waiting(self) -> None:
        if self._head_due is not None:
            self._head_due.cancel()
            self._head_due = None
