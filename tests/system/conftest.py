"""A whole Airflow of its own: a metadata database, the example DAGs, and the sandbox for Braze and Heap."""

from __future__ import annotations

import csv
import json
import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
COHORT_ID = "heap-cohort"
DAG_ID = "heap_cohorts_to_braze"


class Airflow:
    """An Airflow home, driven by its command line as a user would."""

    def __init__(self, home, sandbox):
        self.home = home
        self.sandbox = sandbox
        self.segment = home / "segment.csv"
        self.ledger = home / "ledger"
        cohorts = home / "cohorts.yaml"
        cohorts.write_text(
            json.dumps([{"cohort_id": COHORT_ID, "cohort_name": "Cohort", "members": self.segment.as_uri()}])
        )
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")},
            **sandbox.environment(),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(PROJECT / "dags"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
            "AIRFLOW__HEAPBRAZE__LEDGER": self.ledger.as_uri(),
            "HEAP_COHORTS_FILE": str(cohorts),
        }

    def run(self, *command):
        """Run a command; return what it printed."""
        done = subprocess.run(
            ["airflow", *command],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-5000:]
        return done.stdout

    def write_segment(self, rows):
        """Write members as (identity, email, device_id, is_identified); a plain text is an identity."""
        with self.segment.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["identity", "email", "device_id", "is_identified"])
            writer.writerows([row, "", "", "true"] if isinstance(row, str) else row for row in rows)

    def test_dag(self, date):
        """Run the DAG in one process, as ``dag.test()`` does."""
        return self.run("dags", "test", DAG_ID, date)

    def query(self, sql):
        """Ask the metadata database."""
        with closing(sqlite3.connect(self.home / "airflow.db", timeout=30)) as database:
            return database.execute(sql).fetchall()

    def reports(self):
        """Return every run's report, oldest first."""
        return [json.loads(path.read_text()) for path in sorted(self.ledger.glob("targets/*/reports/*.json"))]

    @contextmanager
    def standalone(self):
        """Run scheduler, API server, DAG processor and triggerer for as long as the context lasts."""
        log = self.home / "standalone.log"
        with log.open("w") as output:
            process = subprocess.Popen(
                ["airflow", "standalone"],
                env=self.environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
            try:
                yield
            finally:
                os.killpg(process.pid, 15)
                process.wait(timeout=60)

    def wait_for(self, what, seconds=120):
        """Wait until something is true; return it."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            found = what()
            if found:
                return found
            time.sleep(0.5)
        log = self.home / "standalone.log"
        raise AssertionError(log.read_text()[-4000:] if log.exists() else "waited in vain")


@pytest.fixture(scope="session")
def migrated_database(tmp_path_factory):
    """Make a metadata database once; a test takes a copy of it."""
    home = tmp_path_factory.mktemp("airflow-home")
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
    }
    subprocess.run(["airflow", "db", "migrate"], env=environment, check=True, stdout=subprocess.DEVNULL)
    return home / "airflow.db"


@pytest.fixture
def airflow(migrated_database, heapbraze_sandbox, tmp_path):
    (tmp_path / "airflow.db").write_bytes(migrated_database.read_bytes())
    return Airflow(tmp_path, heapbraze_sandbox)
