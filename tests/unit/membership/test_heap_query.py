"""The query over the tables that Heap keeps in a warehouse: the same rows from every database."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import duckdb
import pytest

from airflow_provider_heapbraze.clients.errors import ConfigurationError
from airflow_provider_heapbraze.membership.heap_query import heap_segment_query

TABLES = """
    CREATE TABLE main_production.users (user_id bigint, identity text, last_modified bigint);
    CREATE TABLE main_production.trial (user_id bigint, entered bigint);
    INSERT INTO main_production.trial VALUES (1, 1), (1, 2), (2, 1), (3, 1), (4, 1), (9, 1), (NULL, 1);
    INSERT INTO main_production.users VALUES
        (1, 'ann old', 1), (1, 'ann', 2), (1, 'ann older', NULL),
        (2, 'bob', 5), (2, 'bob', 5),
        (3, 'cid one', 7), (3, 'cid two', 7), (3, NULL, 7),
        (4, NULL, 1),
        (5, 'not in it', 1);
"""
MEMBERS = [("ann",), ("bob",), ("cid two",), (None,)]


@pytest.fixture
def in_postgres(postgres):
    postgres.execute(
        f"DROP SCHEMA IF EXISTS main_production CASCADE; CREATE SCHEMA main_production; {TABLES}"
    )
    return postgres.execute


@pytest.fixture
def in_duckdb():
    with duckdb.connect() as opened:
        opened.execute(f"CREATE SCHEMA main_production; {TABLES}").fetchall()
        yield lambda sql: opened.execute(sql).fetchall()


@pytest.fixture
def in_sqlite():
    with closing(sqlite3.connect(":memory:")) as opened:
        opened.execute("ATTACH ':memory:' AS main_production")
        opened.executescript(TABLES)
        yield lambda sql: opened.execute(sql).fetchall()


@pytest.mark.parametrize("database", ["in_postgres", "in_duckdb", "in_sqlite"])
def test_every_user_once(request, database):
    execute = request.getfixturevalue(database)
    assert sorted(execute(heap_segment_query("trial")), key=str) == sorted(MEMBERS, key=str)
    both = heap_segment_query("main_production.trial", columns=["last_modified", "identity"])
    assert (2, "ann") in execute(both)


def test_a_database_before_the_schema(in_postgres):
    assert len(in_postgres(heap_segment_query("trial", "postgres.main_production"))) == len(MEMBERS)


def test_dashes_are_for_warehouses_with_backticks():
    sql = heap_segment_query("trial", "my-project.main_production", "heap_id")
    assert "FROM `my-project`.main_production.users u" in sql
    assert "SELECT s.heap_id FROM `my-project`.main_production.trial s" in sql


@pytest.mark.parametrize(
    "names",
    [
        {"segment_table": ""},
        {"segment_table": "trial; DROP TABLE users"},
        {"segment_table": "trial`"},
        {"segment_table": "one.two.three.trial"},
        {"segment_table": "trial", "schema": "one.two.three"},
        {"segment_table": "trial", "schema": "{{ schema }}"},
        {"segment_table": "trial", "user_column": "user-id"},
        {"segment_table": "trial", "columns": "identity"},
        {"segment_table": "trial", "columns": []},
        {"segment_table": "trial", "columns": ["identity FROM users --"]},
        {"segment_table": "trial", "columns": ["identité"]},
    ],
)
def test_what_is_no_name_is_refused(names):
    with pytest.raises(ConfigurationError, match="heap_segment_query"):
        heap_segment_query(**names)
