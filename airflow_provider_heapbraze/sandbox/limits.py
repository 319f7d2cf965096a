"""Rate limits: Braze's per window of the clock, told in the headers of every answer; Heap's rolling."""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from airflow_provider_heapbraze.sandbox.models import Group, Limit

# How Heap's windows are laid is not documented: any span of so many seconds is one, the strictest reading.
ROLLING: frozenset[Group] = frozenset({"heap", "heap_identity"})


@dataclass(frozen=True)
class Spent:
    """Where a group's limit stands after a request.

    :param reset: UTC epoch seconds: end of the window of the clock; of a rolling one, when all is free again.
    :param broken: the request was above the limit, or above a person's.
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


class ClockWindow:
    """What was used in the present window of the clock, by key."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._number = 0
        self.used: Counter[Hashable] = Counter()

    def move(self, now: float) -> None:
        """Forget what was used in an earlier window."""
        number = math.floor(now / self._seconds)
        if number != self._number:
            self._number = number
            self.used.clear()

    def use(self, _: float, costs: Mapping[Hashable, int]) -> None:
        """Count what a request uses."""
        self.used.update(costs)

    def reset(self, _: float) -> float:
        """Return when all is free again."""
        return (self._number + 1) * self._seconds


class RollingWindow:
    """What was used in the last so many seconds, by key; it holds nothing that is older."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._uses: deque[tuple[float, Mapping[Hashable, int]]] = deque()  # when, and what
        self.used: Counter[Hashable] = Counter()

    def move(self, now: float) -> None:
        """Forget what was used so many seconds ago."""
        while self._uses and self._uses[0][0] + self._seconds <= now:
            for key, cost in self._uses.popleft()[1].items():
                self.used[key] -= cost
                if not self.used[key]:
                    del self.used[key]

    def use(self, now: float, costs: Mapping[Hashable, int]) -> None:
        """Count what a request uses."""
        self._uses.append((now, costs))
        self.used.update(costs)

    def reset(self, now: float) -> float:
        """Return when all is free again, if nothing more is used."""
        return self._uses[-1][0] + self._seconds if self._uses else now


class Limits:
    """The limits of all groups: Braze's reset on the clock (Braze: Rate limits), Heap's windows roll."""

    def __init__(self, limits: Mapping[Group, Limit], *, now: Callable[[], float] = time.time) -> None:
        self._limits = dict(limits)
        self._now = now
        self._windows: dict[Group, ClockWindow | RollingWindow] = {}
        self.broken: Counter[Group] = Counter()

    def change(self, limits: Mapping[Group, Limit]) -> None:
        """Take over new limits; a group whose limit changes starts anew."""
        for group in [group for group in self._windows if limits[group] != self._limits[group]]:
            del self._windows[group]
        self._limits = dict(limits)

    def spend(self, group: Group, cost: int, persons: Mapping[Hashable, int] | None = None) -> Spent:
        """Count a request; one above a limit is refused and uses nothing of any.

        :param persons: what it uses of ``heap_identity``, by person.
        """
        now = self._now()
        costs: dict[Group, Mapping[Hashable, int]] = {group: {None: cost}}
        if persons:
            costs["heap_identity"] = persons
        broken = [name for name, wanted in costs.items() if self._is_above(name, wanted, now)]
        self.broken.update(broken)
        if not broken:
            for name, wanted in costs.items():
                self._windows[name].use(now, wanted)
        limit, window = self._limits[group].limit, self._windows[group]
        return Spent(limit, limit - window.used[None], window.reset(now), bool(broken))

    def _is_above(self, group: Group, costs: Mapping[Hashable, int], now: float) -> bool:
        limit = self._limits[group]
        if group not in self._windows:
            self._windows[group] = (RollingWindow if group in ROLLING else ClockWindow)(limit.seconds)
        window = self._windows[group]
        window.move(now)
        return any(window.used[key] + cost > limit.limit for key, cost in costs.items())
