"""The Spark that tests run SQL on is a cluster, and Airflow's own hook connects to it."""

from __future__ import annotations

import json
import logging
from contextlib import closing

import pytest

pytest.importorskip("airflow.providers.apache.hive", reason="a group of dependencies that CI installs")


@pytest.fixture
def connection(spark, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_SPARK", json.dumps(spark.connection))
    from airflow.sdk import BaseHook

    # PyHive logs each statement with the values in it.
    monkeypatch.setattr(logging.getLogger("pyhive.hive"), "level", logging.WARNING)
    with closing(BaseHook.get_hook("spark").get_conn()) as opened:
        yield opened


def test_tables_are_made_and_read_by_both_workers(spark, connection):
    with closing(connection.cursor()) as cursor:
        cursor.execute("CREATE SCHEMA here")
        cursor.execute(
            "CREATE TABLE here.people USING parquet AS "
            "SELECT /*+ REPARTITION(2) */ id, %s AS name FROM range(1000)",
            ["O'Brien \\ 😀"],
        )
        cursor.execute("SELECT name, count(*) FROM here.people GROUP BY name")
        assert cursor.fetchall() == [("O'Brien \\ 😀", 1000)]
    files = list((spark.folder / "warehouse/here.db/people").glob("*.parquet"))
    assert len(files) == 2, spark.log()
    assert all(list((spark.folder / f"work{number}").glob("app-*/*/stderr")) for number in (1, 2))


def test_a_refused_statement_is_told(spark):
    from pyhive.exc import OperationalError

    with pytest.raises(OperationalError, match="TABLE_OR_VIEW_NOT_FOUND"):
        spark.execute("SELECT * FROM missing")
