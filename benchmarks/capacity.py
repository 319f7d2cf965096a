"""On paper: what a billion members in 500 cohorts take each night, and which limit binds.

Nothing is measured here. The model has one number for each step of the work, which the benchmarks beside it
measured (:data:`MEASURED`), and simulates a night: workers take cohorts, prepare each alone, and
deliver at the same time within one limit. It prints the tables of ``capacity.md``.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass

PEOPLE = 1_000_000_000
COHORTS = 500
# Of the people held, so many leave and so many come.
CHANGED = 0.05
WORKERS = (1, 2, 4, 8, 16)
CONNECTIONS, LATENCY = 24, 0.25
HOUR = 3600.0


@dataclass(frozen=True)
class Way:
    """How changes reach Braze.

    :param per_request: people in one request.
    :param per_second: requests in a second, by Braze's limit.
    """

    name: str
    per_request: int
    per_second: float


COHORT = Way("cohort (partner key)", 1000, 250_000 / HOUR)
ATTRIBUTE = Way("attribute (any REST key)", 75, 1000.0)


@dataclass(frozen=True)
class Measured:
    """Points that were measured (benchmarks/RESULTS.md), on one worker of two cores.

    :param match: seconds for a million members, from Parquet to the match in the ledger.
    :param plan: seconds for a million members against as many held, to the change set.
    :param snapshot: seconds for a million people held, to write them down.
    :param held_bytes: of a person in a snapshot, and of one in a match; here for random ids of 36 characters.
    :param change_bytes: of a change in a change set; likewise.
    """

    match: float
    plan: float
    snapshot: float
    held_bytes: float
    change_bytes: float


MEASURED = Measured(match=1.53, plan=0.36, snapshot=0.26, held_bytes=20.6, change_bytes=20.6)


def sizes() -> list[int]:
    """Return the cohorts' sizes, largest first: the n-th is proportional to 1/n, as audiences are."""
    weights = [1 / rank for rank in range(1, COHORTS + 1)]
    return [round(PEOPLE * weight / sum(weights)) for weight in weights]


def requests_of(size: int, way: Way) -> int:
    """Return the requests of a night: people who leave and people who come go apart."""
    return 2 * math.ceil(size * CHANGED / way.per_request)


def prepared_in(size: int) -> float:
    """Return the seconds that a worker needs before the first request, and after the last."""
    return size / 1e6 * (MEASURED.match + MEASURED.plan + MEASURED.snapshot)


@dataclass
class Night:
    """What a simulated night took.

    :param hours: from the first cohort's start to the last one's end.
    :param limit_used: share of Braze's limit while anything was delivered.
    """

    hours: float
    limit_used: float


def simulate(workers: int, way: Way) -> Night:
    """Let workers take cohorts, largest first; whoever delivers has an equal part of the limit."""
    waiting = sizes()[::-1]
    preparing: list[tuple[float, int]] = []  # (when it is prepared, requests)
    delivering: list[float] = []  # requests left
    own_most = CONNECTIONS / LATENCY
    now, sent, busy = 0.0, 0.0, 0.0
    while waiting or preparing or delivering:
        while waiting and len(preparing) + len(delivering) < workers:
            size = waiting.pop()
            heapq.heappush(preparing, (now + prepared_in(size), requests_of(size, way)))
        rate = min(own_most, way.per_second / len(delivering)) if delivering else 0.0
        ends = [preparing[0][0] - now] if preparing else []
        ends += [min(delivering) / rate] if delivering else []
        step = max(0.0, min(ends))
        now += step
        if delivering:
            sent += rate * len(delivering) * step
            busy += step
            delivering = [left - rate * step for left in delivering if left - rate * step > 1e-6]
        while preparing and preparing[0][0] <= now + 1e-9:
            delivering.append(float(heapq.heappop(preparing)[1]))
    return Night(now / HOUR, sent / (busy * way.per_second) if busy else 0.0)


def print_table(head: list[str], rows: list[list[str]]) -> None:
    """Print a table in Markdown."""
    for row in (head, ["---:"] * len(head), *rows):
        print(f"| {' | '.join(row)} |")
    print()


def sent(way: Way) -> list[str]:
    """Return what a night sends, and a first import."""
    nightly = sum(requests_of(size, way) for size in sizes())
    first = sum(math.ceil(size / way.per_request) for size in sizes())
    return [
        way.name,
        f"{nightly:,}",
        f"{nightly / way.per_second / HOUR:.2f} h",
        f"{first:,}",
        f"{first / way.per_second / HOUR:.1f} h",
    ]


def taken(workers: int) -> list[str]:
    """Return how long a night takes so many workers, and how much of the limit they use meanwhile."""
    nights = [simulate(workers, way) for way in (COHORT, ATTRIBUTE)]
    return [
        str(workers),
        *(text for night in nights for text in (f"{night.hours:.2f} h", f"{night.limit_used:.0%}")),
    ]


def main() -> None:
    print_table(
        ["delivery", "requests a night", "at Braze's limit", "first import", "at Braze's limit"],
        [sent(COHORT), sent(ATTRIBUTE)],
    )
    print_table(
        ["workers", "night, cohorts", "of the limit", "night, attributes", "of the limit"],
        [taken(workers) for workers in WORKERS],
    )
    held, changes = PEOPLE * MEASURED.held_bytes / 1e9, 2 * CHANGED * PEOPLE * MEASURED.change_bytes / 1e9
    largest = sizes()[0]
    print_table(
        ["", "all cohorts", "the largest"],
        [
            ["people", f"{PEOPLE:,}", f"{largest:,}"],
            ["hours of a worker, without delivery"]
            + [f"{prepared_in(size) / HOUR:.2f}" for size in (PEOPLE, largest)],
            ["GB of a match, and of a snapshot", f"{held:,.0f}", f"{held * largest / PEOPLE:,.1f}"],
            ["GB of change sets", f"{changes:,.1f}", f"{changes * largest / PEOPLE:,.2f}"],
        ],
    )


if __name__ == "__main__":
    main()
