"""Members from databases through their Airflow hooks.

Postgres is a real server, read through Airflow's own hook and both of its drivers; Redshift's way is run on
it, too. For Snowflake, Databricks and BigQuery no server is at hand: a cursor stands for the driver's.
"""

from __future__ import annotations

import json
import sys
import traceback
from datetime import UTC, datetime, timedelta
from types import ModuleType, SimpleNamespace
from uuid import uuid4

import pyarrow as pa
import pytest
from airflow.providers.common.sql.hooks.sql import DbApiHook
from airflow.providers.postgres.hooks import postgres as postgres_provider
from airflow.sdk import BaseHook

from airflow_provider_heapbraze.clients.errors import ConfigurationError, HeapBrazeError, TransientError
from airflow_provider_heapbraze.members import IdentityMapping, SqlMembers
from airflow_provider_heapbraze.membership.matching import match
from airflow_provider_heapbraze.operators._access import AirflowAccess
from tests.airflow.cohorts import context
from tests.unit.membership.members_conformance import outcome
from tests.unit.membership.segment_conformance import SECRET, SegmentConformance, many_identities

TAG = "/* airflow-provider-heapbraze dag=cohorts run=night-1 task=match */"
# The row with the secret is beyond the first chunk.
LATE = (
    "SELECT CASE WHEN n < 60000 THEN 'ann' ELSE {} END AS identity FROM generate_series(1, 99999) AS many(n)"
)
BROKEN_VALUE = LATE.format(f"CAST(CAST(concat('{SECRET}', n) AS integer) AS text)")
LOST = LATE.format("CAST(pg_terminate_backend(pg_backend_pid()) AS text)")


def access_to(ledger, **task):
    return AirflowAccess(ledger, context(task_id="match", **task))


@pytest.fixture
def warehouse(postgres, monkeypatch):
    """Give the server, with a connection of Airflow to it."""
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps(postgres.connection))
    return postgres


@pytest.fixture(params=["psycopg", "psycopg2"])
def driver(request, monkeypatch):
    """Let Airflow's hook use the one or the other, as it does by what is installed."""
    monkeypatch.setattr(postgres_provider, "USE_PSYCOPG3", request.param == "psycopg")
    return request.param


def members_of(sql, folder, conn_id="warehouse"):
    """Return the identities that a query gives."""
    result = match(SqlMembers(conn_id, sql), IdentityMapping(), access_to(folder), folder)
    return [value for _, value, _ in sorted(outcome(result, folder)[0])]


def refusal(sql, folder, kind=HeapBrazeError, conn_id="warehouse"):
    """Return what is said about a query that cannot be read; nothing that its rows hold."""
    with pytest.raises(kind, match=r"Nothing was sent\.") as caught:
        match(SqlMembers(conn_id, sql), IdentityMapping(), access_to(folder), folder)
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    error = caught.value
    assert error.__cause__ is None
    assert error.__context__ is None
    assert not (folder / "matches").exists()
    return str(error)


class TestPostgres(SegmentConformance):
    @pytest.fixture(autouse=True)
    def server(self, warehouse, monkeypatch):
        self.postgres = warehouse
        self.setenv = monkeypatch.setenv

    def source(self, folder, identities):
        table = f"people_{uuid4().hex}"
        self.postgres.execute(f"CREATE TABLE {table} (identity text)")
        self.postgres.execute(f"INSERT INTO {table} SELECT unnest(%s::text[])", identities)
        return SqlMembers("warehouse", f"SELECT identity FROM {table}"), access_to(folder / "ledger")

    def unreadable(self, folder):
        other = {
            "wrong_password": {"password": "of another server"},
            "nobody_listens": {"port": 1},
            "no_database": {"schema": "nowhere"},
            "slow": {"extra": {"options": "-c statement_timeout=1"}},
        }
        for conn_id, fields in other.items():
            self.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps({**self.postgres.connection, **fields}))
        queries = {
            "no table": "SELECT identity FROM nowhere",
            "no column": "SELECT 1 AS other",
            "no SQL": "SELECT FROM WHERE",
            "empty": "",
            "a broken value": BROKEN_VALUE,
            "a lost connection": LOST,
        }
        access = access_to(folder / "ledger")
        return {
            **{way: (SqlMembers("warehouse", sql), access) for way, sql in queries.items()},
            **{way: (SqlMembers(way, many_identities(100_000)), access) for way in other},
        }

    def many(self, folder, count):
        return SqlMembers("warehouse", many_identities(count)), access_to(folder / "ledger")


