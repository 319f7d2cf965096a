"""A whole Airflow of its own: a metadata database, the example DAGs, and the sandbox for Braze and Heap."""

from __future__ import annotations

import csv
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, contextmanager, suppress
from itertools import cycle, islice
from pathlib import Path

import psutil
import pytest
import requests

from tests.airflow_command import AirflowCommands

PROJECT = Path(__file__).resolve().parents[1]
COHORT_ID = "heap-cohort"
DAG_ID = "heap_cohorts_to_braze"
# The segment in Braze that is built on the cohort, and the property in Heap that it becomes.
SEGMENT_ID = "segment-of-the-cohort"
PROPERTY = "in_cohort"
# What Airflow reads at its import, too.
ALL_HAVE = {
    "AIRFLOW__CORE__DAGS_FOLDER": str(PROJECT / "dags"),
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
    "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
    "AIRFLOW__CORE__SENSITIVE_VAR_CONN_NAMES": "data_import_key,pii_salt",
}


# Below those that the kernel gives to whoever asks for any, so that none is taken before its server starts;
# and others in each process of a test run.
PORTS = cycle(range(12_000 + os.getpid() % 200 * 100, 12_100 + os.getpid() % 200 * 100))


def free_port():
    """Return a port that is free, and another one each time."""
    for port in islice(PORTS, 100):
        with socket.socket() as opened, suppress(OSError):
            opened.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


