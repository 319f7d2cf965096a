"""What set work needs of the place where it is done: DuckDB in this process, or a warehouse.

Queries are written once, in DuckDB's SQL, and keep to what :mod:`.dialects` can say in every other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


class Space(Protocol):
    """Tables and views by name, gone when the work is done.

    Nothing is changed in place, as not every warehouse can: a table is made of a query, or made anew.
    """

    @property
    def engine(self) -> str:
        """Return the Airflow connection of the warehouse; empty for DuckDB."""

    @property
    def suffix(self) -> str:
        """Return what the names of its tables end with in the ledger."""

    @property
    def folder(self) -> Path:
        """Return a folder on the local disk for files on their way to or from the ledger."""

    def table(self, name: str, query: str) -> None:
        """Make a table of a query's rows, or make it anew: the query may name the table that there is.

        No view may show the old one.
        """

    def view(self, name: str, query: str) -> None:
        """Make a view."""

    def rows(self, table: str, schema: str, columns: Mapping[str, Sequence[Any]]) -> None:
        """Make a table of rows that are in memory.

        :param schema: the columns with their types, in the order of ``columns``.
        """

    def count(self, source: str) -> int:
        """Count the rows of ``SELECT … FROM source``."""

    def ask(self, query: str) -> list[Any]:
        """Return the rows of a query that has few."""

    def load(
        self,
        view: str,
        path: Path,
        *,
        rows: int | None = None,
        expected: str = "",
        every_row: bool = False,
    ) -> bool:
        """Make a view of a table in the ledger, with the rows' numbers as ``file_row_number``.

        :param rows: how many rows it must have.
        :param expected: the file's digest, where it is known; else its name may end with it.
        :param every_row: read every row at once, where no digest tells what is damaged within.
        :returns: False where it is missing, damaged or has another number of rows.
        """

    def stage(self, name: str, query: str) -> None:
        """Make a table that is to be kept."""

    def digest_of(self, name: str) -> str:
        """Return what tells the content of a staged table from any other, or its place in a warehouse."""

    def keep(self, name: str, path: Path) -> None:
        """Put a staged table in its place in the ledger.

        :param path: its name ends with ``suffix``.
        """

    def publish(self, columns: str, table: str, order: str, path: Path) -> str:
        """Write a table's rows down as a Parquet file in the ledger, in an order; return the file's digest.

        It can be loaded, too. The same rows make the same file.
        """


def keep(space: Space, name: str, place: Path) -> str:
    """Put a staged table in the ledger, under a name that ends with the digest of what is in it.

    :param place: the file's path, but for the digest and the suffix.
    :returns: the file's name.
    """
    file = f"{place.name}-{space.digest_of(name)}{space.suffix}"
    space.keep(name, place.with_name(file))
    return file
