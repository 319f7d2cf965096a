"""Tables that a plan carries on to the next one.

They say who is leaving, which identifiers are of one person, and of whom a change had no answer before.

Each is a file beside the plan, whose name is in the plan's :class:`.entries.Memory`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_heapbraze.membership.space import keep

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_heapbraze.membership.entries import Entry
    from airflow_provider_heapbraze.membership.ledger import TargetLedger
    from airflow_provider_heapbraze.membership.space import Space


def load_carried(space: Space, ledger: TargetLedger, last: Entry | None, name: str, empty: str) -> None:
    """Make the view ``<name>_before`` of what the last plan carries on.

    :param empty: query with the same columns and no row, for where there is nothing.
    :raises LedgerDamagedError: the file cannot be read.
    """
    view = f"{name}_before"
    file = last.memory.carried.get(name) if last else None
    if file is None:
        space.view(view, empty)
    elif not space.load(view, ledger.path(file)):
        raise ledger.not_as_logged(file)


def write_carried(
    space: Space, ledger: TargetLedger, plan_id: str, tables: Mapping[str, str]
) -> dict[str, str]:
    """Write tables down beside a plan, but for those that are empty.

    :param tables: names, with their columns.
    :returns: the files by the tables' names, for the plan's memory.
    """
    folder = f"plans/{plan_id}"
    carried = {}
    for name, columns in tables.items():
        if space.count(name):
            space.stage(f"{name}_carried", f"SELECT {columns} FROM {name}")
            carried[name] = f"{folder}/{keep(space, f'{name}_carried', ledger.path(f'{folder}/{name}'))}"
    return carried
