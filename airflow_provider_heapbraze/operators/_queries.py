"""Rows of a database, through the hook of its Airflow connection: streamed, and never fewer than there are.

How they are streamed depends on the database. Postgres and Redshift keep the result on the server, where
``DECLARE`` puts it in a transaction that may only read: psycopg and redshift_connector would fetch all of it
else. Snowflake and Databricks give Arrow tables. The rest fetches rows in chunks, as any driver can.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

from airflow.providers.common.compat.sdk import AirflowException, AirflowNotFoundException
from airflow.sdk import BaseHook

from airflow_provider_heapbraze.clients.errors import ConfigurationError, HeapBrazeError, TransientError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow.sdk import Context

    from airflow_provider_heapbraze.membership.members import Chunk

T = TypeVar("T")

ROWS_PER_CHUNK = 50_000
# A Redshift cluster of one node refuses to give more rows to one FETCH.
ROWS_PER_FETCH = {"postgres": ROWS_PER_CHUNK, "redshift": 1000}
SERVER_CURSOR = "heapbraze_members"

# What a query may begin with, after comments and brackets.
_QUERY = re.compile(
    r"(?:\s|\(|--[^\n]*\n|#[^\n]*\n|/\*(?:[^*]|\*(?!/))*\*/)*(?:SELECT|WITH|FROM|TABLE|VALUES)\b",
    re.IGNORECASE | re.DOTALL,
)

_SQLSTATE_SAID = re.compile(r"SQLSTATE: ([0-9A-Z]{5})")  # Databricks
_SQLSTATE = re.compile(r"[0-9A-Z]{5}")
# Classes of SQLSTATE whose errors are about the statement, the rights or the server: the text quotes no row.
_TOLD = {"08", "0A", "25", "28", "3D", "3F", "42", "53", "57"}
# Classes, and where there is none names of exceptions, that another try meets again.
_LASTING = {"0A", "22", "23", "25", "28", "3D", "3F", "42"}
_LASTING_TYPES = {
    "ProgrammingError", "NotSupportedError", "DataError", "IntegrityError",
    "NotFound", "BadRequest",  # BigQuery's
}  # fmt: skip
NOT_SHOWN = (
    " The database's own words are not shown: they may quote members. Its log has them; the query ends with "
    "a comment that names this run."
)


def query_tag(context: Context) -> str:
    """Return what a task's queries are marked with, so that whoever looks after the database knows whose."""
    ti = context["ti"]
    mapped = {"map_index": ti.map_index} if ti.map_index is not None and ti.map_index >= 0 else {}
    names = {"dag": ti.dag_id, "run": ti.run_id, "task": ti.task_id, **mapped}
    # Neither the end of a comment nor a quote nor a driver's placeholder is left.
    said = (f"{key}={re.sub(r'[^A-Za-z0-9_.:+-]', '_', str(value))}" for key, value in names.items())
    return f"airflow-provider-heapbraze {' '.join(said)}"


@dataclass(frozen=True)
class Failing:
    """What may fail, in words.

    :param what: it is.
    :param kept: what became of the rest then.
    :param mend: what to do where another try would fail, too.
    """

    what: str
    kept: str
    mend: str


MEMBERS = Failing(
    "The query of SqlMembers", "Nothing was sent.", "Mend the query or the connection, then clear the task."
)


@contextmanager
def streamed(
    conn_id: str, sql: str, tag: str, failing: Failing = MEMBERS
) -> Iterator[tuple[list[str], Iterator[Chunk]]]:
    """Run a query; give its columns' names, and its rows chunk by chunk.

    :param conn_id: an Airflow connection whose hook is a ``DbApiHook``.
    :param tag: goes along as a comment.
    :raises ConfigurationError: it is no such connection, no ``SELECT``, or the database refuses the query.
    :raises TransientError: the database cannot be reached, or is lost half-way.
    """
    hook = hook_of(conn_id)
    if not _QUERY.match(sql):
        raise _no_rows()
    # At the end: some databases drop what stands before a query. On a line of its own, as `--` may precede.
    tagged = f"{sql.rstrip().rstrip(';')}\n/* {tag} */"
    answer = Answer(conn_id, failing)
    connection = answer.of(hook.get_conn, connecting=True)
    try:
        cursor = answer.of(partial(_cursor, hook, connection))
        try:
            start = partial(_start, hook, connection, cursor, tagged, tag)
            names, chunks = answer.of(start)
            yield names, answer.all_of(chunks)
        finally:
            close(cursor)
    finally:
        close(connection)


