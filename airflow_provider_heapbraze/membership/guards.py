"""Limits that stop a plan before anything is sent."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_heapbraze.clients.errors import ConfigurationError
from airflow_provider_heapbraze.membership.arguments import limit, share

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@dataclass
class Guards:
    """What a plan may do without a person looking at it.

    :param max_removed_share: largest share of the people held now that may be removed, 0 to 1.
    :param max_removed: largest number of people that may be removed.
    :param max_added_share: largest number of people added, as a share of the people held now; not checked
        on a first import, where nobody is held yet.
    :param allow_empty: whether an empty segment may empty the other side. Where it may, the two limits on
        removals do not apply to it.
    :param min_match_rate: smallest share of members that must be matched, 0 to 1.
    """

    template_fields: ClassVar[Sequence[str]] = (
        "max_removed_share",
        "max_removed",
        "max_added_share",
        "allow_empty",
        "min_match_rate",
    )

    max_removed_share: float | None = 0.2
    max_removed: int | None = None
    max_added_share: float | None = None
    allow_empty: bool = False
    min_match_rate: float = 0.0

    def breaches(self, change: ChangeCounts) -> list[Breach]:
        """Name every limit that the change passes.

        :raises ConfigurationError: a limit is not a number in its range.
        """
        return list(self._breaches(change))

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
            yield Breach("max_added_share", added, most, "of the people held would be added")

    def _removal_breaches(self, change: ChangeCounts) -> Iterator[Breach]:
        most = _share("max_removed_share", self.max_removed_share)
        if most is not None and change.removes > most * change.held:
            removed = _ceil(change.removes / change.held)
            yield Breach("max_removed_share", removed, most, "of the people held would be removed")
        count = limit(self.max_removed, "Guards: max_removed")
        if count is not None and change.removes > count:
            yield Breach("max_removed", change.removes, int(count), "people would be removed")


@dataclass(frozen=True)
class ChangeCounts:
    """What the guards look at.

    :param members: rows that the source gave.
    :param match_rate: share of them that have an identifier, duplicates included.
    :param wanted: identifiers that are to be held afterwards.
    :param held: identifiers that are, or may be, held now.
    """

    members: int
    match_rate: float
    wanted: int
    held: int
    adds: int
    removes: int


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
        return "allow_empty=True" if self.guard == "allow_empty" else f"{self.guard}={self.value}"

    def as_dict(self) -> dict[str, Any]:
        """Return the breach as small JSON."""
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"{self.value:,} {self.meaning} (limit {self.limit:,}; to allow it once, clear the task with "
            f"Guards({self.allowance}))"
        )


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