def test_both_drivers_stream(warehouse, driver, tmp_path):
    """A fetch brings one chunk, and the next is asked for when the last is done with."""
    with access_to(tmp_path).query("warehouse", many_identities(120_000)) as (names, chunks):
        first = next(chunks)
        assert type(first[0]) is tuple
        assert (names, len(first)) == (["identity"], 50_000)
        asked = warehouse.log().count("FETCH FORWARD")
        assert len(next(chunks)) == 50_000
        assert warehouse.log().count("FETCH FORWARD") == asked + 1
        assert [len(chunk) for chunk in chunks] == [20_000]


def test_a_query_carries_the_names_of_its_task(warehouse, driver, tmp_path):
    task = {"dag_run": "manual__2026-11-25T00:00:00+00:00 */ DROP %s ?", "map_index": 3}
    tag = (
        "/* airflow-provider-heapbraze dag=cohorts run=manual__2026-11-25T00:00:00+00:00____DROP__s__ "
        "task=match map_index=3 */"
    )
    sql = "SELECT 'ann' AS identity -- a remark;  \n ; "
    with access_to(tmp_path, **task).query("warehouse", sql) as (_, chunks):
        assert list(chunks) == [[("ann",)]]
        running = warehouse.execute("SELECT query FROM pg_stat_activity WHERE query LIKE 'FETCH FORWARD%%'")
        assert [query.splitlines()[-1] for (query,) in running] == [tag]
    declared = warehouse.log().rsplit("DECLARE", 1)[1].split("LOG:")[0]
    assert tag in declared


def test_a_backend_that_is_killed_is_no_shorter_segment(warehouse, driver, tmp_path):
    with access_to(tmp_path).query("warehouse", many_identities(120_000)) as (_, chunks):
        assert len(next(chunks)) == 50_000
        warehouse.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'FETCH FORWARD%%'"
        )
        with pytest.raises(TransientError, match=r"failed after 50,000 rows.*A retry may pass") as caught:
            next(chunks)
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    ("sql", "kind", "said"),
    [
        ("SELECT identity FROM nowhere", ConfigurationError, 'relation "nowhere" does not exist'),
        ("SELECT missing FROM pg_class", ConfigurationError, 'column "missing" does not exist'),
        ("SELECT FROM WHERE", ConfigurationError, "syntax error at or near"),
        ("WITH x AS (DELETE FROM kept RETURNING 1) SELECT * FROM x", ConfigurationError, "data-modifying"),
        ("SELECT nextval('counter') AS identity", ConfigurationError, "in a read-only transaction"),
        (BROKEN_VALUE, ConfigurationError, "SQLSTATE 22P02). Nothing was sent."),
        (LOST, TransientError, "after 50,000 rows"),
        (
            f"SELECT 'ann' AS other, '{SECRET}' AS one_more",
            ConfigurationError,
            "Its columns: one_more, other.",
        ),
    ],
)
def test_what_is_said_about_a_query_that_fails(warehouse, driver, tmp_path, sql, kind, said):
    warehouse.execute("CREATE TABLE IF NOT EXISTS kept (id int); CREATE SEQUENCE IF NOT EXISTS counter")
    assert said in refusal(sql, tmp_path, kind)


@pytest.mark.parametrize(
    "sql",
    [
        "",
        "DELETE FROM kept",
        "-- SELECT\nUPDATE kept SET id = 2",
        "/* SELECT */ INSERT INTO kept VALUES (2)",
        "CREATE TABLE copied AS SELECT * FROM kept",
        "EXPLAIN SELECT 1",
        "/* a line */\n" * 50 + "EXPLAIN SELECT 1",
        "SELECTED",
    ],
)
def test_what_is_no_select_is_never_run(warehouse, tmp_path, sql):
    warehouse.execute("DROP TABLE IF EXISTS kept; CREATE TABLE kept (id int); INSERT INTO kept VALUES (1)")
    assert "must be a SELECT" in refusal(sql, tmp_path, ConfigurationError)
    assert warehouse.execute("SELECT id FROM kept") == [(1,)]


