"""Set work on tables larger than memory: DuckDB in a folder of its own."""

from __future__ import annotations

import hashlib
import logging
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from airflow_provider_heapbraze import storage
from airflow_provider_heapbraze.clients.errors import ConfigurationError
from airflow_provider_heapbraze.membership.table_records import SUFFIX, read_record
from airflow_provider_heapbraze.scratch import scratch_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import pyarrow as pa
    from duckdb import DuckDBPyConnection

    from airflow_provider_heapbraze.membership.members import Access, Chunk
    from airflow_provider_heapbraze.membership.table_records import TableRecord
    from airflow_provider_heapbraze.membership.warehouse import Database

log = logging.getLogger(__name__)

# Nothing is downloaded at run time: Parquet, JSON and CSV are part of DuckDB's wheel.
SETTINGS = {"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}
# DuckDB would take four fifths of the memory that there is; a worker has several tasks. Beyond this it works
# on disk: 100 million people against as many took 65 s of CPU in place of 50.
MOST_MEMORY_GB = 5
ROWS_AT_A_TIME = 20_000
# The first and the second 15 hexadecimal digits of a text's MD5, as numbers: any database can have the same.
DIGESTS = """
    CREATE TEMP MACRO first_digest(v) AS (('0x' || md5(v))::UHUGEINT >> 68)::BIGINT;
    CREATE TEMP MACRO second_digest(v) AS ((('0x' || md5(v))::UHUGEINT >> 8) & 1152921504606846975)::BIGINT;
"""
# Of columns that are no text.
_TYPES = {
    "remove": "BOOLEAN",
    "runs": "BIGINT",
    "row": "BIGINT",
    "file_row_number": "BIGINT",
}
UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")


class Workspace:
    """A DuckDB connection and a folder on the local disk, both gone at the end; see :class:`.Space`.

    :param connection: an open connection.
    :param folder: for files on their way to or from the ledger.
    :param access: to warehouses that hold tables of the ledger.
    """

    engine = ""
    suffix = ".parquet"

    def __init__(self, connection: DuckDBPyConnection, folder: Path, access: Access | None = None) -> None:
        self.connection = connection
        self.folder = folder
        self._access = access
        self._staged: dict[str, Path] = {}

    def sql(self, statement: str) -> None:
        """Carry out a statement."""
        self.connection.execute(statement).fetchall()

    def table(self, name: str, query: str) -> None:
        """Make a table of a query's rows, or make it anew: the query may name the table that there is."""
        self.sql(f"CREATE OR REPLACE TABLE {name} AS {query}")

    def view(self, name: str, query: str) -> None:
        """Make a view."""
        self.sql(f"CREATE VIEW {name} AS {query}")

    def count(self, source: str) -> int:
        """Count the rows of ``SELECT … FROM source``."""
        return int(self.ask(f"SELECT count(*) FROM {source}")[0][0])

    def ask(self, query: str) -> list[Any]:
        """Return the rows of a query that has few; all of them, since DuckDB goes on only then."""
        return self.connection.execute(query).fetchall()

    def stream(self, query: str) -> Iterator[list[Any]]:
        """Give the rows of a query that has many, in their order, some thousands at a time.

        Nothing else may be asked of the workspace meanwhile.
        """
        result = self.connection.execute(query)
        while rows := result.fetchmany(ROWS_AT_A_TIME):
            yield rows

    def load(
        self,
        view: str,
        path: Path,
        *,
        rows: int | None = None,
        expected: str = "",
        every_row: bool = False,
    ) -> bool:
        """Make a view of a Parquet file, with the rows' numbers as ``file_row_number``.

        :param rows: how many rows the file must have.
        :param expected: the file's digest, where it is known; else its name may end with it.
        :param every_row: read every row at once, where no digest tells what is damaged within.
        :returns: False where the file is missing, damaged or has another number of rows.
        """
        import duckdb

        try:
            expected = expected or digest_in(path.name)
            if path.suffix == SUFFIX:
                return self._load_from_warehouse(view, path, rows, expected)
            file = storage.fetched(path, self.folder)
            if expected and digest(file) != expected:
                return False
            query = f"SELECT * FROM read_parquet({literal(file)}, file_row_number = true)"
            self.sql(f"CREATE {'TABLE' if every_row else 'VIEW'} {view} AS {query}")
            return rows is None or self.count(view) == rows
        except (duckdb.OutOfMemoryException, duckdb.InternalException):
            raise
        except duckdb.Error:
            return False
        except (FileNotFoundError, NotADirectoryError):
            return False

    def _load_from_warehouse(self, view: str, path: Path, rows: int | None, expected: str) -> bool:
        """Make a table of one that is in a warehouse; all of its rows come here."""
        record = read_record(path, expected)
        if record is None:
            return False
        if self._access is None:
            raise ConfigurationError(
                f"{path.name} is the table {record.table} in the warehouse of connection {record.engine!r}, "
                "which cannot be reached from here. Nothing was sent."
            )
        log.info("%s rows come from connection %s.", f"{record.rows:,}", record.engine)
        try:
            with self._access.database(record.engine) as database:
                self.download(database, record, view)
        except ConfigurationError as error:
            self.sql(f"DROP TABLE IF EXISTS {view}")
            log.warning(
                "The table %s of connection %s cannot be read: %s", record.table, record.engine, error
            )
            return False
        return self.count(view) == record.rows and rows in {None, record.rows}

    def download(self, database: Database, record: TableRecord, table: str) -> None:
        """Make a table of one that is in a warehouse."""
        has_numbers = "file_row_number" in record.columns
        names = [*record.columns] if has_numbers else [*record.columns, "file_row_number"]
        schema = ", ".join(f"{identifier(name)} {_TYPES.get(name, 'VARCHAR')}" for name in names)
        self.sql(f"CREATE TABLE {table} ({schema})")
        so_far = 0
        with database.read(database.dialect.rows_of(record)) as (_, chunks):
            for chunk in chunks:
                arrow = _as_arrow(chunk, record.columns)
                self.connection.register("incoming_chunk", arrow)
                number = "" if has_numbers else f", row_number() OVER () - 1 + {so_far}"
                self.sql(f"INSERT INTO {table} SELECT *{number} FROM incoming_chunk")
                self.connection.unregister("incoming_chunk")
                so_far += arrow.num_rows

    def rows(self, table: str, schema: str, columns: Mapping[str, Sequence[Any]]) -> None:
        """Make a table of rows that are in memory.

        :param schema: the columns with their types, in the order of ``columns``.
        """
        self.sql(f"CREATE TABLE {table} ({schema})")
        if any(columns.values()):
            # As lists, not by way of Arrow, which loads pandas wherever that is installed.
            values = ", ".join("unnest(?)" for _ in columns)
            self.connection.execute(f"INSERT INTO {table} SELECT {values}", list(map(list, columns.values())))

    def stage(self, name: str, query: str) -> None:
        """Make a table that is to be kept: a file, with a view of it."""
        local = self._staged[name] = self.folder / f"{uuid4().hex}.parquet"
        self.write(query, local)
        self.view(name, f"SELECT * FROM read_parquet({literal(local)})")

    def digest_of(self, name: str) -> str:
        """Return what tells the content of a staged table from any other."""
        return digest(self._staged[name])

    def keep(self, name: str, path: Path) -> None:
        """Put a staged table in its place in the ledger."""
        storage.write_whole(path, self._staged[name])

    def publish(self, columns: str, table: str, order: str, path: Path) -> str:
        """Write a table's rows down in the ledger, in an order; return the file's digest."""
        local = self.folder / f"{uuid4().hex}.parquet"
        self.write(f"SELECT {columns} FROM {table} ORDER BY {order}", local)
        storage.write_whole(path, local)
        return digest(local)

    def batches(self, query: str) -> pa.RecordBatchReader:
        """Stream the rows of a query."""
        return self.connection.sql(query).to_arrow_reader(10_000)

    def write(self, query: str, path: Path) -> int:
        """Write the rows of a query to a Parquet file, in their order; return how many there were."""
        return int(self.ask(f"COPY ({query}) TO {literal(path)} (FORMAT parquet, COMPRESSION zstd)")[0][0])


@contextmanager
def workspace(access: Access | None = None) -> Iterator[Workspace]:
    """Open a workspace; sets larger than memory spill to its folder.

    :param access: to warehouses that hold tables of the ledger.
    """
    import duckdb

    with scratch_folder() as folder:
        settings: dict[str, str | bool | int | float | list[str]] = {
            **SETTINGS,
            "temp_directory": str(folder / "spill"),
        }
        with duckdb.connect(config=settings) as connection:
            space = Workspace(connection, folder, access)
            _limit_memory(space)
            space.sql(DIGESTS)
            space.sql("SET TimeZone = 'UTC'")  # the text of a time must not depend on the machine
            # DuckDB takes a process without a script for a terminal, and would draw its bar into a log.
            space.sql("SET enable_progress_bar = false")
            yield space


def _limit_memory(space: Workspace) -> None:
    """Lower the limit to ours; DuckDB's own is lower where the machine or its container is small."""
    ((set_by_duckdb,),) = space.ask("SELECT current_setting('memory_limit')")
    number, unit = set_by_duckdb.split()
    if float(number) * 1024 ** UNITS.index(unit) > MOST_MEMORY_GB * 1000**3:
        space.sql(f"SET memory_limit = '{MOST_MEMORY_GB}GB'")


def digest(file: Path) -> str:
    """Return what tells a file's content from any other: Parquet itself does not notice a flipped bit."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def digest_in(name: str) -> str:
    """Return the digest that a file's name ends with; empty where it has none."""
    found = re.search(r"-([0-9a-f]{32})\.(?:parquet|json)$", name)
    return found[1] if found else ""


def _as_arrow(chunk: Chunk, columns: Sequence[str]) -> pa.Table:
    """Return rows as an Arrow table, with the columns' names as we know them."""
    import pyarrow as pa

    if isinstance(chunk, list):
        values = list(zip(*chunk, strict=True)) or [()] * len(columns)
        return pa.table({name: pa.array(column) for name, column in zip(columns, values, strict=True)})
    return chunk.rename_columns(list(columns))


def literal(value: object) -> str:
    """Return a text, or a path, as a text in SQL."""
    return "'" + str(value).replace("'", "''") + "'"


def identifier(column: str) -> str:
    """Return a column's name as SQL."""
    return '"' + column.replace('"', '""') + '"'
