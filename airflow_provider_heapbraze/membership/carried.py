"""Tables that a plan carries on to the next one.

They say who is leaving, which identifiers are of one person, and of whom a change had no answer before.

Each is a file beside the plan, and its digest is in the plan's :class:`.entries.Memory`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_heapbraze import storage
from airflow_provider_heapbraze.membership.tables import digest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_heapbraze.membership.entries import Entry
    from airflow_provider_heapbraze.membership.ledger import TargetLedger
    from airflow_provider_heapbraze.membership.tables import Workspace


def load_carried(space: Workspace, ledger: TargetLedger, last: Entry | None, name: str, empty: str) -> None:
    """Make the view ``<name>_before`` of what the last plan carries on.

    :param empty: query with the same columns and no row, for where there is nothing.
    :raises LedgerDamagedError: the file cannot be read.
    """
    view = f"{name}_before"
    expected = last.memory.carried.get(name) if last else None
    if last is None or expected is None:
        space.sql(f"CREATE VIEW {view} AS {empty}")
        return
    file = carried_file(last.plan_id, name)
    if not space.load(view, ledger.path(file), expected=expected):
        raise ledger.not_as_logged(file)


def write_carried(
    space: Workspace, ledger: TargetLedger, plan_id: str, names: Sequence[str]
) -> dict[str, str]:
    """Write tables down beside a plan, but for those that are empty.

    :returns: the digests of the files by their names, for the plan's memory.
    """
    digests = {}
    for name in names:
        if space.count(name):
            file = space.folder / f"{name}.parquet"
            space.write(f"SELECT * FROM {name}", file)
            storage.write_whole(ledger.path(carried_file(plan_id, name)), file)
            digests[name] = digest(file)
    return digests


def carried_file(plan_id: str, name: str) -> str:
    """Return the file of a table that a plan carries on."""
    return f"plans/{plan_id}/{name}.parquet"
