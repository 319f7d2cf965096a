"""What a ledger is made of: targets, the entries of their logs, and which rows of a plan have an answer."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from bisect import bisect_right
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import uuid4

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping


# So many runs say what is usual, and the removals of so many can be asserted again.
RUNS_COMPARED = 10
PLANS_REMEMBERED = 30
PLAN_ID_LENGTH = 21


@dataclass(frozen=True)
class Target:
    """Whom a membership run writes to.

    :param kind: ``cohort``, ``attribute`` or ``property``.
    :param place: what tells this target from every other: host, partner, cohort id, attribute or property.
    """

    kind: str
    place: Mapping[str, str]

    @property
    def folder(self) -> str:
        """Return the folder's name: readable, and different for every target."""
        text = json.dumps([self.kind, *sorted(self.place.items())])
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        readable = re.sub(r"[^A-Za-z0-9_.-]+", "-", list(self.place.values())[-1])[:60]
        return f"{self.kind}-{readable}-{digest}"


@dataclass(frozen=True)
class Memory:
    """What a run hands on to the next one, beside the snapshot.

    :param slice: which slice of the unchanged people was asserted again; see :mod:`.reassertion`.
    :param past: size and match rate of the runs before, as lists of two, oldest first.
    :param plans: ids of the plans before, oldest first.
    :param carried: files that go with the plan, by the names of their tables; see :mod:`.carried`.
    """

    slice: int = 0
    past: list[list[float]] = field(default_factory=list)
    plans: list[str] = field(default_factory=list)
    carried: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """A change set written down, before its first request.

    :param number: the place in the log that it takes, or would take as a draft.
    :param run_id: the run whose plan it is.
    :param fingerprint: of the match that it was made from.
    :param base: snapshot that it was computed from, or None where nothing was held.
    :param held: identifiers in the base.
    :param name: name that the cohort is to have, or None where the target has no name.
    :param name_known: whether the target surely has this name already.
    :param counts: the waterfall down to the plan; see :mod:`.report`.
    :param change: what guards look at; see :class:`.guards.ChangeCounts`.
    :param as_of: the time that the run is for, ISO 8601, UTC.
    :param digest: of the file of the change set.
    :param repeated: how many of the removals repeat one that was made before: the last ones.
    :param memory: what it knows of the runs before, and carries on itself.
    :param opened_at: when it took its place in the log, UTC epoch seconds; 0 for a draft.
    :param approval: the :class:`Approval` of a person, where a guard was passed.
    :param recovery: how many plans there were and how many of them were lost, where the ledger was damaged.
    """

    kind: ClassVar[str] = "plan"

    number: int
    plan_id: str
    run_id: str
    fingerprint: str
    base: str | None
    held: int
    adds: int
    removes: int
    forced: bool
    name: str | None
    name_known: bool
    counts: dict[str, Any]
    change: dict[str, Any]
    as_of: str
    digest: str = ""
    repeated: int = 0
    memory: Memory = field(default_factory=Memory)
    opened_at: float = 0
    approval: dict[str, Any] | None = None
    recovery: dict[str, int] | None = None

    @property
    def folder(self) -> str:
        """Return the folder of the plan's files."""
        return f"plans/{self.plan_id}"

    @property
    def changes(self) -> str:
        """Return the file of the change set."""
        return changes_of(self.plan_id)

    def requests(self, rows_per_request: int) -> int:
        """Return how many requests its changes take: one carries removals or additions."""
        return -(-self.removes // rows_per_request) - (-self.adds // rows_per_request)

    @property
    def first_removes(self) -> int:
        """Return how many removals are made for the first time: those that repeat one come after them."""
        return self.removes - self.repeated

    @property
    def left_behind(self) -> Memory:
        """Return what the next run is to know, where this plan is not done."""
        return replace(self.memory, plans=[*self.memory.plans, self.plan_id][-PLANS_REMEMBERED:])

    @property
    def handed_on(self) -> Memory:
        """Return what the next run is to know, once this plan is done."""
        mine = [float(self.counts["wanted"]), float(self.change["match_rate"])]
        return replace(self.left_behind, past=[*self.memory.past, mine][-RUNS_COMPARED:])

    @property
    def rows(self) -> int:
        """Return the number of changes."""
        return self.adds + self.removes


@dataclass(frozen=True)
class Commit:
    """The moment a plan's outcome became the snapshot.

    :param snapshot: what is held now, or None where nobody is.
    :param size: identifiers in the snapshot.
    :param name: the name that the target surely has, or None where it was never named.
    :param memory: what the next run is to know.
    """

    kind: ClassVar[str] = "commit"

    number: int
    plan_id: str
    run_id: str
    fingerprint: str
    snapshot: str | None
    size: int
    forced: bool
    name: str | None
    report: str
    as_of: str
    memory: Memory = field(default_factory=Memory)


@dataclass(frozen=True)
class Abandon:
    """An entry that was lost; a run went on without it, and knew that it did.

    :param run_id: that run.
    """

    kind: ClassVar[str] = "abandon"

    number: int
    run_id: str


@dataclass(frozen=True)
class Approval:
    """What a person decided about a plan that guards stop.

    :param guards: the guards that this person saw the plan pass, with the values shown.
    :param by: the person's name in Airflow.
    :param at: when, ISO 8601, UTC.
    """

    approved: bool
    guards: dict[str, float]
    by: str
    at: str

    def covers(self, guard: str, value: float) -> bool:
        """Tell whether this person saw that the plan passes a guard, and by no less."""
        if not self.approved or guard not in self.guards:
            return False
        # While a person thinks, the members grow older.
        return guard == "max_members_age_hours" or value <= self.guards[guard]


@dataclass(frozen=True)
class Unknown:
    """The end of a damaged log: nobody knows what is held.

    :param number: the highest number that an entry has, or had.
    """

    number: int


Entry = Plan | Commit
Last = Plan | Commit | Unknown


@dataclass
class Settled:
    """Which rows of a plan have an answer: acknowledged ranges, and rejected rows with their reasons."""

    acknowledged: list[tuple[int, int]] = field(default_factory=list)
    rejected: dict[int, str] = field(default_factory=dict)
    named: bool = False

    def merge(self, other: Settled) -> None:
        """Take over what another record knows."""
        self.acknowledged = _joined([*self.acknowledged, *other.acknowledged])
        self.rejected.update(other.rejected)
        # An acknowledgement that comes late is one all the same.
        self.rejected = {row: reason for row, reason in self.rejected.items() if not self._has(row)}
        self.named = self.named or other.named

    def _has(self, row: int) -> bool:
        place = bisect_right(self.acknowledged, (row, sys.maxsize)) - 1
        return place >= 0 and row < self.acknowledged[place][1]

    @property
    def acknowledged_rows(self) -> int:
        """Return the number of rows that the other side accepted."""
        return sum(end - start for start, end in self.acknowledged)

    @property
    def rows(self) -> int:
        """Return the number of rows with an answer."""
        return self.acknowledged_rows + len(self.rejected)

    def open_ranges(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """Give the ranges of the rows from ``first`` up to, and without, ``last`` that have no answer."""
        answered = _joined([*self.acknowledged, *((row, row + 1) for row in self.rejected)])
        position = first
        for start, end in answered:
            if position < min(start, last):
                yield position, min(start, last)
            position = max(position, end)
        if position < last:
            yield position, last

    def __bool__(self) -> bool:
        return bool(self.acknowledged or self.rejected or self.named)


def changes_of(plan_id: str) -> str:
    """Return the file of a plan's change set."""
    return f"plans/{plan_id}/changes.parquet"


def new_plan_id(number: int) -> str:
    """Return an id for a plan that would take this place."""
    return f"{number:08d}-{uuid4().hex[:12]}"


def _joined(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Sort ranges and join those that touch."""
    joined: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((start, end))
    return joined
