"""Leavers who may be back tomorrow: they are removed only after they were absent for a while."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from airflow_provider_heapbraze.membership.carried import load_carried
from airflow_provider_heapbraze.membership.changing import take_out
from airflow_provider_heapbraze.membership.holding import KEY, NOBODY, OF_A, ON_KEY, SURELY_HELD
from airflow_provider_heapbraze.membership.tables import literal

if TYPE_CHECKING:
    from airflow_provider_heapbraze.membership.entries import Entry
    from airflow_provider_heapbraze.membership.ledger import TargetLedger
    from airflow_provider_heapbraze.membership.space import Space

LEAVING = f"{KEY}, since, runs, seen_in"
A_LONG_TIME = 24 * 365 * 100  # hours; whoever gives more means never
NOBODY_LEAVES = f"SELECT {KEY}, '' AS since, 0 AS runs, '' AS seen_in FROM ({NOBODY}) a"


@dataclass(frozen=True)
class Damping:
    """How long somebody must be absent from the segment before the other side is told.

    :param runs: in how many runs in a row; 1 removes at once.
    :param hours: for how many hours, by the times that runs are for.
    """

    runs: int = 1
    hours: float = 0

    def __bool__(self) -> bool:
        return self.runs > 1 or self.hours > 0


def keep_leavers(space: Space, ledger: TargetLedger, last: Entry | None, as_of: str, damping: Damping) -> int:
    """Take those out of the table ``change`` who have not been absent long enough; return how many.

    They stay held, and are in the table ``leaving``. A run that makes its plan anew counts once.

    :raises LedgerDamagedError: the last plan's leavers cannot be read.
    """
    if not damping:
        space.view("leaving", NOBODY_LEAVES)
        return 0
    load_carried(space, ledger, last, "leaving", NOBODY_LEAVES)
    now = datetime.fromisoformat(as_of)
    here = _sortable(now)
    space.table(
        "leaving",
        f"SELECT {OF_A}, coalesce(b.since, {here}) AS since, "
        f"coalesce(b.runs, 0) + CASE WHEN b.seen_in = {here} THEN 0 ELSE 1 END AS runs, {here} AS seen_in "
        f"FROM (SELECT {KEY} FROM change a WHERE remove AND {SURELY_HELD}) a "
        f"LEFT JOIN leaving_before b ON {ON_KEY}",
    )
    long_ago = _sortable(now - timedelta(hours=min(damping.hours, A_LONG_TIME)))
    _take_out_who_goes(space, f"(a.runs >= {damping.runs} AND a.since <= {long_ago})")
    take_out(space, f"SELECT {KEY} FROM leaving")
    return space.count("leaving")


def _take_out_who_goes(space: Space, due: str) -> None:
    """Take out of ``leaving`` who goes now: with all the identifiers of one person, when the last is due.

    Where one of them is removed at once, the person is gone.
    """
    space.table(
        "to_go",
        f"SELECT {OF_A}, b.runs, b.since FROM (SELECT {KEY} FROM change WHERE remove) a "
        f"LEFT JOIN leaving b ON {ON_KEY}",
    )
    owner = ", ".join(f"coalesce(b.of_{name}, a.{name})" for name in ("kind", "value", "label"))
    space.table(
        "going",
        f"SELECT {KEY} FROM (SELECT {OF_A}, "
        f"max(CASE WHEN a.runs IS NULL THEN 1 ELSE 0 END) OVER (PARTITION BY {owner}) AS at_once, "
        f"min(CASE WHEN {due} THEN 1 ELSE 0 END) OVER (PARTITION BY {owner}) AS all_due "
        f"FROM to_go a LEFT JOIN known_links b ON {ON_KEY}) a WHERE at_once = 1 OR all_due = 1",
    )
    stay = ", ".join(f"a.{name}" for name in LEAVING.split(", "))
    space.table("leaving", f"SELECT {stay} FROM leaving a ANTI JOIN going b ON {ON_KEY}")


def _sortable(moment: datetime) -> str:
    """Return a time as text in SQL, which orders as times do."""
    return literal((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC).isoformat())
