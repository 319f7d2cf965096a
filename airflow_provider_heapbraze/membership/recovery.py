"""Go on from a damaged ledger: everybody whom we ever added, as far as anything still says so.

What is held is not known then. Everybody who is wanted is asserted, and everybody else whom a plan of ours
may have added is removed: so the other side is exact again, and nobody is removed whom we had not added.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING

from airflow_provider_heapbraze import storage
from airflow_provider_heapbraze.ledger_folder import LedgerDamagedError
from airflow_provider_heapbraze.membership.entries import PLAN_ID_LENGTH, Abandon, Plan
from airflow_provider_heapbraze.membership.holding import KEY, NOBODY, make_may_be_held

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from airflow_provider_heapbraze.membership.entries import Entry
    from airflow_provider_heapbraze.membership.ledger import TargetLedger
    from airflow_provider_heapbraze.membership.space import Space

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Found:
    """What is left of a damaged ledger.

    :param plans: how many plans were begun, as far as anybody can tell.
    :param lost: of how many of them nothing tells any more whom they added.
    """

    plans: int
    lost: int


def load_whatever_is_known(space: Space, ledger: TargetLedger, last: int) -> Found:
    """Make ``held`` (nobody, surely), ``unanswered`` (whom we ever added) and ``may_be_held``.

    The last is what guards compare with: the newest snapshot that can be read, or else whom we ever added.

    :param last: the highest number in the log that is, or was, taken.
    """
    entries = list(ledger.recent_entries(last + 1))
    logged = {entry.plan_id: entry.digest for entry in entries if isinstance(entry, Plan)}
    first = ledger.first_kept()
    begun = sorted({*ledger.begun_plans(), *logged})
    plans = [plan_id for plan_id in begun if int(plan_id[:8]) >= first]
    snapshots = {name[:PLAN_ID_LENGTH]: name for name in _names(ledger.path("snapshots"))}
    told = [
        _load_changes(space, ledger, plan_id, logged.get(plan_id))
        or _load_state_after(space, ledger, plan_id, following, snapshots)
        for plan_id, following in zip_longest(plans, plans[1:])
    ]
    before = _load_what_is_left(space, ledger, first) if first > 1 else []
    # Of some plans that are pruned the changes are kept.
    older = [_load_changes(space, ledger, plan_id, None) for plan_id in begun if int(plan_id[:8]) < first]
    newest = _newest_snapshot(space, ledger, snapshots)
    everybody = [f"SELECT {KEY} FROM {view}" for view in {*told, *before, *older, newest} if view]
    space.view("held", NOBODY)
    space.table(
        "unanswered",
        f"SELECT DISTINCT {KEY}, false AS remove, false AS again "
        f"FROM ({' UNION ALL '.join([NOBODY, *everybody])}) a",
    )
    make_may_be_held(space, newest or "unanswered")
    without_trace = _places_without_trace(ledger, range(first, last + 1), entries, plans, snapshots)
    lost_before = None in before
    found = Found(len(plans) + lost_before + without_trace, told.count(None) + lost_before + without_trace)
    log.warning(
        "The ledger of %s is damaged, and this run goes on all the same: everybody who is wanted is sent, "
        "and everybody else is removed whom one of %s plans added. %s",
        ledger.target.folder,
        f"{found.plans:,}",
        f"{found.lost:,} of them cannot be read any more: whom only they added, stays."
        if found.lost
        else "All of them can still be read.",
    )
    return found


def _load_changes(space: Space, ledger: TargetLedger, plan_id: str, digest: str | None) -> str | None:
    """Make a view of whom a plan touched.

    :param digest: of the file, where the log says it.
    """
    # Removals count, too: whom they remove was added by a plan that may be lost.
    view = f"plan_{_sql_name(plan_id)}"
    if digest is None:
        with suppress(LedgerDamagedError):
            digest = ledger.read_draft(plan_id).digest
    loaded = space.load(
        view,
        ledger.path(f"plans/{plan_id}/changes.parquet"),
        expected=digest or "",
        every_row=digest is None,
    )
    return view if loaded else None


def _load_state_after(
    space: Space, ledger: TargetLedger, plan_id: str, following: str | None, snapshots: Mapping[str, str]
) -> str | None:
    """Make a view of what was held after a plan: its snapshot, or the base of the plan that followed."""
    view = f"after_{_sql_name(plan_id)}"
    name = f"snapshots/{snapshots[plan_id]}" if plan_id in snapshots else None
    if following and not name:
        with suppress(LedgerDamagedError):
            name = ledger.read_draft(following).base
    return view if name and space.load(view, ledger.path(name)) else None


def _newest_snapshot(space: Space, ledger: TargetLedger, snapshots: Mapping[str, str]) -> str | None:
    for plan_id, name in sorted(snapshots.items(), reverse=True):
        view = f"snapshot_{_sql_name(plan_id)}"
        if space.load(view, ledger.path(f"snapshots/{name}")):
            return view
    return None


def _load_what_is_left(space: Space, ledger: TargetLedger, first: int) -> list[str | None]:
    """Make views of whom plans may have added that are pruned by now; None where nothing tells.

    :param first: the entry that the log begins with.
    """
    try:
        entry = ledger.entry(first)
    except LedgerDamagedError:
        return [None]
    if isinstance(entry, Abandon):
        return [None]
    state = entry.base if isinstance(entry, Plan) else entry.snapshot
    names = [name for name in (state, entry.memory.carried.get("unsure")) if name]
    views = [f"before_{number}" for number, _ in enumerate(names)]
    return [
        view if space.load(view, ledger.path(name)) else None for view, name in zip(views, names, strict=True)
    ]


def _places_without_trace(
    ledger: TargetLedger,
    places: range,
    entries: Sequence[Entry],
    plans: Sequence[str],
    snapshots: Mapping[str, str],
) -> int:
    """Count the places of the log of which nothing is left: each may have been a plan's."""
    known = {entry.number for entry in entries} | ledger.abandoned_numbers()
    known |= {int(plan_id[:8]) for plan_id in plans}
    known |= {int(plan_id[:8]) + 1 for plan_id in snapshots}  # the commit that made it
    return len(set(places) - known)


def _names(folder: Path) -> list[str]:
    return [path.name for path, _ in storage.listed(folder)]


def _sql_name(plan_id: str) -> str:
    return plan_id.replace("-", "_")
