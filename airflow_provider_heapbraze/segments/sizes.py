"""A segment's size over time, and whether it changed suddenly."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from statistics import median
from typing import TYPE_CHECKING, Any, Self

from airflow_provider_heapbraze.clients.errors import PermanentError, UnclearAnswerError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import date

    from airflow_provider_heapbraze.clients.braze_reads import SizeOfDay

# Days are those of the workspace's time zone, and the present one may not be counted yet.
STALE = timedelta(days=2)


class SuddenChangeError(PermanentError):
    """A segment's size is far from what it was."""


@dataclass(frozen=True)
class SizeHistory:
    """Sizes day by day, oldest first, one at least; Braze's own are estimates.

    :param days: the last one is the present.
    """

    days: Sequence[SizeOfDay]

    @classmethod
    def of(cls, days: Sequence[SizeOfDay], today: date) -> Self:
        """Return the history of these days.

        :raises UnclearAnswerError: Braze has no size that is of use for today.
        """
        if not days or today - days[-1].day > STALE:
            said = f"none since {days[-1].day}" if days else "none yet"
            raise UnclearAnswerError(
                f"Braze counts no sizes of this segment: {said}. Nothing was recorded. Look whether "
                "analytics tracking is enabled for the segment in Braze."
            )
        return cls(days)

    @property
    def size(self) -> int:
        """Return the present size."""
        return self.days[-1].size

    @property
    def usual(self) -> float | None:
        """Return the median of the days before; None where there are none.

        One day that was out of line does not change it, and does not make the next one look sudden.
        """
        before = [day.size for day in self.days[:-1]]
        return median(before) if before else None

    @property
    def change(self) -> float | None:
        """Return by which share of the usual size the present one differs; None where there is no usual."""
        return None if not self.usual else (self.size - self.usual) / self.usual

    def complaints(self, max_drop_share: float | None, max_rise_share: float | None) -> list[str]:
        """Say which limit the change passes."""
        return list(self._complaints(max_drop_share, max_rise_share))

    def as_dict(self) -> dict[str, Any]:
        """Return everything as small JSON."""
        return {
            "size": self.size,
            "day": self.days[-1].day.isoformat(),
            "usual": self.usual,
            "change": None if self.change is None else round(self.change, 4),
            "series": {day.day.isoformat(): day.size for day in self.days},
        }

    def _complaints(self, drop: float | None, rise: float | None) -> Iterator[str]:
        change = self.change or 0.0
        if drop is not None and -change > drop:
            yield f"{-change:.1%} fewer people than usual (max_drop_share={drop:g})"
        if rise is not None and change > rise:
            yield f"{change:.1%} more people than usual (max_rise_share={rise:g})"
        # No share of nobody is anybody, and only a limit that is none allows a rise from there.
        if rise is not None and math.isfinite(rise) and self.usual == 0 and self.size:
            yield f"{self.size:,} people, and usually nobody (max_rise_share={rise:g})"
