"""Set work where the data is: in a warehouse, through an Airflow connection.

Tables of ours are made in the schema ``heapbraze``, and nothing is changed in place. Each has a name of its
own: what failed half-way, or runs at the same time, is in nobody's way. A view is a query that is written
where its name stands. Only changes come out.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol, cast
from uuid import uuid4

from airflow_provider_heapbraze import storage
from airflow_provider_heapbraze.clients.errors import ConfigurationError, HeapBrazeError
from airflow_provider_heapbraze.membership.dialects import SCHEMA, selected
from airflow_provider_heapbraze.membership.table_records import SUFFIX, TableRecord, read_record
from airflow_provider_heapbraze.membership.tables import digest_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    import pyarrow as pa
    from sqlglot import exp

    from airflow_provider_heapbraze.membership.dialects import Dialect
    from airflow_provider_heapbraze.membership.members import Chunk
    from airflow_provider_heapbraze.membership.tables import Workspace

log = logging.getLogger(__name__)

# What a task that was killed leaves is dropped by a later one.
LEFT_BEHIND_AFTER = timedelta(days=2)
# So many tables become one at a time: a statement that names thousands takes minutes.
PARTS_AT_ONCE = 50
_STAMP = "%Y%m%d%H%M%S"
_WORK = "work_"


class Database(Protocol):
    """A warehouse that statements can be given to.

    :param conn_id: the Airflow connection.
    """

    conn_id: str
    dialect: Dialect

    def run(self, sql: str) -> list[tuple[Any, ...]]:
        """Carry out a statement; return its rows, where it is a query."""

    def read(self, query: str) -> AbstractContextManager[tuple[list[str], Iterator[Chunk]]]:
        """Run a query; give its columns' names, and its rows in chunks."""


