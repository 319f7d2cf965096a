"""The rows of a plan, batch by batch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_provider_heapbraze.membership.holding import KEY

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from airflow_provider_heapbraze.membership.tables import Workspace


@dataclass(frozen=True)
class Batch:
    """Rows of a change set that are sent together: removals, or additions.

    :param numbers: the rows' numbers; rising.
    :param rows: (kind, value, label, remove) per row.
    """

    numbers: Sequence[int]
    rows: Sequence[tuple[str, str, str, bool]] = field(repr=False)

    @property
    def removes(self) -> bool:
        """Tell whether its people leave."""
        return self.rows[0][3]

    def halves(self) -> tuple[Batch, Batch]:
        """Split in two."""
        middle = len(self.rows) // 2
        return (
            Batch(self.numbers[:middle], self.rows[:middle]),
            Batch(self.numbers[middle:], self.rows[middle:]),
        )

    def only(self, indexes: Iterable[int]) -> Batch:
        """Return the rows at these indexes."""
        kept = sorted(indexes)
        return Batch([self.numbers[index] for index in kept], [self.rows[index] for index in kept])

    def ranges(self, *, without: Collection[int] = ()) -> Iterator[tuple[int, int]]:
        """Give the numbers as ranges, but for the rows at some indexes."""
        if not without and isinstance(self.numbers, range):
            yield self.numbers.start, self.numbers.stop
            return
        for index, number in enumerate(self.numbers):
            if index not in without:
                yield number, number + 1


@dataclass(frozen=True)
class Refusals:
    """What a 2xx answer says against single rows of a batch, by their index in it.

    :param rejected: index to reason: refused for good.
    :param unsure: indexes whose fate the answer leaves open.
    """

    rejected: dict[int, str] = field(default_factory=dict)
    unsure: frozenset[int] = frozenset()


def read_batches(space: Workspace, ranges: Sequence[tuple[int, int]], size: int) -> Iterator[Batch]:
    """Read ranges of ``planned``, a change set, in batches of at most ``size`` rows, in order, in steps.

    :param ranges: rising, at least one.
    """
    (position, _), (_, last) = ranges[0], ranges[-1]
    remaining = list(reversed(ranges))
    rows: list[tuple[str, str, str, bool]] = []
    start = position
    query = (
        f"SELECT {KEY}, remove FROM planned WHERE file_row_number >= {position} AND file_row_number < {last}"
    )
    for part in space.stream(query):
        part_end = position + len(part)
        while remaining and remaining[-1][0] < part_end:
            first, end = remaining.pop()
            if end > part_end:
                remaining.append((part_end, end))
            if rows and start + len(rows) != first:
                yield Batch(range(start, start + len(rows)), rows)
                rows = []
            start = start if rows else first
            rows.extend(part[first - position : min(end, part_end) - position])
            while len(rows) >= size:
                yield Batch(range(start, start + size), rows[:size])
                start, rows = start + size, rows[size:]
        position = part_end
    if rows:
        yield Batch(range(start, start + len(rows)), rows)
