"""What each warehouse would be told, for the same story.

The statements of one story are carried out by DuckDB, which stands for the warehouse, and written down in
every dialect. Files in ``golden`` hold them: a change of ours, or of sqlglot, is seen there. Anew::

    HEAPBRAZE_GOLDEN=write python -m pytest tests/unit/membership/test_dialects.py
"""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import duckdb
import pytest
import sqlglot

from airflow_provider_heapbraze.clients.errors import ConfigurationError
from airflow_provider_heapbraze.membership.dialects import DIALECTS, SCHEMA, Dialect, dialect_of
from tests.unit.membership.engine_conformance import COLUMNS, STORY, tell_twice

GOLDEN = Path(__file__).with_name("golden")
WORK = re.compile(
    r"work_\d{14}_[0-9a-f]{8}_\d+_|(?<=[a-z]_)\d{14}_[0-9a-f]{8}_\d+"  # tables
    r"|_\d{8}_[0-9a-f]{12}"  # plans
)


class Recording(Dialect):
    """DuckDB's own SQL, with the same in every other dialect written down beside it."""

    def sql(self, query):
        if isinstance(query, sqlglot.exp.Query):
            for conn_type, dialect in DIALECTS.items():
                self.written[conn_type].append(dialect.sql(query.copy()))
        return super().sql(query)


class StandIn:
    """DuckDB in place of a warehouse, as connection ``warehouse``."""

    engine = "warehouse"

    def __init__(self):
        self.connection = duckdb.connect()
        self.dialect = Recording(
            "duckdb",
            digest="CAST(('0x' || substr(md5(v), FIRST, 15)) AS BIGINT)",
            byte_length="strlen(v)",
        )
        object.__setattr__(self.dialect, "written", {conn_type: [] for conn_type in DIALECTS})
        self.access = self
        self.conn_id = self.engine
        self._tables = count()

    def table(self, rows):
        name = f"night_{next(self._tables)}"
        self.connection.execute(
            f"CREATE TABLE {name} ({', '.join(f'{column} VARCHAR' for column in COLUMNS)})"
        )
        if rows:
            self.connection.executemany(f"INSERT INTO {name} VALUES (?, ?, ?, ?)", rows)
        return name

    def path(self, uri):
        return Path(uri)

    @contextmanager
    def database(self, conn_id):
        assert conn_id == self.engine
        yield self

    def run(self, sql):
        return self.connection.execute(sql).fetchall()

    @contextmanager
    def read(self, query):
        done = self.connection.execute(query)
        yield [column[0] for column in done.description], iter([done.fetchall()])


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Give the statements of a story in every dialect, without what differs from run to run."""
    stand_in = StandIn()
    tell_twice(STORY, stand_in, tmp_path_factory.mktemp("story"))
    return {
        conn_type: list(dict.fromkeys(WORK.sub("", statement) for statement in statements))
        for conn_type, statements in stand_in.dialect.written.items()
    }


@pytest.mark.parametrize("conn_type", DIALECTS)
def test_statements_are_as_they_were(written, conn_type):
    file = GOLDEN / f"{conn_type}.sql"
    text = "\n\n".join(f"{statement};" for statement in written[conn_type]) + "\n"
    if os.environ.get("HEAPBRAZE_GOLDEN") == "write":
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(text.encode())
    assert file.read_bytes().decode() == text


@pytest.mark.parametrize("conn_type", DIALECTS)
def test_statements_can_be_read_in_their_dialect(written, conn_type):
    dialect = DIALECTS[conn_type].name
    for statement in written[conn_type]:
        parsed = sqlglot.parse_one(statement, read=dialect)
        assert isinstance(parsed, sqlglot.exp.Query)
        assert {table.db for table in parsed.find_all(sqlglot.exp.Table) if table.db} <= {SCHEMA}


@pytest.mark.parametrize("conn_type", DIALECTS)
def test_nothing_is_left_that_the_warehouse_does_not_have(written, conn_type):
    everything = "\n".join(written[conn_type]).lower()
    for ours in (
        "first_digest",
        "second_digest",
        "size_in_bytes",
        "trimmed(",
        "says_yes",
        "strlen",
        "using (",
    ):
        assert ours not in everything
    if conn_type not in {"hiveserver2", "databricks"}:
        assert " semi join " not in everything
        assert " anti join " not in everything


def test_an_unknown_database_is_refused():
    with pytest.raises(
        ConfigurationError, match=r"type 'mysql', in which nothing can be matched\. Nothing was sent"
    ):
        dialect_of("mysql", "warehouse")
