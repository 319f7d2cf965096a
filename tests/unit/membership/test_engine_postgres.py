"""Postgres, a real server, as an engine."""

from __future__ import annotations

import os
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings

from tests.unit.membership.databases import PostgresAccess, tables_of
from tests.unit.membership.engine_conformance import COLUMNS, EngineConformance, stories, tell_twice


class Elsewhere:
    """A Postgres with segments in a schema of their own."""

    engine = "warehouse"

    def __init__(self, server):
        self.server = server
        self.access = PostgresAccess(server)
        self._tables = count()

    def table(self, rows):
        name = f"segments.night_{next(self._tables)}"
        self.server.execute(f"CREATE TABLE {name} ({', '.join(f'{column} text' for column in COLUMNS)})")
        for row in rows:
            self.server.execute(f"INSERT INTO {name} VALUES (%s, %s, %s, %s)", *row)
        return name

    def type(self, standard):
        return standard


@pytest.fixture
def elsewhere(postgres):
    postgres.execute("DROP SCHEMA IF EXISTS segments CASCADE; CREATE SCHEMA segments")
    yield Elsewhere(postgres)
    left = [name for name in tables_of(postgres) if name.startswith("work_")]
    postgres.execute("DROP SCHEMA IF EXISTS heapbraze CASCADE")
    assert not left


class TestPostgres(EngineConformance):
    @settings(
        max_examples=int(os.environ.get("HEAPBRAZE_EXAMPLES", "6")),
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(story=stories)
    def test_any_story(self, story, elsewhere, tmp_path_factory):
        tell_twice(story, elsewhere, tmp_path_factory.mktemp("story"))
