"""The same tests, with all set work in a warehouse; a few of them always, all of them in ``make soak``."""

from __future__ import annotations

import os
from itertools import count
from pathlib import Path

import pytest

from airflow_provider_heapbraze.membership.matching import match
from airflow_provider_heapbraze.membership.members import SqlMembers
from tests.unit.membership.conftest import MAPPING, Nightly
from tests.unit.membership.databases import PostgresAccess, tables_of

COLUMNS = ("identity", "email", "device", "identified")


def pytest_collection_modifyitems(items):
    """Leave out all but every eighth: a night in a warehouse takes a second."""
    here = [item for item in items if Path(__file__).parent in item.path.parents]
    if not os.environ.get("HEAPBRAZE_WAREHOUSE"):
        left_out = {id(item) for number, item in enumerate(here) if number % 8}
        items[:] = [item for item in items if id(item) not in left_out]


@pytest.fixture
def nightly_class(postgres):
    """Give a target whose members, matches, plans and snapshots are in Postgres."""
    tables = count()
    postgres.execute("DROP SCHEMA IF EXISTS nights CASCADE; CREATE SCHEMA nights")

    class NightlyInPostgres(Nightly):
        engine = "warehouse"
        access = PostgresAccess(postgres)

        def match(self, rows):
            table = f"nights.members_{next(tables)}"
            postgres.execute(f"CREATE TABLE {table} ({', '.join(f'{name} text' for name in COLUMNS)})")
            for row in rows:
                values = [row, "", "", "true"] if isinstance(row, str) else row
                postgres.execute(f"INSERT INTO {table} VALUES (%s, %s, %s, %s)", *values)
            members = SqlMembers("warehouse", f"SELECT * FROM {table}  -- of this night")
            return match(members, MAPPING, self.access, self.folder / "ledger", self.engine)

    yield NightlyInPostgres
    left = [name for name in tables_of(postgres) if name.startswith("work_")]
    postgres.execute("DROP SCHEMA IF EXISTS heapbraze CASCADE")
    assert not left
