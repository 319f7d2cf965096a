"""The matching rule as one SQL query, made for the types that the columns of a source have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_heapbraze.membership.identity import ROLES
from airflow_provider_heapbraze.membership.values import MOST_BYTES, reading

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

CANDIDATES = tuple(role for role in ROLES if role != "identified")


def rule(members: str, cells: Mapping[str, str], types: Mapping[str, str], *, rows_before: int) -> str:
    """Return the query that gives every member one identifier, or the reason why it has none.

    Its columns: ``row``, counted from 1; ``kind`` and ``value``, with the alias and the device id that the
    member has beside (``other_alias``, ``other_device_id``); or else ``reason``, with the value as it came
    for every role. It needs the macros of :mod:`.values`.

    :param members: query that gives the members.
    :param cells: the column of that query for every role that is mapped.
    :param types: DuckDB's name of the type of every such column.
    :param rows_before: how many members came before these.
    """
    return f"""
        WITH member AS (
            SELECT row_number() OVER () + {rows_before} AS "row", * FROM ({members})
        ), value AS (
            SELECT "row", {", ".join(_value(role, cells, types) for role in ROLES)} FROM member
        ), measured AS (
            SELECT * REPLACE ({", ".join(map(_measured, CANDIDATES))}) FROM value
        ), known AS (
            SELECT *, {_identified(cells)} AS is_identified FROM measured
        )
        SELECT "row",
            CASE
                WHEN {_usable("external_id")} THEN 'external_id'
                WHEN NOT is_identified AND {_usable("device_id")} THEN 'device_id'
                WHEN {_usable("alias_name")} THEN 'alias'
            END AS kind,
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
        FROM known
    """


def _value(role: str, cells: Mapping[str, str], types: Mapping[str, str]) -> str:
    """Give a role's value as it came, its text (NULL where blank) and its problem (NULL where none)."""
    if role not in cells:
        return ", ".join(f"NULL::VARCHAR AS {role}{part}" for part in ("_raw", "", "_problem"))
    cell = cells[role]
    read = reading(types[cell])
    return (
        f"{read.raw.format(cell)} AS {role}_raw, nullif(trimmed({read.text.format(cell)}), '') AS {role}, "
        f"{read.problem.format(cell)} AS {role}_problem"
    )


def _measured(role: str) -> str:
    too_long = f"CASE WHEN strlen({role}) > {MOST_BYTES} THEN 'too_long' END"
    return f"coalesce({role}_problem, {too_long}) AS {role}_problem"


def _identified(cells: Collection[str]) -> str:
    """Tell whether a row is an identified user; see :class:`.matching.IdentityMapping`."""
    if "identified" in cells:
        return "(coalesce(identified_problem IN ('nested', 'not_text'), false) OR says_yes(identified))"
    role = "external_id" if "external_id" in cells else "alias_name"
    return f"coalesce({role}_problem <> 'not_finite', {role} IS NOT NULL)"


def _usable(role: str) -> str:
    return f"{role} IS NOT NULL AND {role}_problem IS NULL"
