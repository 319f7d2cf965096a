"""The matching rule on members that are in the warehouse already."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from airflow_provider_heapbraze.clients.errors import ConfigurationError
from airflow_provider_heapbraze.membership.files import column_place
from airflow_provider_heapbraze.membership.members import SqlMembers
from airflow_provider_heapbraze.membership.values import IN_A_WAREHOUSE

if TYPE_CHECKING:
    from sqlglot import exp

    from airflow_provider_heapbraze.membership.identity import Matcher
    from airflow_provider_heapbraze.membership.members import Members
    from airflow_provider_heapbraze.membership.values import Reading
    from airflow_provider_heapbraze.membership.warehouse import WarehouseSpace

QUERY = "The query of SqlMembers"


def rule_in_warehouse(space: WarehouseSpace, members: Members, matcher: Matcher) -> tuple[int, datetime]:
    """Make the table ``ruled``: every member with its identifier or its reason; return how many, and of when.

    :raises ConfigurationError: the members are elsewhere, or a column is of a type whose text differs between
        databases.
    """
    if not isinstance(members, SqlMembers) or members.conn_id != space.engine:
        raise ConfigurationError(
            f"engine={space.engine!r} matches members that are there already: give members="
            f"SqlMembers(conn_id={space.engine!r}, sql=…), or leave engine out. Nothing was sent."
        )
    asked_at = datetime.now(UTC)
    columns = matcher.columns()
    wanted = list(dict.fromkeys(columns.values()))
    there = space.columns(members.sql)
    space.members("member", members.sql, [there[column_place(name, there, QUERY)] for name in wanted])
    cells = {role: f"c{wanted.index(name)}" for role, name in columns.items()}
    types = space.types("member")
    readings = {f"c{i}": _reading(types.get(f"c{i}"), name) for i, name in enumerate(wanted)}
    numbered = f'SELECT CAST(NULL AS BIGINT) AS "row", {", ".join(readings)} FROM member'
    space.table("ruled", matcher.rule(numbered, cells, readings))
    return space.count("ruled"), asked_at


def _reading(found: exp.DataType | None, column: str) -> Reading:
    """Return how a column is read.

    :param found: its type; None where that is none of SQL's.
    """
    from sqlglot import exp

    found = found or exp.DataType(this=exp.DataType.Type.UNKNOWN)
    kinds = exp.DataType.Type
    if found.is_type(*exp.DataType.TEXT_TYPES, kinds.UUID):
        return IN_A_WAREHOUSE["text"]
    if found.is_type(*exp.DataType.INTEGER_TYPES) or _is_whole(found):
        return IN_A_WAREHOUSE["whole number"]
    if found.is_type(kinds.BOOLEAN):
        return IN_A_WAREHOUSE["true or false"]
    raise ConfigurationError(
        f"Column {column} of the members' query has the type {found.sql()}, whose text differs between "
        "databases. Nothing was sent. Cast it to text, or to a whole number, in the query."
    )


def _is_whole(found: exp.DataType) -> bool:
    """Tell whether a decimal type has no digits after the point."""
    from sqlglot import exp

    scales = [size.name for size in found.expressions]
    return found.is_type(exp.DataType.Type.DECIMAL) and bool(scales) and scales[1:] in (["0"], [])
