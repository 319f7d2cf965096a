"""Leavers who may be back tomorrow: they are removed only after they were absent for a while."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_heapbraze.membership.carried import load_carried
from airflow_provider_heapbraze.membership.holding import KEY, NOBODY, ON_KEY, SURELY_HELD
from airflow_provider_heapbraze.membership.tables import literal

if TYPE_CHECKING:
    from airflow_provider_heapbraze.membership.entries import Entry
    from airflow_provider_heapbraze.membership.ledger import TargetLedger
    from airflow_provider_heapbraze.membership.tables import Workspace

NOBODY_LEAVES = f"SELECT *, '' AS since, 0 AS runs, '' AS seen_in FROM ({NOBODY})"


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


def keep_leavers(
    space: Workspace, ledger: TargetLedger, last: Entry | None, as_of: str, damping: Damping
) -> int:
    """Take those out of the table ``change`` who have not been absent long enough; return how many.

    They stay held, and are in the table ``leaving``. A run that makes its plan anew counts once.

    :raises LedgerDamagedError: the last plan's leavers cannot be read.
    """
    if not damping:
        space.sql(f"CREATE VIEW leaving AS {NOBODY_LEAVES}")
        return 0
    load_carried(space, ledger, last, "leaving", NOBODY_LEAVES)
    here = literal(as_of)
    space.sql(
        "CREATE TABLE leaving AS "
        f"SELECT a.kind, a.value, a.label, coalesce(b.since, {here}) AS since, "
        f"coalesce(b.runs, 0) + coalesce(b.seen_in <> {here}, true)::INTEGER AS runs, {here} AS seen_in "
        f"FROM (SELECT * FROM change a WHERE remove AND {SURELY_HELD}) a "
        f"LEFT JOIN leaving_before b ON {ON_KEY}"
    )
    hours = f"epoch({here}::TIMESTAMPTZ - since::TIMESTAMPTZ) / 3600"
    _take_out_who_goes(space, f"runs >= {damping.runs} AND {hours} >= {damping.hours}")
    space.sql(f"DELETE FROM change a WHERE remove AND EXISTS (SELECT 1 FROM leaving b WHERE {ON_KEY})")
    return space.count("leaving")


def _take_out_who_goes(space: Workspace, due: str) -> None:
    """Take out of ``leaving`` who goes now: with all the identifiers of one person, when the last is due.

    Where one of them is removed at once, the person is gone.
    """
    owner = ", ".join(f"coalesce(b.of_{name}, a.{name})" for name in ("kind", "value", "label"))
    space.sql(
        "CREATE TABLE going AS SELECT kind, value, label FROM (SELECT a.kind, a.value, a.label, "
        f"bool_or(runs IS NULL) OVER person OR bool_and({due}) OVER person AS goes "
        f"FROM (SELECT * FROM change LEFT JOIN leaving USING ({KEY}) WHERE remove) a "
        f"LEFT JOIN known_links b ON {ON_KEY} WINDOW person AS (PARTITION BY {owner})) WHERE goes"
    )
    space.sql(f"DELETE FROM leaving a WHERE EXISTS (SELECT 1 FROM going b WHERE {ON_KEY})")
