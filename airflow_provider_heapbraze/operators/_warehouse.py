"""A warehouse in which tables are made, through the hook of its Airflow connection."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_provider_heapbraze.membership.dialects import dialect_of
from airflow_provider_heapbraze.operators._queries import Answer, Failing, close, hook_of, streamed, values

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from airflow_provider_heapbraze.membership.dialects import Dialect
    from airflow_provider_heapbraze.membership.members import Chunk

STATEMENT = Failing(
    "A statement in the warehouse",
    "What had been sent by then, if anything, is recorded.",
    "Mend the query of the members, or what the connection's user may do in its database and in the schema "
    "heapbraze; then clear the task.",
)
# What answers with rows; some drivers fail when they are asked for those of another statement.
_QUERIES = ("SELECT", "SHOW", "DESCRIBE", "WITH")


class AirflowDatabase:
    """An open connection; each statement is done for good when it is done.

    :param conn_id: the Airflow connection.
    :param tag: goes along with each statement as a comment.
    """

    def __init__(self, conn_id: str, dialect: Dialect, connection: Any, tag: str) -> None:
        self.conn_id = conn_id
        self.dialect = dialect
        self._connection = connection
        self._tag = tag

    def run(self, sql: str) -> list[tuple[Any, ...]]:
        """Carry out a statement; return its rows, where it is a query."""
        return Answer(self.conn_id, STATEMENT).of(partial(self._run, sql))

    def read(self, query: str) -> AbstractContextManager[tuple[list[str], Iterator[Chunk]]]:
        """Run a query; give its columns' names, and its rows in chunks."""
        return streamed(self.conn_id, query, self._tag, STATEMENT)

    def _run(self, sql: str) -> list[tuple[Any, ...]]:
        cursor = self._connection.cursor()
        try:
            # What is set has no end but that of the line.
            cursor.execute(sql if sql.startswith("SET ") else f"{sql}\n/* {self._tag} */")
            # Trino does what it is told only while its answer is fetched.
            answers = sql.startswith(_QUERIES) or self.dialect.name == "trino"
            return list(map(tuple, values(cursor.fetchall()))) if answers else []
        finally:
            close(cursor)


@contextmanager
def opened(conn_id: str, tag: str) -> Iterator[AirflowDatabase]:
    """Open a warehouse.

    :raises ConfigurationError: it is no database, or one whose SQL this package does not speak.
    :raises TransientError: it cannot be reached.
    """
    hook = hook_of(conn_id)
    dialect = dialect_of(hook.conn_type, conn_id)
    if hook.conn_type == "hiveserver2":
        logging.getLogger("pyhive").setLevel(logging.WARNING)  # it logs statements, with all that is in them
    connection = Answer(conn_id, STATEMENT).of(hook.get_conn, connecting=True)
    try:
        if hook.supports_autocommit:
            hook.set_autocommit(connection, autocommit=True)
        yield AirflowDatabase(conn_id, dialect, connection, tag)
    finally:
        close(connection)
