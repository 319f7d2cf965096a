"""Limits that stop a plan before anything is sent."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from statistics import median
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_heapbraze.clients.errors import ConfigurationError
from airflow_provider_heapbraze.membership.arguments import limit, share

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


# The usual is a median: of so few runs there is none, and so few people may come and go.
FEWEST_RUNS = 3
FEWEST_PEOPLE = 1000

WHAT_TO_GIVE = {
    "allow_empty": "true or false",
    "protected": "the location of files, or None, which protects nobody",
}
# How guards are called whose value is a part of one.
SHARES = ("_share", "_rate", "_rate_drop")
A_LIMIT = "a number, or None, which is no limit"


@dataclass
class Guards:
    """What a plan may do without a person looking at it.

    ``None`` switches a guard off, also as the text that a template makes of it. An empty text does not: a
    template gave nothing, and nobody decided anything.

    :param max_removed_share: largest share of the people held now that may be removed, 0 to 1.
    :param max_removed: largest number of people that may be removed.
    :param max_added_share: largest number of people added, as a share of the people held now; not checked
        on a first import, where nobody is held yet.
    :param max_added: largest number of people that may be added.
    :param allow_empty: whether an empty segment may empty the other side. Where it may, the two limits on
        removals do not apply to it.
    :param min_match_rate: smallest share of members that must be matched, 0 to 1.
    :param max_match_rate_drop: how far the match rate may lie below the usual one (the median of the last ten
        runs, where there are three), 0 to 1.
    :param max_size_factor: how many times larger or smaller than usual the segment may be; not checked for
        less than a thousand people.
    :param max_members_age_hours: how old the members may be, in hours: when they were read or written, for
        Segments Sync the time of the last change.
    :param protected: location of files with people who must never be removed, as ``FileMembers`` reads
        them: their external ids, alias names or device ids are in the column ``id``.
    """

    template_fields: ClassVar[Sequence[str]] = (
        "max_removed_share",
        "max_removed",
        "max_added_share",
        "max_added",
        "allow_empty",
        "min_match_rate",
        "max_match_rate_drop",
        "max_size_factor",
        "max_members_age_hours",
        "protected",
    )

    max_removed_share: float | None = 0.2
    max_removed: int | None = None
    max_added_share: float | None = None
    max_added: int | None = None
    allow_empty: bool = False
    min_match_rate: float = 0.0
    max_match_rate_drop: float | None = 0.2
    max_size_factor: float | None = 5
    max_members_age_hours: float | None = None
    protected: str | None = None

    def breaches(
        self, change: ChangeCounts, past: Sequence[Sequence[float]] = (), protected: int = 0
    ) -> list[Breach]:
        """Name every limit that the change passes.

        :param past: size and match rate of the runs before.
        :param protected: how many people would be removed who must not be.
        :raises ConfigurationError: a limit is not a number in its range, or a guard is an empty text.
        """
        for name in self.template_fields:
            given(name, getattr(self, name))
        found = [*self._breaches(change), *self._unusual(change, past), *self._too_old(change)]
        if protected:
            found.append(Breach("protected", protected, 0, "protected people would be removed"))
        return found

    def _breaches(self, change: ChangeCounts) -> Iterator[Breach]:
        match_rate = _share("min_match_rate", self.min_match_rate)
        if change.members and match_rate is not None and change.match_rate < match_rate:
            yield Breach(
                "min_match_rate", round(change.match_rate, 4), match_rate, "of the members are matched"
            )
        if change.wanted == 0 and change.held:
            if not _flag("allow_empty", self.allow_empty):
                yield Breach("allow_empty", change.held, 0, "people would be removed: the segment is empty")
        else:
            yield from self._removal_breaches(change)
        most = limit(self.max_added_share, "Guards: max_added_share")
        if most is not None and change.held and change.adds > most * change.held:
            added = _ceil(change.adds / change.held)
            shown = f"({change.adds:,} of {change.held:,})"
            yield Breach("max_added_share", added, most, f"of the people held would be added {shown}")
        count = limit(self.max_added, "Guards: max_added")
        if count is not None and change.adds > count:
            yield Breach("max_added", change.adds, int(count), "people would be added")

    def _removal_breaches(self, change: ChangeCounts) -> Iterator[Breach]:
        most = _share("max_removed_share", self.max_removed_share)
        if most is not None and change.removes > most * change.held:
            removed = _ceil(change.removes / change.held)
            shown = f"({change.removes:,} of {change.held:,})"
            yield Breach("max_removed_share", removed, most, f"of the people held would be removed {shown}")
        count = limit(self.max_removed, "Guards: max_removed")
        if count is not None and change.removes > count:
            yield Breach("max_removed", change.removes, int(count), "people would be removed")

    def _unusual(self, change: ChangeCounts, past: Sequence[Sequence[float]]) -> Iterator[Breach]:
        drop = _share("max_match_rate_drop", self.max_match_rate_drop)
        factor = limit(self.max_size_factor, "Guards: max_size_factor")
        if len(past) < FEWEST_RUNS:
            return
        size, rate = (median(values) for values in zip(*past, strict=True))
        missed = round(rate - change.match_rate, 6)
        if drop is not None and change.members and missed > drop:
            shown = f"{_percent(change.match_rate)}, usually {_percent(rate)}"
            meaning = f"of the members are matched less than usual ({shown})"
            yield Breach("max_match_rate_drop", _ceil(missed), drop, meaning)
        smaller, larger = sorted((float(change.wanted), size))
        if factor is not None and smaller and larger >= FEWEST_PEOPLE and larger > factor * smaller:
            how = "larger" if change.wanted > size else "smaller"
            meaning = f"times {how} than usual is the segment ({change.wanted:,} people, usually {size:,.0f})"
            yield Breach("max_size_factor", _ceil(larger / smaller), factor, meaning)

    def _too_old(self, change: ChangeCounts) -> Iterator[Breach]:
        most = limit(self.max_members_age_hours, "Guards: max_members_age_hours")
        if most is not None and change.taken_at:
            age = (datetime.now(UTC) - datetime.fromisoformat(change.taken_at)).total_seconds() / 3600
            if age > most:
                meaning = f"hours old are the members, of {change.taken_at}"
                yield Breach("max_members_age_hours", math.ceil(age), most, meaning)


@dataclass(frozen=True)
class ChangeCounts:
    """What the guards look at.

    :param members: rows that the source gave.
    :param match_rate: share of them that have an identifier, duplicates included.
    :param wanted: identifiers that are to be held afterwards.
    :param held: identifiers that are, or may be, held now.
    :param taken_at: when the members were the segment's, ISO 8601; empty where nobody knows.
    """

    members: int
    match_rate: float
    wanted: int
    held: int
    adds: int
    removes: int
    taken_at: str = ""


@dataclass(frozen=True)
class Breach:
    """One limit that a plan passes.

    :param guard: the parameter of :class:`Guards`.
    :param value: what the plan would do.
    :param limit: what the guard allows.
    """

    guard: str
    value: float
    limit: float
    meaning: str

    @property
    def allowance(self) -> str:
        """Return the argument that allows this once."""
        return {"allow_empty": "allow_empty=True", "protected": "protected=None"}.get(
            self.guard, f"{self.guard}={self.value}"
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the breach as small JSON."""
        return asdict(self)

    @property
    def said(self) -> str:
        """Say what the plan would do."""
        return f"{self._form(self.value)} {self.meaning}"

    @property
    def limit_said(self) -> str:
        """Say what the guard allows."""
        return self._form(self.limit)

    def __str__(self) -> str:
        return f"{self.said}; the limit is {self.limit_said}"

    def _form(self, number: float) -> str:
        return _percent(number) if self.guard.endswith(SHARES) else f"{number:,}"


def argument_that_allows(breaches: Sequence[Breach]) -> str:
    """Return the argument of the operator that lets a plan pass all of these."""
    return f"guards=Guards({', '.join(breach.allowance for breach in breaches)})"


def _percent(share: float) -> str:
    return f"{round(100 * share, 2):g} %"


def given(name: str, value: Any) -> Any:
    """Return what was given for a guard; None where that switches it off.

    :raises ConfigurationError: it is an empty text.
    """
    text = str(value).strip()
    if not text:
        raise ConfigurationError(
            f"Guards: {name} is empty: its template gave nothing. Nothing was sent. Give it "
            f"{WHAT_TO_GIVE.get(name, A_LIMIT)}, and clear the task."
        )
    return None if text == "None" else value


def _flag(name: str, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text not in {"true", "false"}:
        raise ConfigurationError(f"Guards: {name} must be true or false. Nothing was sent.")
    return text == "true"


def _share(name: str, value: Any) -> float | None:
    given = limit(value, f"Guards: {name}")
    return None if given is None else share(given, f"Guards: {name}")


def _ceil(share: float) -> float:
    """Round up, so that the value, taken for the limit, lets the plan pass."""
    return math.ceil(share * 10_000) / 10_000
