"""Log lines that do not flood: one of a kind in a minute, with how many there were."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_heapbraze.clients.clock import Clock

log = logging.getLogger("airflow_provider_heapbraze.landing")

SECONDS = 60.0


class Notes:
    """What whoever is on call should read.

    :param clock: time, handed in.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._next: dict[str, float] = {}
        self._unsaid: dict[str, int] = {}

    def warn(self, kind: str, text: str) -> None:
        """Say a thing, unless one of its kind was said within the last minute."""
        now = self._clock.monotonic()
        if now < self._next.get(kind, now):
            self._unsaid[kind] = self._unsaid.get(kind, 0) + 1
            return
        self._next[kind] = now + SECONDS
        unsaid = self._unsaid.pop(kind, 0)
        log.warning("%s%s", text, f" {unsaid:,} more of these since it was last said." if unsaid else "")