@pytest.mark.parametrize(
    "sql", ["{}", " ({})", "-- ids\n/* of\nall */\n{};", "WITH x AS ({}) SELECT * FROM x"]
)
def test_what_is_a_select_is_run(warehouse, tmp_path, sql):
    assert members_of(sql.format("SELECT 'a%b' AS identity"), tmp_path) == ["a%b"]


def test_a_connection_that_gives_rows_with_names(postgres, driver, monkeypatch, tmp_path):
    named = {**postgres.connection, "extra": {"cursor": "dictcursor"}}
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps(named))
    assert members_of("SELECT 1 AS other, 'ann' AS identity", tmp_path) == ["ann"]


class RedshiftHook(postgres_provider.PostgresHook):
    """Redshift's way, on Postgres."""

    conn_type = "redshift"


class Cursor:
    """What every driver's cursor has; each warehouse's adds its own way to fetch."""

    def __init__(self, chunks=(), error=None):
        self.chunks = list(chunks)
        self.error = error
        self.statements = []
        self.closed = False
        self.description = None

    def execute(self, sql):
        self.statements.append(sql)
        self.description = [("IDENTITY", 2, None)]

    def close(self):
        self.closed = True

    def next_chunk(self, nothing):
        if self.chunks:
            return self.chunks.pop(0)
        if self.error:
            raise self.error
        return nothing


class SnowflakeCursor(Cursor):
    def fetch_arrow_batches(self):
        while (chunk := self.next_chunk(None)) is not None:
            yield chunk


class DatabricksCursor(Cursor):
    def fetchmany_arrow(self, size):
        return self.next_chunk(table([]))


class BigQueryCursor(Cursor):
    def fetchmany(self, size):
        return [list(row) for row in self.next_chunk([])]


def table(identities):
    return pa.table({"IDENTITY": pa.array(identities, pa.string())})


class Connection:
    def __init__(self, cursor):
        self.cursor = lambda: cursor
        self.close = cursor.close


class Hook(DbApiHook):
    """A hook whose connection is the one that a test made."""

    def __init__(self, conn_type, cursor):
        self.conn_type = conn_type
        self.get_conn = lambda: Connection(cursor)


@pytest.fixture
def hook(monkeypatch):
    """Make a hook the one that Airflow names for the connection ``warehouse``."""

    def use(hook):
        monkeypatch.setattr(BaseHook, "get_hook", lambda conn_id: {"warehouse": hook}[conn_id])

    return use


def databricks(hook, monkeypatch):
    """Let the connection's hook be the one for jobs, as Airflow has it; the one for SQL is elsewhere."""
    module = ModuleType("airflow.providers.databricks.hooks.databricks_sql")
    module.DatabricksSqlHook = lambda conn_id: {"warehouse": hook}[conn_id]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return SimpleNamespace(conn_type="databricks")