class Airflow:
    """An Airflow home, driven by its command line as a user would."""

    def __init__(self, home, sandbox, commands):
        self.home = home
        self.commands = commands
        self.sandbox = sandbox
        self.port = free_port()
        self.segment = home / "segment.csv"
        self.ledger = home / "ledger"
        self.landed = home / "landed"
        self.dumps = home / "dumps"
        self.currents = home / "currents"
        self.currents.mkdir()
        self.cohorts = home / "cohorts.yaml"
        self.write_cohort()
        segments = home / "segments.yaml"
        segments.write_text(json.dumps([{"segment_id": SEGMENT_ID, "property_name": PROPERTY}]))
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")},
            **sandbox.environment(),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "AIRFLOW_HOME": str(home),
            **ALL_HAVE,
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(self.port),
            "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{self.port}",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{self.port}/execution/",
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
            # No DAG file changes. To import them all again each half minute takes a third of a core.
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "3600",
            # A triggerer that is killed is known to be gone sooner than by default.
            "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "10",
            "AIRFLOW__HEAPBRAZE__LEDGER": self.ledger.as_uri(),
            "AIRFLOW__HEAPBRAZE__LANDING": "True",
            "AIRFLOW__HEAPBRAZE__LANDING_PATH": self.landed.as_uri(),
            "HEAP_COHORTS_FILE": str(self.cohorts),
            "HEAP_MEMBERS": self.segment.as_uri(),
            "BRAZE_SEGMENTS_FILE": str(segments),
            "BRAZE_CURRENTS_SOURCE": self.currents.as_uri(),
            "HEAP_CONNECT_PATH": self.dumps.as_uri(),
            "TMPDIR": str(home),  # what is shared on a machine is not shared between tests
        }

    def run(self, *command):
        """Run a command; return what it printed."""
        output = self.home / "printed.txt"
        code = self.commands.run(command, self.environment, output)
        printed = output.read_text()
        assert code == 0, printed[-5000:]
        return printed

    def write_cohort(self, **more):
        """Say what the cohort DAG imports."""
        cohort = {"cohort_id": COHORT_ID, "cohort_name": "Cohort", "members": self.segment.as_uri(), **more}
        self.cohorts.write_text(json.dumps([cohort]))

    def write_segment(self, rows):
        """Write members as (identity, email, device_id, is_identified); a plain text is an identity."""
        with self.segment.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["identity", "email", "device_id", "is_identified"])
            writer.writerows([row, "", "", "true"] if isinstance(row, str) else row for row in rows)

    def test_dag(self, date, *, dag_id=DAG_ID, conf=None):
        """Run a DAG in one process, as ``dag.test()`` does."""
        return self.run("dags", "test", dag_id, date, *(["--conf", json.dumps(conf)] if conf else []))

    def query(self, sql):
        """Ask the metadata database."""
        with closing(sqlite3.connect(self.home / "airflow.db", timeout=30)) as database:
            return database.execute(sql).fetchall()

    def records(self, folder):
        """Return every record in such folders of the ledger, oldest first."""
        return [json.loads(path.read_text()) for path in sorted(self.ledger.glob(f"{folder}/*.json"))]

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def api(self, method, path, **body):
        """Call Airflow's API as its UI does."""
        token = requests.get(f"{self.url}/auth/token", timeout=30).json()["access_token"]
        answer = requests.request(
            method,
            f"{self.url}/api/v2/{path}",
            headers={"Authorization": f"Bearer {token}"},
            json=body or None,
            timeout=30,
        )
        assert answer.ok, answer.text
        return answer.json()

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
            self._started = [process]
            try:
                self.wait_for(self._is_up)
                yield self
            finally:
                for started in self._started[1:]:
                    started.terminate()
                    started.wait(timeout=60)
                os.killpg(process.pid, 15)
                process.wait(timeout=60)

    def kill_task(self):
        """Kill the process that talks to the sandbox right now, as a lost machine would."""
        port = int(self.sandbox.url.rsplit(":", 1)[1])

        def talking():
            return [process for process in self._processes() if port in _ports_of_peers(process)]

        self.wait_for(talking)[0].kill()

    def restart_triggerer(self):
        """Kill the triggerer in the middle of its work, and start another one."""
        killed = [process for process in self._processes() if "triggerer" in _command(process)]
        for process in killed:
            process.kill()
        with (self.home / "triggerer.log").open("w") as output:
            self._started.append(
                subprocess.Popen(["airflow", "triggerer"], env=self.environment, stdout=output, stderr=output)
            )

    def _processes(self):
        """Give every process of this Airflow; they are the descendants of what was started here."""
        for started in self._started:
            yield from psutil.Process(started.pid).children(recursive=True)

    def _is_up(self):
        try:
            healthy = requests.get(f"{self.url}/api/v2/monitor/health", timeout=5).ok
        except (requests.ConnectionError, requests.Timeout):  # it takes connections before it answers
            return False
        return healthy and self.query("SELECT 1 FROM serialized_dag")

    def wait_for(self, what, seconds=120):
        """Wait until something is true; return it."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            found = what()
            if found:
                return found
            time.sleep(0.5)
        tasks = self.query("SELECT run_id, task_id, map_index, state, try_number FROM task_instance")
        runs = self.query("SELECT run_id, logical_date, state FROM dag_run")
        log = (self.home / "standalone.log").read_text()
        raise AssertionError(f"waited in vain: {tasks} {runs}\n{log[-3000:]}")


def _command(process):
    with suppress(psutil.Error):  # gone, or about to be
        return " ".join(process.cmdline())
    return ""


def _ports_of_peers(process):
    with suppress(psutil.Error):
        return {peer.raddr.port for peer in process.net_connections() if peer.raddr}
    return set()


@pytest.hookimpl(trylast=True)  # after the test's own fixtures
def pytest_runtest_teardown(item, nextitem):
    """Stop the running Airflow after the last test that needs it: idle, too, it takes time from others."""
    used = "running_airflow" in getattr(item, "funcargs", ())
    if used and "running_airflow" not in getattr(nextitem, "fixturenames", ()):
        (server,) = item._fixtureinfo.name2fixturedefs["running_airflow_server"]
        server.finish(item._request)  # a test that comes all the same starts it again


@pytest.fixture(scope="session")
def airflow_commands(tmp_path_factory):
    """Give Airflow's command line, which is imported once."""
    home = tmp_path_factory.mktemp("airflow-commands")
    commands = AirflowCommands(
        {
            **{name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")},
            **ALL_HAVE,
            "AIRFLOW_HOME": str(home),
        }
    )
    yield commands
    commands.close()


@pytest.fixture(scope="session")
def migrated_database(airflow_commands, tmp_path_factory):
    """Make a metadata database once; a test takes a copy of it."""
    home = tmp_path_factory.mktemp("airflow-home")
    environment = {
        **os.environ,
        **ALL_HAVE,
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
    }
    assert airflow_commands.run(["db", "migrate"], environment, home / "printed.txt") == 0
    return home / "airflow.db"


@pytest.fixture
def airflow(airflow_commands, migrated_database, heapbraze_sandbox, tmp_path):
    (tmp_path / "airflow.db").write_bytes(migrated_database.read_bytes())
    return Airflow(tmp_path, heapbraze_sandbox, airflow_commands)


@pytest.fixture
def running_airflow(running_airflow_server, heapbraze_sandbox):
    """Give the running Airflow with an empty sandbox and an empty ledger."""
    shutil.rmtree(running_airflow_server.ledger, ignore_errors=True)
    shutil.rmtree(running_airflow_server.currents)
    running_airflow_server.currents.mkdir()
    return running_airflow_server


@pytest.fixture(scope="session")
def running_airflow_server(airflow_commands, migrated_database, heapbraze_sandbox_server, tmp_path_factory):
    """Run a whole Airflow, once for all tests that need one: scheduler, API server and UI."""
    home = tmp_path_factory.mktemp("running-airflow")
    (home / "airflow.db").write_bytes(migrated_database.read_bytes())
    airflow = Airflow(home, heapbraze_sandbox_server, airflow_commands)
    airflow.write_segment([])  # for the run that the schedule makes at once
    airflow.run("pools", "set", "braze", "1", "Braze imports")
    airflow.run("pools", "set", "heap", "2", "Heap exports")
    host, port = heapbraze_sandbox_server.url.rsplit(":", 1)
    place = {"host": host, "port": int(port)}  # Airflow's test button sends port 0 where there is none
    connections = home / "connections.json"
    connections.write_text(
        json.dumps(
            {
                "braze_default": {**heapbraze_sandbox_server.braze_connection(), **place},
                "heap_default": {**heapbraze_sandbox_server.heap_connection(), **place},
            }
        )
    )
    for name in heapbraze_sandbox_server.environment():
        del airflow.environment[name]  # else those of the environment would be shown and used
    airflow.run("connections", "import", str(connections))
    with airflow.standalone():
        airflow.run("dags", "unpause", DAG_ID)
        airflow.wait_for(lambda: ("success",) in airflow.query("SELECT state FROM dag_run"))
        yield airflow
