"""The matching rule as one SQL query, in terms that every engine has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_heapbraze.membership.identity import ROLES
from airflow_provider_heapbraze.membership.values import MOST_BYTES

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from airflow_provider_heapbraze.membership.values import Reading

CANDIDATES = tuple(role for role in ROLES if role != "identified")


def rule(members: str, cells: Mapping[str, str], readings: Mapping[str, Reading]) -> str:
    """Return the query that gives every member one identifier, or the reason why it has none.

    Its columns: ``row``; ``kind`` and ``value``, with the alias and the device id that the
    member has beside (``other_alias``, ``other_device_id``); or else ``reason``, with the value as it came
    for every role. It needs the functions of :mod:`.values`.

    :param members: query that gives the members, and their number as ``row``.
    :param cells: the column of that query for every role that is mapped.
    :param readings: how the values of every such column are read.
    """
    values = ", ".join(_value(role, cells, readings) for role in ROLES)
    measured = ", ".join((*_as_they_are(), *map(_measured, CANDIDATES)))
    return f"""
        WITH valued AS (
            SELECT "row", {values} FROM ({members}) members
        ), measured AS (
            SELECT {measured} FROM valued
        ), known AS (
            SELECT measured.*, {_identified(cells)} AS is_identified FROM measured
        ), judged AS (
            SELECT known.*,
                CASE
                    WHEN {_usable("external_id")} THEN 'external_id'
                    WHEN NOT is_identified AND {_usable("device_id")} THEN 'device_id'
                    WHEN {_usable("alias_name")} THEN 'alias'
                END AS kind
            FROM known
        )
        SELECT "row", kind,
            CASE kind
                WHEN 'external_id' THEN external_id
                WHEN 'device_id' THEN device_id
                WHEN 'alias' THEN alias_name
            END AS "value",
            CASE WHEN kind <> 'alias' AND {_usable("alias_name")} THEN alias_name END AS other_alias,
            CASE WHEN kind <> 'device_id' AND {_usable("device_id")} THEN device_id END AS other_device_id,
            CASE WHEN kind IS NULL THEN coalesce(
                external_id_problem,
                CASE WHEN NOT is_identified THEN device_id_problem END,
                alias_name_problem,
                CASE WHEN is_identified THEN 'identified_without_id' ELSE 'blank' END
            ) END AS reason,
            {", ".join(f"CASE WHEN kind IS NULL THEN {role}_raw END AS {role}" for role in ROLES)}
        FROM judged
    """


def _as_they_are() -> list[str]:
    """Return the columns that measuring leaves as they are."""
    texts = [column for role in ROLES for column in (f"{role}_raw", role)]
    return ['"row"', *texts, "identified_problem"]


def _value(role: str, cells: Mapping[str, str], readings: Mapping[str, Reading]) -> str:
    """Give a role's value as it came, its text (NULL where blank) and its problem (NULL where none)."""
    if role not in cells:
        return ", ".join(f"CAST(NULL AS VARCHAR) AS {role}{part}" for part in ("_raw", "", "_problem"))
    cell = cells[role]
    read = readings[cell]
    return (
        f"{read.raw.format(cell)} AS {role}_raw, nullif(trimmed({read.text.format(cell)}), '') AS {role}, "
        f"{read.problem.format(cell)} AS {role}_problem"
    )


def _measured(role: str) -> str:
    too_long = f"CASE WHEN size_in_bytes({role}) > {MOST_BYTES} THEN 'too_long' END"
    return f"coalesce({role}_problem, {too_long}) AS {role}_problem"


def _identified(cells: Collection[str]) -> str:
    """Tell whether a row is an identified user; see :class:`.matching.IdentityMapping`."""
    if "identified" in cells:
        return "(coalesce(identified_problem IN ('nested', 'not_text'), false) OR says_yes(identified))"
    role = "external_id" if "external_id" in cells else "alias_name"
    return f"coalesce({role}_problem <> 'not_finite', {role} IS NOT NULL)"


def _usable(role: str) -> str:
    return f"{role} IS NOT NULL AND {role}_problem IS NULL"