@pytest.mark.parametrize(
    ("conn_type", "cursor_type", "chunk"),
    [
        ("snowflake", SnowflakeCursor, table),
        ("databricks", DatabricksCursor, table),
        ("gcpbigquery", BigQueryCursor, lambda identities: [(identity,) for identity in identities]),
    ],
)
class TestOtherWarehouses:
    def cursor(self, hook, monkeypatch, conn_type, cursor):
        made = Hook(conn_type, cursor)
        hook(databricks(made, monkeypatch) if conn_type == "databricks" else made)
        return cursor

    def test_chunks(self, hook, monkeypatch, tmp_path, conn_type, cursor_type, chunk):
        chunks = [chunk(["ann", "bob"]), chunk(["cid"])]
        cursor = self.cursor(hook, monkeypatch, conn_type, cursor_type(chunks))
        assert members_of("SELECT identity FROM members;", tmp_path) == ["ann", "bob", "cid"]
        assert cursor.statements[-1] == f"SELECT identity FROM members\n{TAG}"
        tags = [sql for sql in cursor.statements if sql.startswith("ALTER SESSION SET QUERY_TAG")]
        assert tags == ([f"ALTER SESSION SET QUERY_TAG = '{TAG[3:-3]}'"] if conn_type == "snowflake" else [])
        assert cursor.closed

    def test_nobody(self, hook, monkeypatch, tmp_path, conn_type, cursor_type, chunk):
        self.cursor(hook, monkeypatch, conn_type, cursor_type())
        assert members_of("SELECT identity FROM members", tmp_path) == []

    @pytest.mark.parametrize("come_before", [0, 2])
    def test_an_error_is_no_shorter_segment(
        self, hook, monkeypatch, tmp_path, conn_type, cursor_type, chunk, come_before
    ):
        broken = cursor_type([chunk([SECRET])] * come_before, RuntimeError(f"bad value {SECRET}"))
        cursor = self.cursor(hook, monkeypatch, conn_type, broken)
        said = refusal("SELECT identity FROM members", tmp_path, TransientError)
        assert ("failed after 2 rows, on" if come_before else "failed, on") in said
        assert "RuntimeError" in said
        assert "its log has them" in said.lower()
        assert cursor.closed

    def test_a_refused_query(self, hook, monkeypatch, tmp_path, conn_type, cursor_type, chunk):
        class ProgrammingError(Exception):
            sqlstate = "42S02"

        refused = cursor_type(error=ProgrammingError(f"no such table, near {SECRET}"))
        self.cursor(hook, monkeypatch, conn_type, refused)
        assert "SQLSTATE 42S02" in refusal("SELECT identity FROM members", tmp_path, ConfigurationError)
        monkeypatch.setattr(ProgrammingError, "sqlstate", "n/a")
        assert "(ProgrammingError)." in refusal("SELECT identity FROM members", tmp_path, ConfigurationError)


def test_redshifts_way_runs_on_postgres(warehouse, hook, driver, tmp_path):
    hook(RedshiftHook("warehouse"))
    fetched = warehouse.log().count("FETCH FORWARD 1000 ")
    result = match(
        SqlMembers("warehouse", many_identities(52_500)), IdentityMapping(), access_to(tmp_path), tmp_path
    )
    assert result.counts["matched"] == 52_500
    # 50 for the first chunk; 3 and the one that finds nothing for the second; and one that finds nothing.
    assert warehouse.log().count("FETCH FORWARD 1000 ") - fetched == 55


def test_redshifts_driver_says_it_in_a_dict(hook, tmp_path):
    class ProgrammingError(Exception):
        pass

    for code, shown in (("42P01", True), ("22P02", False)):
        error = ProgrammingError({"S": "ERROR", "C": code, "M": "what is wrong", "D": SECRET})
        hook(Hook("gcpbigquery", BigQueryCursor(error=error)))
        said = refusal("SELECT identity FROM members", tmp_path, ConfigurationError)
        assert (f"SQLSTATE {code}" in said, "what is wrong" in said) == (True, shown)


def test_when_the_members_were_asked_for(warehouse, tmp_path):
    before = datetime.now(UTC)
    sql = "SELECT CAST(now() AS text) AS identity"
    result = match(SqlMembers("warehouse", sql), IdentityMapping(), access_to(tmp_path), tmp_path)
    told = datetime.fromisoformat(outcome(result, tmp_path)[0][0][1])
    assert before <= result.taken_at <= told + timedelta(seconds=1)


def test_a_connection_that_is_not_there(tmp_path):
    said = refusal("SELECT identity FROM members", tmp_path, ConfigurationError, conn_id="nowhere")
    assert "no Airflow connection 'nowhere'" in said
    assert "Create it in Airflow" in said


@pytest.mark.parametrize("fields", [{"conn_type": "nosuchbase"}, {"host": "db.example"}])
def test_a_connection_whose_provider_is_not_installed(monkeypatch, tmp_path, fields):
    monkeypatch.setenv("AIRFLOW_CONN_ODD", json.dumps({**fields, "password": SECRET}))
    said = refusal("SELECT identity FROM members", tmp_path, ConfigurationError, conn_id="odd")
    assert f"'odd' has the type {fields.get('conn_type')!r}" in said
    assert "Install the provider" in said
