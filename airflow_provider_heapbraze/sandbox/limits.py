"""Rate limits as Braze keeps them: per window of the clock, told in the headers of every answer."""

from __future__ import annotations

import math
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_provider_heapbraze.sandbox.models import Group, Limit


@dataclass(frozen=True)
class Spent:
    """Where a group's limit stands after a request.

    :param reset: end of the window, UTC epoch seconds.
    :param broken: the request was above the limit.
    """

    limit: int
    remaining: int
    reset: float
    broken: bool

    def headers(self) -> dict[str, str]:
        """Return Braze's rate limit headers."""
        return {
            "X-RateLimit-Limit": str(self.limit),
            "X-RateLimit-Remaining": str(self.remaining),
            "X-RateLimit-Reset": str(math.ceil(self.reset)),
        }


class Limits:
    """The limits of all groups; they reset on the clock, not on a rolling window (Braze: Rate limits)."""

    def __init__(self, limits: Mapping[Group, Limit], *, now: Callable[[], float] = time.time) -> None:
        self._limits = dict(limits)
        self._now = now
        self._used: dict[Group, tuple[int, int]] = {}  # window, and what was used in it
        self.broken: Counter[Group] = Counter()

    def change(self, limits: Mapping[Group, Limit]) -> None:
        """Take over new limits; a group whose limit changes starts anew."""
        for group in [group for group in self._used if limits[group] != self._limits[group]]:
            del self._used[group]
        self._limits = dict(limits)

    def spend(self, group: Group, cost: int) -> Spent:
        """Count a request; one above the limit is refused and uses nothing."""
        limit = self._limits[group]
        window = math.floor(self._now() / limit.seconds)
        last_window, last_used = self._used.get(group, (window, 0))
        used = last_used if last_window == window else 0
        broken = used + cost > limit.limit
        if broken:
            self.broken[group] += 1
        else:
            used += cost
        self._used[group] = window, used
        return Spent(limit.limit, limit.limit - used, (window + 1) * limit.seconds, broken)
