"""The user's query: what it reads, what it may not do, and its result."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_heapbraze.clients.errors import ConfigurationError
from airflow_provider_heapbraze.membership.files import column_place
from airflow_provider_heapbraze.membership.tables import literal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from airflow_provider_heapbraze.membership.tables import Workspace

SOURCE = "The query of HeapConnectMembers"
# They make rows of values; all the others read files, settings or SQL that is not looked at.
TABLE_FUNCTIONS = {"generate_series", "range", "unnest"}
# What these give depends on columns that they do not name, of tables that are not looked for.
OF_ALL_COLUMNS = {"POSITIONAL_REFERENCE", "PIVOT", "SHOW_REF"}


@dataclass(frozen=True)
class Reads:
    """What a query reads, as far as its text tells; names are in lower case.

    :param tables: that must be there.
    :param perhaps: names of the query's own ``WITH`` that may be tables, too.
    :param columns: every name in the query, whatever it names, of whatever table.
    :param whole: tables of which it may need all columns.
    """

    tables: frozenset[str]
    perhaps: frozenset[str]
    columns: frozenset[str]
    whole: frozenset[str]

    def names(self, table: str, column: str) -> bool:
        """Tell whether the query names a table, and a column of it; both names are in lower case."""
        return table in self.tables | self.perhaps and (table in self.whole or column in self.columns)


def examine(space: Workspace, sql: str) -> Reads:
    """Find out what a query reads.

    :raises ConfigurationError: it is not one ``SELECT`` over tables.
    """
    tree = _parsed(space, sql)
    nodes = list(_nodes(tree))
    functions = {
        node["function"]["function_name"].lower() for node in nodes if node.get("type") == "TABLE_FUNCTION"
    }
    refused = sorted(functions - TABLE_FUNCTIONS)
    if refused:
        raise ConfigurationError(
            f"{SOURCE} calls {', '.join(refused)}: it may read nothing but the dumps' tables. Nothing was "
            "sent. Mend the query."
        )
    bases = [node for node in nodes if node.get("type") == "BASE_TABLE"]
    tables = {node["table_name"].lower() for node in bases}
    own = {entry["key"].lower() for node in nodes for entry in node.get("cte_map", {}).get("map", ())}
    rows = tables | {node["alias"].lower() for node in bases}
    whole = tables if any(_needs_all(node, rows) for node in nodes) else _whole(tree, tables, [])
    return Reads(frozenset(tables - own), frozenset(tables & own), frozenset(_texts(nodes)), frozenset(whole))


def run(space: Workspace, sql: str, columns: Sequence[str], target: Path, hint: str) -> int:
    """Write the columns of a query's rows to Parquet, as ``c0``, ``c1`` and so on; return how many rows.

    From then on the connection reads and writes only in the folders of the workspace and of the target.

    :param hint: what there is, for the message about a name that is wrong.
    :raises ConfigurationError: it is wrong, fails, or lacks a column.
    """
    import duckdb

    folders = f"[{literal(space.folder)}, {literal(target.parent)}]"
    space.sql(f"SET allowed_directories = {folders}")
    space.sql("SET enable_external_access = false")
    space.sql("SET lock_configuration = true")
    try:
        # Only the statement, as DuckDB reads it: without a semicolon or what follows it.
        relation = space.connection.sql(space.ask(f"SELECT json_deserialize_sql({_serialized(sql)})")[0][0])
        places = [column_place(column, relation.columns, SOURCE) for column in columns]
        cells = ", ".join(f"#{place + 1} AS c{i}" for i, place in enumerate(places))
        relation.project(cells).write_parquet(str(target), compression="zstd")
        return space.count(f"read_parquet({literal(target)})")
    except (duckdb.OutOfMemoryException, duckdb.InternalException):
        raise
    except (duckdb.BinderException, duckdb.CatalogException, duckdb.ParserException) as error:
        what = f"is wrong. DuckDB says: {error}\n{hint}\nNothing was sent. Mend the query."
    except duckdb.PermissionException:
        what = "may read nothing but the dumps' tables. Nothing was sent. Mend the query."
    except duckdb.Error as error:
        if "No space left" in str(error):
            raise
        what = (
            "fails on a value that it reads; TRY_CAST gives NULL where CAST fails. Nothing was sent. The "
            "value is not shown: it may be a member's."
        )
    raise ConfigurationError(f"{SOURCE} {what}")


def _serialized(sql: str) -> str:
    return f"json_serialize_sql({literal(sql)})"


def _parsed(space: Workspace, sql: str) -> Any:
    import duckdb

    try:
        statements = space.connection.extract_statements(sql)
    except duckdb.Error as error:
        statements, problem = [], f" DuckDB says: {error}\n"  # about the text alone: nothing has been read
    else:
        problem = ""
        if len(statements) == 1 and statements[0].type == duckdb.StatementType.SELECT:
            parsed = json.loads(space.ask(f"SELECT {_serialized(sql)}")[0][0])
            if not parsed["error"]:
                return parsed
    raise ConfigurationError(
        f"{SOURCE} must be one SELECT over the dumps' tables.{problem} Nothing was sent. Mend the query."
    )


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    if isinstance(tree, dict):
        if tree.get("subquery_type") == "EXISTS":
            tree = {**tree, "subquery": _of_any_row(tree["subquery"])}
        yield tree
    for value in tree.values() if isinstance(tree, dict) else tree:
        if isinstance(value, (dict, list)):
            yield from _nodes(value)


def _of_any_row(subquery: Any) -> Any:
    """Leave out what a subquery selects, where only the number of its rows counts: it may be a star."""
    node = subquery["node"]
    return {**subquery, "node": {**node, "select_list": []}} if node["type"] == "SELECT_NODE" else subquery


def _needs_all(node: dict[str, Any], rows: set[str]) -> bool:
    """Tell whether a node depends on columns that it does not name."""
    if node.get("class") == "COLUMN_REF" and len(node["column_names"]) == 1:
        return node["column_names"][0].lower() in rows  # a whole row as a value
    return (
        str(node.get("type")) in OF_ALL_COLUMNS  # of a sample it is no text
        or node.get("ref_type") == "NATURAL"
        or bool(node.get("column_name_alias"))
    )


def _whole(tree: Any, tables: set[str], around: list[dict[str, Any]]) -> set[str]:
    """Return the tables that a star stands for.

    :param tables: that the query names; all of them are returned for a star that is not understood.
    :param around: what the innermost ``SELECT`` selects from, without its subqueries: they have their own.
    """
    if not isinstance(tree, (dict, list)):
        return set()
    if isinstance(tree, list):
        return set().union(*(_whole(value, tables, around) for value in tree))
    if tree.get("subquery_type") == "EXISTS":
        tree = {**tree, "subquery": _of_any_row(tree["subquery"])}
    kind = str(tree.get("type"))
    if kind.endswith("_NODE"):
        around = list(_sources(tree["from_table"])) if kind == "SELECT_NODE" else []
    found = _of_star(tree, tables, around) if kind == "STAR" else set()
    return found.union(*(_whole(value, tables, around) for value in tree.values()))


def _sources(source: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if source["type"] == "JOIN":
        yield from _sources(source["left"])
        yield from _sources(source["right"])
    else:
        yield source


def _of_star(star: dict[str, Any], tables: set[str], around: list[dict[str, Any]]) -> set[str]:
    relation = star["relation_name"].lower()
    meant = [source for source in around if relation in {"", _name(source)}]
    if not meant:  # of an outer SELECT, of a value, or of rows that are sorted or put together
        return tables
    return {source["table_name"].lower() for source in meant if source["type"] == "BASE_TABLE"}


def _name(source: dict[str, Any]) -> str:
    """Return what a query calls a table or a subquery of its own."""
    return str(source["alias"] or source.get("table_name", "")).lower()


def _texts(nodes: Sequence[dict[str, Any]]) -> Iterator[str]:
    for node in nodes:
        for value in node.values():
            texts = value if isinstance(value, list) else [value]
            yield from (text.lower() for text in texts if isinstance(text, str))
