"""The table ``change`` while a plan is made: who is added, and who is removed.

It is made anew only where there is something to change: it may have as many rows as there are people.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_heapbraze.membership.holding import KEY, OF_A, ON_KEY
from airflow_provider_heapbraze.membership.identity import WITHOUT_LABEL
from airflow_provider_heapbraze.membership.tables import literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_heapbraze.membership.reassertion import Slice
    from airflow_provider_heapbraze.membership.space import Space

# `again` is for removals that repeat one.
CHANGE = f"{KEY}, remove, again"


def differences(kinds: Sequence[str], slice_: Slice) -> str:
    """Return the query for ``change``: whom only ``wanted`` has, whom only ``held`` has, and a slice of both.

    A join keeps one side in memory. Kinds without labels are joined one by one, by their values: so nothing
    else is kept there.

    :param kinds: those that can be wanted; somebody may be held by others.
    """
    alone = [kind for kind in kinds if kind in WITHOUT_LABEL]
    others = f"kind NOT IN ({quoted(alone)})" if alone else "true"
    again = slice_.holds("a.kind", "a.label", "a.value")
    queries = [
        (
            "SELECT coalesce(a.kind, b.kind) AS kind, coalesce(a.value, b.value) AS value, "
            "coalesce(a.label, b.label) AS label, a.kind IS NULL AS remove, false AS again "
            f"FROM (SELECT {KEY} FROM wanted WHERE {others}) a "
            f"FULL JOIN (SELECT {KEY} FROM held WHERE {others}) b ON {ON_KEY} "
            f"WHERE a.kind IS NULL OR b.kind IS NULL OR {again}"
        )
    ]
    for kind in map(literal, alone):
        again = slice_.holds(kind, "''", "a.value")
        queries.append(
            f"SELECT CAST({kind} AS VARCHAR) AS kind, coalesce(a.value, b.value) AS value, "
            "CAST('' AS VARCHAR) AS label, a.value IS NULL AS remove, false AS again "
            f"FROM (SELECT value FROM wanted WHERE kind = {kind}) a "
            f"FULL JOIN (SELECT value FROM held WHERE kind = {kind}) b ON a.value = b.value "
            f"WHERE a.value IS NULL OR b.value IS NULL OR {again}"
        )
    return " UNION ALL ".join(queries)


def quoted(kinds: Sequence[str]) -> str:
    """Return kinds of identifiers as they stand in SQL."""
    return ", ".join(map(literal, kinds))


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
