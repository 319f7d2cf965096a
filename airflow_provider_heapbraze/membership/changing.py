"""The table ``change`` while a plan is made: who is added, and who is removed.

It is made anew only where there is something to change: it may have as many rows as there are people.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_heapbraze.membership.holding import KEY, OF_A, ON_KEY

if TYPE_CHECKING:
    from airflow_provider_heapbraze.membership.space import Space

# `again` is for removals that repeat one.
CHANGE = f"{KEY}, remove, again"


def add(space: Space, query: str) -> None:
    """Put rows into ``change``.

    :param query: for them, with the columns of ``change``; nobody is in it already.
    """
    space.table("added", query)
    if space.count("added"):
        space.table("change", f"SELECT {CHANGE} FROM change UNION ALL SELECT {CHANGE} FROM added")


def take_out(space: Space, query: str) -> None:
    """Take removals out of ``change``.

    :param query: for whom they remove.
    """
    space.table("taken_out", query)
    if space.count("taken_out"):
        space.table(
            "change",
            f"SELECT {CHANGE} FROM change WHERE NOT remove UNION ALL "
            f"SELECT {OF_A}, a.remove, a.again FROM (SELECT {CHANGE} FROM change WHERE remove) a "
            f"ANTI JOIN taken_out b ON {ON_KEY}",
        )
