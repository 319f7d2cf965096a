"""Assert a slice of what has not changed again, so that a write which the other side lost heals.

The share 1/N makes N slices, and each plan takes the next one: after N runs everybody was asserted once more,
the removals of the last runs included. The price is 1/N of the size, and about one night's removals, per run.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_heapbraze.membership.entries import Plan
from airflow_provider_heapbraze.membership.holding import KEY, ON_KEY

if TYPE_CHECKING:
    from airflow_provider_heapbraze.membership.ledger import TargetLedger
    from airflow_provider_heapbraze.membership.tables import Workspace

# Removals of so many runs are asserted again, and of more where there are more slices.
REMOVALS_OF_RUNS = 30
# Not an alias and not a device id: by now it may be of somebody who is wanted under another identifier.
OF_ONE_PERSON = "('external_id', 'identity')"


@dataclass(frozen=True)
class Slice:
    """Who is asserted again.

    :param number: of the slice.
    :param of: how many slices there are; 1 is everybody, 0 nobody.
    """

    number: int
    of: int

    @classmethod
    def after(cls, last: int, share: float, *, everybody: bool) -> Slice:
        """Return the slice that follows.

        :param last: number of the last plan's.
        :param share: 0 to 1, of the unchanged people.
        """
        if everybody:
            return cls(last, 1)
        slices = math.ceil(1 / share) if share else 0
        return cls((last + 1) % slices if slices else last, slices)

    @property
    def holds(self) -> str:
        """Return SQL that tells whether a row is in the slice."""
        if self.of <= 1:
            return "true" if self.of else "false"
        digest = "md5_number_lower(concat_ws(' ', a.kind, a.label, a.value))"
        return f"{digest} % {self.of} = {self.number % self.of}"


def removed_lately(space: Workspace, ledger: TargetLedger, before: int, slice_: Slice) -> str:
    """Return the query for whom recent plans removed and nobody added since: those in the slice.

    :param before: only plans before this place in the log.
    :raises LedgerDamagedError: a plan of them cannot be read.
    """
    runs = max(REMOVALS_OF_RUNS, slice_.of)
    found: list[Plan] = []
    for entry in ledger.recent_entries(before):
        if len(found) == runs:
            break
        if isinstance(entry, Plan):
            found.append(entry)
    views = []
    for plan in found:
        if plan.removes:
            view = f"removed_{plan.number}"
            if not space.load(view, ledger.path(plan.changes), rows=plan.rows, expected=plan.digest):
                raise ledger.not_as_logged(plan.changes)
            views.append(f"SELECT {KEY} FROM {view} WHERE remove")
    union = " UNION ".join(views) or f"SELECT {KEY} FROM held WHERE false"
    return (
        f"SELECT {KEY} FROM ({union}) a WHERE kind IN {OF_ONE_PERSON} AND {slice_.holds} "
        f"AND NOT EXISTS (SELECT 1 FROM held b WHERE {ON_KEY})"
    )
