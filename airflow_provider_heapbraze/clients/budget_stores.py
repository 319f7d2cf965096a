"""Where the state of shared budgets is kept: by one machine in a file, by many in Redis or Postgres.

A store holds documents, and exchanges one for another in one piece if it is still the one that was read. All
else is :mod:`.sharing`'s. Times are on the store's clock, since the clocks of two hosts differ.
"""

from __future__ import annotations

import hashlib
import random
import sqlite3
import threading
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from airflow_provider_heapbraze.clients.errors import BudgetAwayError, ConfigurationError
from airflow_provider_heapbraze.clients.shared_file import open_file, unusable
from airflow_provider_heapbraze.clients.sharing import FORM

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from airflow_provider_heapbraze.clients.clock import Clock

Result = TypeVar("Result")

# Others were faster so often in a row: something is wrong with the store.
TRIES = 200
# Of Redis: nothing stays there for ever.
KEPT_SECONDS = 86_400
# What drivers call their errors. Of SQL states, class 28 is a login that is refused, 42501 a right that
# lacks, and 3D000 a database that is not there.
REFUSED = {"AuthenticationError", "AuthorizationError", "NoPermissionError"}
AWAY = {"RedisError", "DatabaseError", "InterfaceError"}
TABLE = "CREATE TABLE IF NOT EXISTS budget (name TEXT PRIMARY KEY, document TEXT NOT NULL) STRICT"


class Seen(NamedTuple):
    """What a store holds under a name.

    :param document: None where there is none.
    :param now: seconds on the store's clock, read no earlier than the document.
    """

    document: str | None
    now: float


class BudgetStore(Protocol):
    """Holds documents; safe to share between threads and processes."""

    def read(self, name: str) -> Seen:
        """Return a document.

        :raises BudgetAwayError: the store cannot be reached.
        :raises ConfigurationError: the store refuses us.
        """

    def replace(self, name: str, old: str | None, new: str) -> bool:
        """Put a document in another's place; False where that is no longer there.

        :raises BudgetAwayError: the store cannot be reached; it may have been replaced.
        :raises ConfigurationError: the store refuses us.
        """

    def close(self) -> None:
        """Close the way to the store."""


def exchange(
    store: BudgetStore,
    name: str,
    change: Callable[[Seen], tuple[str, Result]],
    sleep: Callable[[float], None],
) -> Result:
    """Read a document and put another in its place, while nobody else does.

    :param change: makes the new document of what is there, and a result; called again where others are
        faster.
    :param sleep: for so many seconds, until the next try.
    :raises BudgetAwayError: as the store; or others are faster all the time.
    """
    for tries in range(TRIES):
        seen = store.read(name)
        new, result = change(seen)
        if store.replace(name, seen.document, new):
            return result
        sleep(random.random() * 0.001 * min(tries + 1, 20))  # noqa: S311 - only to come at another moment
    raise BudgetAwayError("The shared budget changes too fast to be used: its store is too slow for so many.")


def hashed(*parts: str) -> str:
    """Return a name that tells nobody what it is made of."""
    return hashlib.blake2b("\n".join((FORM, *parts)).encode(), digest_size=12).hexdigest()


class FileStore:
    """A file that the processes of one machine share; opened at its first use.

    :param folder: where it is; see :func:`.shared_file.shared_folder`.
    """

    def __init__(self, folder: Callable[[], Path], clock: Clock) -> None:
        self._folder = folder
        self._clock = clock
        self._lock = threading.Lock()
        self._place = ""
        self._database: sqlite3.Connection | None = None

    def read(self, name: str) -> Seen:
        """Return a document; time is the machine's, which all its processes share."""
        row, _ = self._execute("SELECT document FROM budget WHERE name = ?", name)
        return Seen(row[0] if row else None, self._clock.monotonic())

    def replace(self, name: str, old: str | None, new: str) -> bool:
        """Put a document in another's place."""
        if old is None:
            _, rows = self._execute("INSERT OR IGNORE INTO budget VALUES (?, ?)", name, new)
        else:
            _, rows = self._execute(
                "UPDATE budget SET document = ? WHERE name = ? AND document = ?", new, name, old
            )
        return rows == 1

    def close(self) -> None:
        """Close the file; what it holds stays for others."""
        with self._lock:
            if self._database is not None:
                self._database.close()
                self._database = None

    def _execute(self, sql: str, *values: str) -> tuple[Any, int]:
        # A statement is carried out to its end here: one that is half read keeps others from writing.
        with self._lock:
            if self._database is None:
                self._place = str(self._folder() / "requests.sqlite")
                self._database = open_file(self._place, TABLE)
            try:
                with closing(self._database.execute(sql, values)) as cursor:
                    return cursor.fetchone(), cursor.rowcount
            except sqlite3.DatabaseError as error:
                raise unusable(self._place, error) from None


# Redis looks at the time when a script begins: it is read with the document, in one go.
REDIS_READ = """
    local time = redis.call('TIME')
    return {time[1], time[2], redis.call('GET', KEYS[1])}
"""
REDIS_REPLACE = """
    if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
    redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
    return 1
"""