class WarehouseSpace:
    """Tables in the schema of ours; see :class:`.Space`.

    :param database: the warehouse.
    :param local: DuckDB, for what comes from the ledger and goes there.
    :param another: opens the same warehouse once more.
    """

    suffix = SUFFIX

    def __init__(
        self,
        database: Database,
        local: Workspace,
        another: Callable[[], AbstractContextManager[Database]],
    ) -> None:
        self.engine = database.conn_id
        self._another = another
        self.folder = local.folder
        self._database = database
        self._dialect = database.dialect
        self._local = local
        self._token = f"{datetime.now(UTC):{_STAMP}}_{uuid4().hex[:8]}"
        self._views: dict[str, exp.Query] = {}
        self._made: list[str] = []
        self._tables: dict[str, str] = {}
        self._staged: dict[str, TableRecord] = {}
        self._kept: set[str] = set()

    def prepare(self) -> None:
        """Make the schema where it is not there, and drop what was left behind in it.

        :raises ConfigurationError: it is not there, and the connection's user may not make it.
        """
        for statement in self._dialect.session:
            self._database.run(statement)
        if not self._schema_is_there():
            self._make_schema()
        oldest = f"{_WORK}{datetime.now(UTC) - LEFT_BEHIND_AFTER:{_STAMP}}"
        for row in self._database.run(self._dialect.tables):
            names = [str(cell) for cell in row if str(cell).startswith(_WORK)]
            if names and names[0] < oldest:
                with suppress(HeapBrazeError):  # it may be another user's
                    self._drop(names[0])

    def _make_schema(self) -> None:
        try:
            # Of its own: Snowflake's sessions go over to a schema that they make.
            with self._another() as database:
                database.run(f"CREATE SCHEMA IF NOT EXISTS {self._dialect.schema}")
        except ConfigurationError as error:
            if self._schema_is_there():
                return  # another task was first
            raise ConfigurationError(
                f"The schema {SCHEMA} is not in the database of connection {self.engine!r}, or its user has "
                "no right on it, and it cannot be made. Create it where it is not there, "
                "and let the connection's user use it and make tables in it, in Postgres with GRANT USAGE, "
                f"CREATE ON SCHEMA {SCHEMA}; then clear the task. What the warehouse said: {error}"
            ) from None

    def clear(self) -> None:
        """Drop every table that is not kept."""
        left = []
        for table in sorted(set(self._made) - self._kept):
            try:
                self._drop(table)
            except HeapBrazeError:
                left.append(table)
        if left:
            log.warning(
                "These tables of connection %s cannot be dropped now, and may hold members; drop them, and "
                "no others, from the schema %s: %s. (A task that works there drops those that begin with %s "
                "after two days.)",
                self.engine,
                SCHEMA,
                ", ".join(left),
                _WORK,
            )

    def table(self, name: str, query: str) -> None:
        """Make a table of a query's rows, or make it anew: the query may name the table that there is."""
        self._make(name, self._new(name), self._parsed(query))

    def members(self, name: str, query: str, columns: Sequence[str]) -> None:
        """Make a table of the rows of a query in the warehouse's own SQL.

        :param columns: of that query; they are called ``c0``, ``c1`` and so on, in this order.
        """
        from sqlglot import exp

        there = self._new(name)
        names = ", ".join(
            self._dialect.sql(exp.alias_(exp.column(column, quoted=True), f"c{number}", quoted=True))
            for number, column in enumerate(columns)
        )
        # On lines of their own, as the query may end with a comment.
        self._database.run(
            f"CREATE TABLE {self._quoted(there)}{self._format()} AS SELECT {names} FROM (\n"
            f"{_bare(query)}\n) heapbraze_members"
        )
        self._found(name, there, [f"c{number}" for number in range(len(columns))])

    def columns(self, query: str) -> list[str]:
        """Return the names of the columns of a query in the warehouse's own SQL."""
        with self._database.read(f"SELECT * FROM (\n{_bare(query)}\n) heapbraze_members WHERE 1 = 0") as (
            names,
            _,
        ):
            return names

    def types(self, name: str) -> dict[str, exp.DataType]:
        """Return the types of a table's columns, but for those that nobody knows."""
        from sqlglot import ParseError, exp

        types = {}
        for column, written, *more in self._database.run(self._dialect.columns.format(self._tables[name])):
            scale = more[0] if more and not isinstance(more[0], str) else None
            if not column or str(column).startswith("#"):
                break  # Spark tells of partitions after the columns
            try:
                found = exp.DataType.build(str(written), dialect=self._dialect.name)
            except ParseError:
                continue
            if scale == 0 and found.is_type(exp.DataType.Type.DECIMAL) and not found.expressions:
                found = exp.DataType.build("DECIMAL(38, 0)")
            types[str(column)] = found
        return types

    def view(self, name: str, query: str) -> None:
        """Remember a query by a name."""
        self._views[name] = self._parsed(query)

    def stage(self, name: str, query: str) -> None:
        """Make a table that is to be kept."""
        self._stage(name, self._parsed(query))

    def digest_of(self, name: str) -> str:
        """Return the digest of the file that stands for a staged table."""
        return self._staged[name].own_digest()

    def keep(self, name: str, path: Path) -> None:
        """Leave a staged table in the warehouse, and write into the ledger where it is."""
        record = self._staged[name]
        storage.write(path, record.written())
        self._kept.add(record.table)

    def publish(self, columns: str, table: str, order: str, path: Path) -> str:
        """Write a table's rows down as a file in the ledger, in an order; return the file's digest."""
        number = f"row_number() OVER (ORDER BY {order}) - 1 AS file_row_number"
        self._stage("published", self._parsed(f"SELECT {columns}, {number} FROM {table}"))
        record = self._staged["published"]
        self._local.download(self._database, record, "incoming")
        written = self._local.publish(columns, "incoming", "file_row_number", path)
        self._staged["published"] = replace(record, digest=written)
        self.keep("published", path.with_suffix(SUFFIX))
        return written

    def count(self, source: str) -> int:
        """Count the rows of ``SELECT … FROM source``."""
        return int(self.ask(f"SELECT count(*) AS found FROM {source}")[0][0])

    def ask(self, query: str) -> list[Any]:
        """Return the rows of a query that has few."""
        return self._database.run(self._dialect.sql(self._parsed(query)))

    def rows(self, table: str, schema: str, columns: Mapping[str, Sequence[Any]]) -> None:
        """Make a table of rows that are in memory."""
        rows = list(zip(*columns.values(), strict=True))
        most = self._dialect.rows_per_statement
        self._upload(table, schema, (rows[first : first + most] for first in range(0, len(rows), most)))

    def load(
        self,
        view: str,
        path: Path,
        *,
        rows: int | None = None,
        expected: str = "",
        every_row: bool = False,
    ) -> bool:
        """Make a view of a table in the ledger; what is there as a file is brought here."""
        if path.suffix == SUFFIX:
            record = read_record(path, expected or digest_in(path.name))
        else:
            record = read_record(path.with_suffix(SUFFIX))
            if record is not None and record.digest != expected:
                record = None
        if record is not None and record.engine == self.engine:
            whole = rows in {None, record.rows} and self._found_whole(view, record)
            if whole or path.suffix == SUFFIX:
                return whole
        brought = f"brought_{len(self._made)}"
        if not self._local.load(brought, path, rows=rows, expected=expected, every_row=every_row):
            return False
        self._bring(brought, view, path.name)
        return True

    def _schema_is_there(self) -> bool:
        try:
            return bool(self._database.run(self._dialect.schema_there))
        except ConfigurationError:
            return False

    def _stage(self, name: str, query: exp.Query) -> None:
        there = self._new(name, to_keep=True)
        columns = query.named_selects
        self._make(name, there, query)
        self._staged[name] = TableRecord(self.engine, there, columns, self.count(name))

    def _make(self, name: str, there: str, query: exp.Query) -> None:
        columns = query.named_selects
        written = self._dialect.sql(query)
        self._database.run(f"CREATE TABLE {self._quoted(there)}{self._format()} AS {written}")
        self._found(name, there, columns)

    def _new(self, name: str, *, to_keep: bool = False) -> str:
        """Return a name that no table has, or had."""
        mine = f"{self._token}_{len(self._made)}"
        self._made.append(f"{name}_{mine}" if to_keep else f"{_WORK}{mine}_{name}")
        return self._made[-1]

    def _found(self, name: str, there: str, columns: Sequence[str]) -> None:
        """Let a name stand for a table."""
        if self._dialect.examine:
            self._database.run(self._dialect.examine.format(self._quoted(there)))
        self._tables[name] = there
        self._views[name] = selected(there, columns)

    def _found_whole(self, view: str, record: TableRecord) -> bool:
        """Let a name stand for a table that was kept, if it is as it was."""
        self._views[view] = selected(record.table, record.columns)
        try:
            return self.count(view) == record.rows
        except ConfigurationError as error:
            log.warning("The table %s.%s cannot be read: %s", SCHEMA, record.table, error)
            return False

    def _bring(self, brought: str, view: str, name: str) -> None:
        """Make a table of one of DuckDB's."""
        described = self._local.ask(f"DESCRIBE SELECT * FROM {brought}")
        schema = ", ".join(f'"{column}" {column_type}' for column, column_type, *_ in described)
        found = self._local.count(brought)
        log.log(
            logging.WARNING if found > self._dialect.rows_per_statement else logging.INFO,
            "%s is in the ledger as a file: its %s rows are brought to connection %s.",
            name,
            f"{found:,}",
            self.engine,
        )
        batches = self._local.batches(f"SELECT * FROM {brought}")
        self._upload(view, schema, _some_at_a_time(batches, self._dialect.rows_per_statement))

    def _upload(self, name: str, schema: str, parts_of_rows: Iterable[Sequence[tuple[Any, ...]]]) -> None:
        """Make a table of rows, some at a time: a table for each part, and now and then one of them all."""
        from sqlglot import exp, parse_one

        declared = parse_one(f"CREATE TABLE t ({schema})", read="duckdb").this.expressions
        columns = ", ".join(f'"{column.name}"' for column in declared)
        names = [f"v{number}" for number in range(len(declared))]
        typed = [
            exp.alias_(exp.cast(exp.column(value), column.kind), column.name, quoted=True)
            for value, column in zip(names, declared, strict=True)
        ]
        parts: list[str] = []
        for rows in parts_of_rows:
            parts.append(f"{name}_part_{len(self._made)}")
            values = exp.values(rows, alias="given", columns=names)
            self._make(parts[-1], self._new(name), exp.select(*typed).from_(values))
            if len(parts) == PARTS_AT_ONCE:
                parts = [self._folded(name, columns, parts)]
        if parts:
            self._folded(name, columns, parts)
            return
        nobody = exp.values([(None,) * len(names)], alias="given", columns=names)
        self._make(name, self._new(name), exp.select(*typed).from_(nobody).where("false"))

    def _folded(self, name: str, columns: str, parts: Sequence[str]) -> str:
        """Make one table of several; return the name that stands for it."""
        if len(parts) > 1:
            self.table(name, " UNION ALL ".join(f"SELECT {columns} FROM {part}" for part in parts))
        else:
            self._views[name] = self._views[parts[0]]
        folded = f"{name}_folded_{len(self._made)}"
        self._views[folded] = self._views[name]
        return folded

    def _parsed(self, query: str) -> exp.Query:
        """Read a query, and put what they stand for in the place of the names of ours."""
        from sqlglot import exp, parse_one

        def meant(node: exp.Expr) -> exp.Expr:
            if not isinstance(node, exp.Table) or node.db or node.name not in self._views:
                return node
            shown = self._views[node.name].copy().subquery(node.alias or node.name)
            shown.set("joins", node.args.get("joins"))
            return shown

        return cast("exp.Query", parse_one(query, read="duckdb").transform(meant, copy=False))

    def _quoted(self, table: str) -> str:
        return _quoted(self._dialect, table)

    def _format(self) -> str:
        # Else Spark before 4 makes a table of text.
        return " USING parquet" if self._dialect.name == "spark" else ""

    def _drop(self, table: str) -> None:
        drop(self._database, table)


def drop(database: Database, table: str) -> None:
    """Drop a table of ours."""
    database.run(f"DROP TABLE IF EXISTS {_quoted(database.dialect, table)}")


def _quoted(dialect: Dialect, table: str) -> str:
    from sqlglot import exp

    return exp.table_(table, db=SCHEMA, quoted=True).sql(dialect=dialect.name)


def _bare(query: str) -> str:
    return query.strip().rstrip(";")


def _some_at_a_time(batches: Iterable[pa.RecordBatch], most: int) -> Iterator[list[tuple[Any, ...]]]:
    for batch in batches:
        for first in range(0, batch.num_rows, most):
            columns = [column.to_pylist() for column in batch.slice(first, most).columns]
            yield list(zip(*columns, strict=True))
