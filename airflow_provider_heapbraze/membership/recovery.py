"""Go on from a damaged ledger: everybody whom we ever added, as far as anything still says so.

What is held is not known then. Everybody who is wanted is asserted, and everybody else whom a plan of ours
may have added is removed: so the other side is exact again, and nobody is removed whom we had not added.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_heapbraze import storage
from airflow_provider_heapbraze.ledger_folder import LedgerDamagedError
from airflow_provider_heapbraze.membership.holding import KEY, NOBODY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_heapbraze.membership.ledger import TargetLedger
    from airflow_provider_heapbraze.membership.tables import Workspace

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Found:
    """What is left of a damaged ledger.

    :param plans: how many plans were begun.
    :param lost: of how many of them nothing tells any more whom they added.
    """

    plans: int
    lost: int


def load_whatever_is_known(space: Workspace, ledger: TargetLedger) -> Found:
    """Make ``held`` (nobody, surely), ``unanswered`` (whom we ever added) and ``may_be_held``.

    The last is what guards compare with: the newest snapshot that can be read, or else whom we ever added.
    """
    begun = ledger.begun_plans()
    views = [_load_added(space, ledger, number, plan_id) for number, plan_id in enumerate(begun)]
    added = [f"SELECT {KEY} FROM {view}" for view in views if view]
    space.sql(f"CREATE VIEW held AS {NOBODY}")
    space.sql(f"CREATE TABLE unanswered AS SELECT DISTINCT * FROM ({' UNION ALL '.join([NOBODY, *added])})")
    newest = next((view for view in _snapshots(space, ledger) if view), None)
    space.sql(f"CREATE VIEW may_be_held AS SELECT {KEY} FROM {newest or 'unanswered'}")
    found = Found(len(begun), views.count(None))
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


def _load_added(space: Workspace, ledger: TargetLedger, number: int, plan_id: str) -> str | None:
    """Make a view of whom a plan added: by itself, or by the snapshot after it."""
    view = f"added_{number}"
    expected = ""
    with suppress(LedgerDamagedError):
        expected = ledger.read_draft(plan_id).digest
    if space.load(f"plan_{number}", ledger.path(f"plans/{plan_id}/changes.parquet"), expected=expected):
        space.sql(f"CREATE VIEW {view} AS SELECT {KEY} FROM plan_{number} WHERE NOT remove")
        return view
    after = (name for name in _snapshot_names(ledger) if name.startswith(plan_id))
    loaded = (
        f"{view}_{place}"
        for place, name in enumerate(after)
        if space.load(f"{view}_{place}", ledger.path(f"snapshots/{name}"))
    )
    return next(loaded, None)


def _snapshots(space: Workspace, ledger: TargetLedger) -> Iterator[str | None]:
    """Make views of the snapshots, the newest first; None where one cannot be read."""
    for place, name in enumerate(sorted(_snapshot_names(ledger), reverse=True)):
        view = f"snapshot_{place}"
        yield view if space.load(view, ledger.path(f"snapshots/{name}")) else None


def _snapshot_names(ledger: TargetLedger) -> list[str]:
    return [path.name for path, _ in storage.listed(ledger.path("snapshots"))]
