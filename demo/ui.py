"""Airflow's UI with the cohort DAG, the connections and a local Braze: ``make ui``."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import world

from airflow_provider_heapbraze.sandbox.client import Sandbox


def main() -> int:
    """Run Airflow until it is stopped with Ctrl-C."""
    shutil.rmtree(world.HOME, ignore_errors=True)
    world.HOME.mkdir()
    world.write_segment(world.tonight())
    world.write_events()
    with world.local_braze() as sandbox:
        environment = {
            **world.environment(sandbox),
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
            "AIRFLOW__CORE__SENSITIVE_VAR_CONN_NAMES": "data_import_key,pii_salt",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__API__HOST": "127.0.0.1",
        }
        print("Setting up Airflow ...", flush=True)
        subprocess.run(["airflow", "db", "migrate"], env=environment, check=True, stdout=subprocess.DEVNULL)
        subprocess.run(
            ["airflow", "pools", "set", "braze", "1", "Braze imports"], env=environment, check=True
        )
        subprocess.run(["airflow", "pools", "set", "heap", "2", "Heap exports"], env=environment, check=True)
        _import_connections(environment, sandbox)
        print("\nAirflow's UI: http://localhost:8080 (no login; Ctrl-C ends it)\n", flush=True)
        try:
            return subprocess.run(["airflow", "standalone"], env=environment, check=False).returncode
        except KeyboardInterrupt:
            return 0


def _import_connections(environment: dict[str, str], sandbox: Sandbox) -> None:
    """Put the connections where the UI shows them: it shows none from the environment."""
    host, port = sandbox.url.rsplit(":", 1)
    # Airflow's test button sends port 0 where a connection has none, and is refused: so it has one here.
    place = {"host": host, "port": int(port)}
    connections = {
        "braze_default": {**sandbox.braze_connection(), **place},
        "heap_default": {**sandbox.heap_connection(), **place},
    }
    file = world.HOME / "connections.json"
    file.write_text(json.dumps(connections))
    subprocess.run(["airflow", "connections", "import", str(file)], env=environment, check=True)


if __name__ == "__main__":
    sys.exit(main())