def hook_of(conn_id: str) -> Any:
    from airflow.providers.common.sql.hooks.sql import DbApiHook

    hook = _named_hook(conn_id)
    if getattr(hook, "conn_type", "") == "databricks":
        # The hook that Airflow names for this type starts jobs; SQL has another.
        hook = import_module("airflow.providers.databricks.hooks.databricks_sql").DatabricksSqlHook(conn_id)
    if not isinstance(hook, DbApiHook):
        raise ConfigurationError(
            f"Connection {conn_id!r} is no database: members and engines need one whose hook is a "
            f"DbApiHook, and {type(hook).__name__} is not. Nothing was sent."
        )
    return hook


def _named_hook(conn_id: str) -> Any:
    """Return the hook that Airflow names for a connection's type."""
    try:
        return BaseHook.get_hook(conn_id)
    except AirflowNotFoundException:
        problem = (
            f"There is no Airflow connection {conn_id!r}, which members are read through, or whose database "
            "is the engine. Nothing was sent. Create it in Airflow, or mend its name in the DAG"
        )
    except AirflowException:
        conn_type = BaseHook.get_connection(conn_id).conn_type
        problem = (
            f"Connection {conn_id!r} has the type {conn_type!r}, for which no provider is installed. Nothing "
            "was sent. Install the provider of this database where tasks run, for example "
            "apache-airflow-providers-snowflake, or mend the connection's type"
        )
    raise ConfigurationError(f"{problem}; then clear the task.")


def _cursor(hook: Any, connection: Any) -> Any:
    if hook.conn_type == "mysql" and type(connection).__module__.startswith("MySQLdb"):
        return connection.cursor(import_module("MySQLdb.cursors").SSCursor)  # its usual one holds all rows
    return connection.cursor()


def _start(
    hook: Any, connection: Any, cursor: Any, sql: str, tag: str
) -> tuple[list[str], Iterator[Chunk | None]]:
    """Run a query; return its columns' names, and its chunks."""
    if hook.conn_type in ROWS_PER_FETCH:
        # The transaction is begun here, not by the driver, so that all of them begin the same one.
        hook.set_autocommit(connection, autocommit=True)
        cursor.execute("BEGIN READ ONLY")
        cursor.execute(f"DECLARE {SERVER_CURSOR} CURSOR FOR {sql}")
        # Marked again: while it runs, the server shows the FETCH, and not what it fetches from.
        fetch = f"FETCH FORWARD {ROWS_PER_FETCH[hook.conn_type]} FROM {SERVER_CURSOR}\n/* {tag} */"
        chunks = _fetched_by(partial(_from_server, cursor, fetch))
    elif hasattr(cursor, "fetch_arrow_batches"):
        connection.arrow_number_to_decimal_setter = True  # else a fraction comes as floating point
        cursor.execute(f"ALTER SESSION SET QUERY_TAG = '{tag}'")
        cursor.execute(sql)
        chunks = cursor.fetch_arrow_batches()
    elif hasattr(cursor, "fetchmany_arrow"):
        cursor.execute(sql)
        chunks = _fetched_by(partial(cursor.fetchmany_arrow, ROWS_PER_CHUNK))
    else:
        cursor.execute(sql)
        chunks = _fetched_by(lambda: values(cursor.fetchmany(ROWS_PER_CHUNK)))
    first = next(chunks, None)  # a cursor on the server knows its columns only after the first fetch
    if cursor.description is None:
        raise _no_rows()
    return [column[0] for column in cursor.description], _after(first, chunks)


def _fetched_by(fetch: Callable[[], Chunk]) -> Iterator[Chunk]:
    """Fetch until nothing comes."""
    while len(chunk := fetch()):
        yield chunk


