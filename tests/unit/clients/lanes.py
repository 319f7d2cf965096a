"""Lanes that share a budget, in a time that costs none: deliveries with connections, latency and an end."""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass, field

from airflow_provider_heapbraze.clients.budget_stores import Seen
from airflow_provider_heapbraze.clients.errors import BudgetAwayError
from airflow_provider_heapbraze.clients.shared_budget import SharedBudget


class MemoryStore:
    """A store of its own clock; away when told.

    :param took: seconds that each call takes.
    """

    def __init__(self, clock, *, offset=0.0, took=0.0):
        self.clock = clock
        self.offset = offset
        self.took = took
        self.away = False
        self.calls = 0
        self.documents = {}

    def _call(self):
        self.calls += 1
        self.clock.time += self.took
        if self.away:
            raise BudgetAwayError("The store is away.")

    def read(self, name):
        self._call()
        return Seen(self.documents.get(name), self.clock.time + self.offset)

    def replace(self, name, old, new):
        self._call()
        if self.documents.get(name) != old:
            return False
        self.documents[name] = new
        return True

    def close(self):
        pass


@dataclass
class Delivery:
    """A lane: so many requests, over so many connections, each answered after so many seconds.

    :param starts: seconds from the beginning.
    :param dies: seconds from the beginning: no more is heard of it, as after ``kill -9``.
    """

    requests: int
    connections: int = 24
    latency: float = 0.25
    starts: float = 0.0
    dies: float = float("inf")
    budget: SharedBudget | None = None
    sent: list[float] = field(default_factory=list)
    free_at: list[float] = field(default_factory=list)
    ended: float | None = None


def run(clock, store, limit, period, deliveries, *, until=float("inf"), on_send=None):
    """Let deliveries send until all are done or dead; return the times of all requests, in order."""
    began = clock.time
    order = itertools.count()
    looks = [(began + one.starts, next(order), one) for one in deliveries]
    heapq.heapify(looks)
    times = []
    while looks:
        at, _, one = heapq.heappop(looks)
        clock.time = max(clock.time, at)
        now = clock.time - began
        if now >= one.dies or now >= until:
            continue
        if one.budget is None:
            one.budget = SharedBudget(store, "name", limit, period, clock=clock)
            one.free_at = [clock.time] * one.connections
        one.budget.expect(one.requests - len(one.sent))
        seconds = one.budget._book()
        if seconds > 0:
            heapq.heappush(looks, (clock.time + min(max(seconds, 0.0001), 0.5), next(order), one))
            continue
        one.sent.append(clock.time)
        times.append(clock.time)
        if on_send is not None:
            on_send(one)
        heapq.heapreplace(one.free_at, clock.time + one.latency)
        if len(one.sent) == one.requests:
            one.ended = clock.time - began
            one.budget.close()
        else:
            heapq.heappush(looks, (max(clock.time, one.free_at[0]), next(order), one))
    return times
