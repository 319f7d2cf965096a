"""The query that reads a segment out of the tables that Heap Connect keeps in a warehouse."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from airflow_provider_heapbraze.clients.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_NAME_WITH_DASHES = re.compile(r"[A-Za-z_][\w-]*", re.ASCII)


def heap_segment_query(
    segment_table: str,
    schema: str = "main_production",
    user_column: str = "user_id",
    columns: Sequence[str] = ("identity",),
) -> str:
    """Return SQL that gives the users of a segment that Heap syncs as a table, each once.

    For :class:`SqlMembers`, on Redshift, Snowflake, BigQuery, Databricks and Postgres. Heap's ``users`` can
    hold a user more than once: the row with the newest ``last_modified`` counts; of several such rows, the
    one with the greatest values, so that the same tables give the same members. Nothing is created.

    :param segment_table: the segment's table; with dots in it where it is in another schema than ``users``.
    :param schema: Heap's schema; with its database, catalog or project before it where that is needed.
    :param user_column: the column of the segment's table that holds Heap's ``user_id``.
    :param columns: the columns of ``users`` to give: those that ``IdentityMapping`` names, of simple types.
    :raises ConfigurationError: a name is none; nothing is quoted that could end the name.
    """
    if isinstance(columns, str) or not columns:
        raise ConfigurationError("columns of heap_segment_query must be a list of names. Nothing was sent.")
    segment = _path(segment_table if "." in segment_table else f"{schema}.{segment_table}")
    user = _name(user_column)
    # With a table's name before it, a column may be called by a word that the warehouse keeps for itself.
    given = [f"u.{_name(column)}" for column in columns]
    # Where a null goes in an order is not the same everywhere.
    order = ", ".join(
        f"CASE WHEN {column} IS NULL THEN 1 ELSE 0 END, {column} DESC"
        for column in dict.fromkeys(["u.last_modified", *given])
    )
    return f"""\
SELECT {", ".join(given)}
FROM (
  SELECT {", ".join(given)}, ROW_NUMBER() OVER (PARTITION BY u.user_id ORDER BY {order}) AS newest
  FROM {_path(f"{schema}.users")} u
  WHERE u.user_id IN (SELECT s.{user} FROM {segment} s)
) u
WHERE u.newest = 1"""


def _path(path: str) -> str:
    """Return the path of a table as SQL. Only BigQuery and Databricks have dashes in names, and backticks."""
    parts = path.split(".")
    if len(parts) not in {2, 3}:
        raise _no_name(path)
    return ".".join(
        part if _NAME.fullmatch(part) else f"`{_name(part, _NAME_WITH_DASHES)}`" for part in parts
    )


def _name(name: str, allowed: re.Pattern[str] = _NAME) -> str:
    if not allowed.fullmatch(name):
        raise _no_name(name)
    return name


def _no_name(name: str) -> ConfigurationError:
    return ConfigurationError(
        f"heap_segment_query takes names of letters, digits and underscores, not {name!r}. Nothing was sent. "
        "Write the SQL of SqlMembers yourself where a name needs more."
    )
