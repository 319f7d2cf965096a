"""Set work on tables larger than memory: DuckDB in a folder of its own."""

from __future__ import annotations

import hashlib
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from airflow_provider_heapbraze import storage
from airflow_provider_heapbraze.scratch import scratch_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from duckdb import DuckDBPyConnection

# Nothing is downloaded at run time: Parquet, JSON and CSV are part of DuckDB's wheel.
SETTINGS = {"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}
# DuckDB would take four fifths of the memory that there is; a worker has several tasks. Beyond this it works
# on disk: 100 million people against as many took 65 s of CPU in place of 50.
MOST_MEMORY_GB = 5
# The first and the second 15 hexadecimal digits of a text's MD5, as numbers: any database can have the same.
DIGESTS = """
    CREATE TEMP MACRO first_digest(v) AS (md5_number(v) >> 68)::BIGINT;
    CREATE TEMP MACRO second_digest(v) AS ((md5_number(v) >> 8) & 1152921504606846975)::BIGINT;
"""
UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")


class Workspace:
    """A DuckDB connection and a folder on the local disk, both gone when the work is done.

    :param connection: an open connection.
    :param folder: for files on their way to or from the ledger.
    """

    def __init__(self, connection: DuckDBPyConnection, folder: Path) -> None:
        self.connection = connection
        self.folder = folder

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
            file = storage.fetched(path, self.folder)
            expected = expected or digest_in(path.name)
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

    def rows(self, table: str, schema: str, columns: Mapping[str, Sequence[Any]]) -> None:
        """Make a table of rows that are in memory.

        :param schema: the columns with their types, in the order of ``columns``.
        """
        import pyarrow as pa

        self.sql(f"CREATE TABLE {table} ({schema})")
        if any(columns.values()):
            self.connection.register("incoming", pa.table(dict(columns)))
            self.sql(f"INSERT INTO {table} SELECT * FROM incoming")
            self.connection.unregister("incoming")

    def keep(self, query: str, place: Path) -> str:
        """Write the rows of a query down in the ledger.

        :param place: the file, but for the end of its name, which is the digest of what is in it.
        :returns: the file's name.
        """
        local = self.folder / f"{uuid4().hex}.parquet"
        self.write(query, local)
        name = f"{place.name}-{digest(local)}.parquet"
        storage.write_whole(place.with_name(name), local)
        return name

    def publish(self, query: str, order: str, path: Path) -> str:
        """Write the rows of a query down in the ledger, in an order; return the file's digest."""
        local = self.folder / f"{uuid4().hex}.parquet"
        self.write(f"{query} ORDER BY {order}", local)
        storage.write_whole(path, local)
        return digest(local)

    def write(self, query: str, path: Path) -> int:
        """Write the rows of a query to a Parquet file, in their order; return how many there were."""
        return int(self.ask(f"COPY ({query}) TO {literal(path)} (FORMAT parquet, COMPRESSION zstd)")[0][0])


@contextmanager
def workspace() -> Iterator[Workspace]:
    """Open a workspace; sets larger than memory spill to its folder."""
    import duckdb

    with scratch_folder() as folder:
        settings: dict[str, str | bool | int | float | list[str]] = {
            **SETTINGS,
            "temp_directory": str(folder / "spill"),
        }
        with duckdb.connect(config=settings) as connection:
            space = Workspace(connection, folder)
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
    found = re.search(r"-([0-9a-f]{32})\.parquet$", name)
    return found[1] if found else ""


def literal(value: object) -> str:
    """Return a text, or a path, as a text in SQL."""
    return "'" + str(value).replace("'", "''") + "'"


def identifier(column: str) -> str:
    """Return a column's name as SQL."""
    return '"' + column.replace('"', '""') + '"'
