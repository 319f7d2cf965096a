"""The log of what came in: enough to prove how a client behaves, nothing about anybody."""

from __future__ import annotations

import hashlib
import time
from collections import Counter, deque
from itertools import count
from typing import TYPE_CHECKING

from airflow_provider_heapbraze.sandbox.answers import RequestEntry

if TYPE_CHECKING:
    from airflow_provider_heapbraze.sandbox.exchange import Endpoint

# An hour at Braze's cohort limit; older entries go, the counts stay.
MOST_ENTRIES = 250_000


class RequestLog:
    """Requests in the order of their arrival, and counts of their answers."""

    def __init__(self) -> None:
        self._entries: deque[RequestEntry] = deque(maxlen=MOST_ENTRIES)
        self._sequence = count(1)
        self.counts: dict[str, Counter[str]] = {}

    def open(self, endpoint: Endpoint, method: str, raw: bytes) -> RequestEntry:
        """Note a request that has arrived."""
        entry = RequestEntry(
            sequence=next(self._sequence),
            time=time.time(),
            endpoint=endpoint.name,
            method=method,
            path=endpoint.path,
            body_sha256=hashlib.sha256(raw).hexdigest(),
        )
        self._entries.append(entry)
        return entry

    def close(self, entry: RequestEntry, status: int | None) -> None:
        """Note its answer; None is a connection that was cut."""
        entry.status = status
        entry.seconds = time.time() - entry.time
        self.counts.setdefault(entry.endpoint, Counter())["cut" if status is None else str(status)] += 1

    def since(self, sequence: int) -> list[RequestEntry]:
        """Return the entries after a sequence number."""
        return [entry for entry in self._entries if entry.sequence > sequence]