class RedisStore:
    """Redis, or what speaks its language; one key per budget, so that a cluster will do.

    :param connect: returns a client of the package ``redis``.
    """

    def __init__(self, connect: Callable[[], Any]) -> None:
        self._connect = connect
        self._lock = threading.Lock()
        self._client: Any = None

    def read(self, name: str) -> Seen:
        """Return a document; time is the server's."""
        seconds, microseconds, document = self._run(REDIS_READ, name)
        text = document.decode() if isinstance(document, bytes) else document
        return Seen(text, int(seconds) + int(microseconds) / 1e6)

    def replace(self, name: str, old: str | None, new: str) -> bool:
        """Put a document in another's place."""
        return bool(self._run(REDIS_REPLACE, name, old or "", new, KEPT_SECONDS))

    def close(self) -> None:
        """Close the connections."""
        with self._lock, suppress(Exception):  # what cannot be closed is not open
            if self._client is not None:
                self._client.close()

    def _run(self, script: str, name: str, *values: object) -> Any:
        try:
            return self._open().eval(script, 1, f"heapbraze:budget:{name}", *values)
        except Exception as error:  # noqa: BLE001 - none is lost; the client's are known by their names
            raise _of_a_driver("Redis", error) from None

    def _open(self) -> Any:
        with self._lock:
            if self._client is None:
                self._client = self._connect()
            return self._client


POSTGRES_TABLE = """
    CREATE UNLOGGED TABLE IF NOT EXISTS heapbraze_budget (name text PRIMARY KEY, document text NOT NULL)
"""
# What Postgres says where two make the table at the same moment: of a name, of a type, or of the table.
MADE_BY_ANOTHER = {"23505", "42710", "42P07"}
POSTGRES_READ = """
    SELECT document, extract(epoch FROM clock_timestamp())::float8
    FROM (SELECT) AS one LEFT JOIN heapbraze_budget ON name = %s
"""


class PostgresStore:
    """A table of Postgres; each statement is a transaction of its own, so that a pooler will do.

    :param connect: returns a connection by Python's DB-API.
    """

    def __init__(self, connect: Callable[[], Any]) -> None:
        self._connect = connect
        self._lock = threading.Lock()
        self._connection: Any = None

    def read(self, name: str) -> Seen:
        """Return a document; time is the server's."""
        (document, now), _ = self._run(POSTGRES_READ, name)
        return Seen(document, now)

    def replace(self, name: str, old: str | None, new: str) -> bool:
        """Put a document in another's place."""
        if old is None:
            sql = "INSERT INTO heapbraze_budget VALUES (%s, %s) ON CONFLICT DO NOTHING"
            _, rows = self._run(sql, name, new)
        else:
            sql = "UPDATE heapbraze_budget SET document = %s WHERE name = %s AND document = %s"
            _, rows = self._run(sql, new, name, old)
        return bool(rows == 1)

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._drop()

    def _run(self, sql: str, *values: str) -> tuple[Any, int]:
        with self._lock:
            try:
                if self._connection is None:
                    self._connection = self._connect()
                    self._prepare()
                return self._execute(sql, *values)
            except Exception as error:  # noqa: BLE001 - each driver has errors of its own; none is lost
                self._drop()
                raise _of_a_driver("Postgres", error) from None

    def _prepare(self) -> None:
        self._connection.autocommit = True
        # Whoever may not make tables can use one that is there.
        (there,), _ = self._execute("SELECT to_regclass('heapbraze_budget') IS NOT NULL")
        if there:
            return
        try:
            self._execute(POSTGRES_TABLE)
        except Exception as error:
            if _sql_state(error) not in MADE_BY_ANOTHER:
                raise

    def _execute(self, sql: str, *values: str) -> tuple[Any, int]:
        with closing(self._connection.cursor()) as cursor:
            cursor.execute(sql, values)
            return cursor.fetchone() if cursor.description else None, cursor.rowcount

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        with suppress(Exception):  # what cannot be closed is not open
            if connection is not None:
                connection.close()


def _of_a_driver(store: str, error: Exception) -> Exception:
    """Return what to raise for what a driver raised; drivers are not imported here."""
    kinds, state = {kind.__name__ for kind in type(error).__mro__}, _sql_state(error)
    if kinds & REFUSED or state.startswith("28") or state in {"42501", "3D000"}:
        return _refused(store, error)
    return _away(store, error) if kinds & AWAY else error


def _sql_state(error: Exception) -> str:
    return str(getattr(error, "sqlstate", None) or getattr(error, "pgcode", None) or "")


def _away(store: str, error: Exception) -> BudgetAwayError:
    return BudgetAwayError(
        f"The shared budget in {store} cannot be used now ({type(error).__name__}): without it nobody knows "
        "how much the others send, so nothing is sent. What was accepted is recorded; a later try goes on."
    )


def _refused(store: str, error: Exception) -> ConfigurationError:
    return ConfigurationError(
        f"{store} refuses the connection of the shared budget ({type(error).__name__}): the login, the "
        "password, the database or a right is wrong. Nothing was sent by this try. Mend the connection that "
        "[heapbraze] budget of Airflow's configuration names."
    )