def _from_server(cursor: Any, fetch: str) -> list[tuple[Any, ...]]:
    chunk: list[tuple[Any, ...]] = []
    while len(chunk) < ROWS_PER_CHUNK:
        cursor.execute(fetch)
        rows = cursor.fetchall()
        if not rows:
            break
        chunk += values(rows)
    return chunk


def values(rows: list[Any]) -> list[tuple[Any, ...]]:
    """Return rows without the names that some connections are set to give with them."""
    return [tuple(row.values()) for row in rows] if rows and isinstance(rows[0], Mapping) else rows


def _after(first: Chunk | None, chunks: Iterator[Chunk]) -> Iterator[Chunk | None]:
    yield first
    yield from chunks


def close(opened: Any) -> None:
    """Close; a connection that is lost already may complain, and that would hide why."""
    with suppress(Exception):
        opened.close()


def _no_rows() -> ConfigurationError:
    return ConfigurationError("The query of SqlMembers gives no rows: it must be a SELECT. Nothing was sent.")


class Answer:
    """What a database answers, piece by piece; its errors become ours, and quote no row.

    :param conn_id: for messages.
    """

    def __init__(self, conn_id: str, failing: Failing) -> None:
        self._conn_id = conn_id
        self._failing = failing
        self._rows = 0

    def all_of(self, chunks: Iterator[Chunk | None]) -> Iterator[Chunk]:
        """Give every chunk."""
        while (chunk := self.of(partial(next, chunks, None))) is not None:
            self._rows += len(chunk)
            yield chunk

    def of(self, work: Callable[[], T], *, connecting: bool = False) -> T:
        """Do something with the database.

        :param connecting: no row can be in an error yet.
        """
        try:
            return work()
        except (HeapBrazeError, MemoryError):
            raise
        except Exception as error:  # noqa: BLE001 - every driver has its own
            place = " while connecting" if connecting else f" after {self._rows:,} rows" if self._rows else ""
            raised = self._error(error, place, connecting=connecting)
        raise raised  # after the driver's own is gone: it would come along as the context

    def _error(self, error: Exception, place: str, *, connecting: bool) -> HeapBrazeError:
        state, text = _said(error)
        if state[:2] not in _TOLD and not (connecting and _speaks_plainly(error)):
            text = ""
        not_shown = " Test the connection in Airflow's UI." if connecting else NOT_SHOWN
        names = {base.__name__ for base in type(error).__mro__}
        lasting = state[:2] in _LASTING if state else not names.isdisjoint(_LASTING_TYPES)
        code = f", SQLSTATE {state}" if state else ""
        again = (
            "A retry may pass; where none does, mend the connection." if connecting else "A retry may pass."
        )
        return (ConfigurationError if lasting else TransientError)(
            f"{self._failing.what} failed{place}, on connection {self._conn_id!r} "
            f"({type(error).__name__}{code}){f': {text}' if text else ''}. {self._failing.kept} "
            f"{self._failing.mend if lasting else again}"
            f"{'' if text else not_shown}"
        )


def _said(error: Exception) -> tuple[str, str]:
    """Return a database's SQLSTATE and what it says without details, as far as the driver tells."""
    fields = error.args[0] if error.args and isinstance(error.args[0], dict) else {}  # redshift_connector
    status = getattr(error.args[0], "status", None) if error.args else None  # PyHive
    told = str(
        getattr(error, "sqlstate", None)
        or getattr(error, "pgcode", None)
        or getattr(status, "sqlState", None)
        or fields.get("C")
        or (_SQLSTATE_SAID.search(str(error)) or ("", ""))[1]
    )
    state = told if _SQLSTATE.fullmatch(told) else ""  # Snowflake's driver has "n/a"
    diagnosis = getattr(error, "diag", None)  # psycopg
    text = getattr(diagnosis, "message_primary", None) or fields.get("M") or ""
    if not state and not text:
        text = str(error)
    return state, next(iter(text.strip().splitlines()), "").rstrip(".")


def _speaks_plainly(error: Exception) -> bool:
    """Tell whether an error while connecting says what is wrong, and no password."""
    return isinstance(error, AirflowException) or type(error).__module__.startswith("psycopg")
