"""How many requests of one delivery go at the same time; it finds its own level."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# Requests accepted at a level, per place of it, before a wider one is tried. Where one in some hundreds is
# told to wait, whatever the level, that is soon enough to stay wide, with steps of a quarter.
ROUNDS_PER_STEP = 2
STEP_SHARE = 4
# A target that takes only one request at a time is asked for more after every tenth.
FEWEST_PER_STEP = 10


class AdaptiveConcurrency:
    """A lane for one delivery: starts wide, halves when told to wait, widens again while it goes well.

    Braze answers 423 (resource locked) on the cohort endpoints without documenting when; requests of one
    cohort that meet are the likely cause.

    :param most: places at the start, and at most.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._level = most
        self._busy = 0
        self._accepted = 0
        self._generation = 0
        self._changed = threading.Condition()

    @property
    def level(self) -> int:
        """Return how many requests may be under way at present."""
        return self._level

    @contextmanager
    def slot(self) -> Iterator[int]:
        """Hold a place during one attempt.

        :returns: the generation of this attempt, for :meth:`told_to_wait`.
        """
        with self._changed:
            while self._busy >= self._level:
                self._changed.wait()
            self._busy += 1
            generation = self._generation
        try:
            yield generation
        finally:
            with self._changed:
                self._busy -= 1
                self._changed.notify()

    def accepted(self) -> None:
        """Note an accepted request; enough of them widen the lane."""
        with self._changed:
            self._accepted += 1
            enough = max(FEWEST_PER_STEP, ROUNDS_PER_STEP * self._level)
            if self._level < self._most and self._accepted >= enough:
                self._level = min(self._most, self._level + max(1, self._level // STEP_SHARE))
                self._accepted = 0
                self._changed.notify_all()

    def told_to_wait(self, generation: int) -> None:
        """Halve the lane, down to one; once for all requests that were under way together.

        :param generation: from :meth:`slot`. Requests that began before the last halving say nothing about
            the present level.
        """
        with self._changed:
            if generation == self._generation:
                self._generation += 1
                self._level = max(1, self._level // 2)
                self._accepted = 0
