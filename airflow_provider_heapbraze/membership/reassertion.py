"""Assert a slice of what has not changed again, so that a write which the other side lost heals.

The share 1/N makes N slices, and each plan takes the next one: after N runs everybody was asserted once more.
Removals are repeated after 1, 7 and 30 runs. The price is 1/N of the size, and about three nights' removals,
per run.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_heapbraze.ledger_folder import LedgerDamagedError
from airflow_provider_heapbraze.membership.changing import add
from airflow_provider_heapbraze.membership.holding import KEY, NOBODY, OF_A, ON_KEY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_heapbraze.membership.ledger import TargetLedger
    from airflow_provider_heapbraze.membership.space import Space

log = logging.getLogger(__name__)

# A removal is repeated after so many runs. Where everybody is asserted, those of all of the last 30 are.
REPEATED_AFTER_RUNS = (1, 7, 30)
# An alias or a device id may be of somebody else by now. Where people are wanted or held under such
# identifiers, one of them may be the person whose external id was removed: nothing is repeated then.
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

    def holds(self, kind: str, label: str, value: str) -> str:
        """Return SQL that tells whether an identifier is in the slice; each part of it is SQL, too."""
        if self.of <= 1:
            return "true" if self.of else "false"
        digest = f"first_digest({kind} || ' ' || {label} || ' ' || {value})"
        return f"mod({digest}, {self.of}) = {self.number % self.of}"


def repeat_removals(space: Space, ledger: TargetLedger, plans: Sequence[str], slice_: Slice) -> None:
    """Put removals of the plans before into ``change`` once more, where nobody holds the person again.

    :param plans: ids of the plans before, oldest first.
    """
    runs = range(1, len(plans) + 1) if slice_.of == 1 else REPEATED_AFTER_RUNS if slice_.of else ()
    removed = [_load_removed(space, ledger, plans[-run]) for run in runs if run <= len(plans)]
    views = [view for view in removed if view]
    if not views or _may_be_of_one_person(space):
        return
    space.table("repeated", " UNION ".join(f"SELECT {KEY} FROM {view}" for view in (*views, f"({NOBODY}) a")))
    present = " UNION ALL ".join(f"SELECT {KEY} FROM {table}" for table in ("wanted", "held", "change"))
    space.table("present_again", f"SELECT {OF_A} FROM ({present}) a SEMI JOIN repeated b ON {ON_KEY}")
    add(
        space,
        f"SELECT {OF_A}, true AS remove, true AS again FROM repeated a ANTI JOIN present_again b ON {ON_KEY}",
    )


def _may_be_of_one_person(space: Space) -> bool:
    others = f"WHERE kind NOT IN {OF_ONE_PERSON}"
    return bool(space.count(f"wanted {others}") or space.count(f"may_be_held {others}"))


def _load_removed(space: Space, ledger: TargetLedger, plan_id: str) -> str | None:
    """Make a view of whom a plan removed for the first time; None where there is nobody."""
    view = f"removed_{plan_id.replace('-', '_')}"
    try:
        plan = ledger.read_draft(plan_id)
        if not plan.first_removes:
            return None
        if not space.load(f"{view}_changes", ledger.path(plan.changes), rows=plan.rows, expected=plan.digest):
            raise ledger.not_as_logged(plan.changes)
    except LedgerDamagedError as damage:
        # It is a second chance: the first removal had its answer.
        log.warning("Removals of plan %s are not asserted again: %s.", plan_id, damage.what)
        return None
    first = f"kind IN {OF_ONE_PERSON} AND file_row_number < {plan.first_removes}"
    space.view(view, f"SELECT {KEY} FROM {view}_changes WHERE {first}")
    return view
