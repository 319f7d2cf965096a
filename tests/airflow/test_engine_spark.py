"""Spark as an engine: a master, two workers and a Thrift server, through Airflow's hook for Hive."""

from __future__ import annotations

import json
import logging
import os
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings

from airflow_provider_heapbraze.operators._access import AirflowAccess
from tests.airflow.cohorts import context
from tests.unit.membership.engine_conformance import (
    COLUMNS,
    STORY,
    EngineConformance,
    stories,
    tell_twice,
)

pytest.importorskip("airflow.providers.apache.hive", reason="the extra group `spark` is not installed")

TYPES = {"double precision": "double", "integer": "int"}


class Elsewhere:
    """A Spark with segments in a schema of their own."""

    engine = "lakehouse"

    def __init__(self, server, folder):
        self.server = server
        self.access = AirflowAccess(folder, context(task_id="match"))
        self._tables = count()

    def table(self, rows):
        name = f"segments.night_{next(self._tables)}"
        columns = ", ".join(f"{column} string" for column in COLUMNS)
        self.server.execute(f"CREATE TABLE {name} ({columns}) USING parquet")
        if rows:
            values = ", ".join(f"({', '.join(map(literal, row))})" for row in rows)
            self.server.execute(f"INSERT INTO {name} VALUES {values}")
        return name

    def type(self, standard):
        return TYPES.get(standard, standard)


def literal(text):
    """Return a text in Spark's SQL, where a dollar would begin a variable."""
    if text is None:
        return "NULL"
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("$", "\\u0024") + "'"


@pytest.fixture
def elsewhere(spark, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("AIRFLOW_CONN_LAKEHOUSE", json.dumps(spark.connection))
    caplog.set_level(logging.DEBUG)
    spark.execute("DROP SCHEMA IF EXISTS segments CASCADE")
    spark.execute("CREATE SCHEMA segments")
    yield Elsewhere(spark, tmp_path)
    left = [name for _, name, _ in spark.execute("SHOW TABLES IN heapbraze") if name.startswith("work_")]
    spark.execute("DROP SCHEMA IF EXISTS heapbraze CASCADE")
    assert not left
    assert "user-1" not in caplog.text


@pytest.mark.skipif(not os.environ.get("HEAPBRAZE_SPARK"), reason="make soak: a night on Spark takes long")
class TestSpark(EngineConformance):
    """All that every engine must do."""

    @settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(story=stories)
    def test_any_story(self, story, elsewhere, tmp_path_factory):
        tell_twice(story, elsewhere, tmp_path_factory.mktemp("story"))


def test_a_story_of_awkward_people(elsewhere, tmp_path):
    tell_twice(STORY[:2], elsewhere, tmp_path)
