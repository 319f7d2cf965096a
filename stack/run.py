"""The topology of docker-compose.yaml without Docker: ``make stack``.

Postgres, Redis, scheduler, API server, DAG processor, triggerer, two Celery workers, sandbox and landing
service are started; a cohort is imported to green; then a worker is killed while it delivers, the other one
finishes, and Braze's cohort is exact.
"""

from __future__ import annotations

import argparse
import csv
import json
import secrets
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from cryptography.fernet import Fernet

from airflow_provider_heapbraze.sandbox.client import Sandbox
from airflow_provider_heapbraze.sandbox.connections import environment as connections
from stack.compose import services, variables_of
from stack.processes import Stack

PROJECT = Path(__file__).resolve().parents[1]
COHORT_ID = "stack-cohort"
DAG_ID = "heap_cohorts_to_braze"
IMPORT = "task_id='cohort.import'"
FIRST, SECOND = range(20_000), range(200, 50_000)
GREEN_WITHIN = 600.0
PORTS = (
    "POSTGRES_PORT",
    "REDIS_PORT",
    "AIRFLOW_PORT",
    "SCHEDULER_HEALTH_PORT",
    "TRIGGERER_LOG_PORT",
    "WORKER_1_LOG_PORT",
    "WORKER_2_LOG_PORT",
    "SANDBOX_PORT",
    "LANDING_PORT",
)


def main() -> int:
    """Run the whole; return 1 where something is not as it should be."""
    options = _options()
    # In a folder that the database's user reaches, too.
    home = Path(tempfile.mkdtemp(prefix="heapbraze-stack-", dir="/tmp"))
    home.chmod(0o755)
    try:
        return _story(home, keep_running=options.keep_running)
    finally:
        if options.keep_logs:
            print(f"Logs and data: {home}")
        else:
            shutil.rmtree(home, ignore_errors=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep-running", action="store_true", help="until Ctrl-C, once all is shown")
    parser.add_argument("--keep-logs", action="store_true", help="do not remove logs and data at the end")
    return parser.parse_args()


def _story(home: Path, *, keep_running: bool) -> int:
    variables = _variables()
    stack = Stack(services(PROJECT / "docker-compose.yaml", variables, home), home)
    sandbox = Sandbox(f"http://127.0.0.1:{variables['SANDBOX_PORT']}")
    ledger = home / "volumes" / "heapbraze" / "ledger"
    # Before the DAG processor reads the file: it looks again only after half a minute.
    _write_cohort(home, FIRST)
    print("Starting the services of docker-compose.yaml:", flush=True)
    with stack.up():
        print("A cohort is imported:", flush=True)
        stack.run("scheduler", ["airflow", "dags", "unpause", DAG_ID])
        _trigger(stack, "first")
        _wait(lambda: _state(stack, "first") == "success", lambda: _state(stack, "first"))
        if not _exact(sandbox, FIRST):
            return 1
        print("A worker is killed while it delivers:", flush=True)
        sandbox.faults(latency=1.0)
        _write_cohort(home, SECOND)
        _trigger(stack, "second")
        _wait(lambda: _delivering(ledger) > 0, lambda: _state(stack, "second"))
        (killed,) = _workers_of(stack, "second")
        stack.kill(killed)
        print(f"  {killed} is gone", flush=True)
        sandbox.faults()
        _wait(lambda: _state(stack, "second") == "success", lambda: _state(stack, "second"))
        print(f"  {', '.join(_workers_of(stack, 'second') - {killed})} finished its work", flush=True)
        if not _exact(sandbox, SECOND):
            return 1
        if keep_running:
            _wait_for_the_end(variables)
    return 0


def _variables() -> dict[str, str]:
    """Return what ``.env`` would hold: random secrets, free ports, and connections to the sandbox."""
    names = variables_of(PROJECT / ".env.example")
    random = {name: secrets.token_urlsafe(24) for name in names}
    ports = dict(zip(PORTS, map(str, _free_ports(len(PORTS))), strict=True))
    reach = connections(f"http://127.0.0.1:{ports['SANDBOX_PORT']}")
    return {
        **random,
        **ports,
        "AIRFLOW_FERNET_KEY": Fernet.generate_key().decode(),
        "BRAZE_CONNECTION": reach["AIRFLOW_CONN_BRAZE_DEFAULT"],
        "HEAP_CONNECTION": reach["AIRFLOW_CONN_HEAP_DEFAULT"],
        "TASK_HEARTBEAT_TIMEOUT": "30",  # so that nobody waits five minutes here
        "WORKER_CONCURRENCY": "2",
    }


def _free_ports(count: int) -> list[int]:
    taken = [socket.socket() for _ in range(count)]
    for one in taken:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in taken]
    for one in taken:
        one.close()
    return ports


def _write_cohort(home: Path, numbers: Iterable[int]) -> None:
    folder = home / "volumes" / "heapbraze"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "segment.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["identity", "email", "device_id", "is_identified"])
        rows.writerows([f"user-{number}", "", "", "true"] for number in numbers)
    cohort = {
        "cohort_id": COHORT_ID,
        "cohort_name": "Stack",
        "members": (folder / "segment.csv").as_uri(),
    }
    (folder / "cohorts.yaml").write_text(json.dumps([cohort]))


def _trigger(stack: Stack, run_id: str) -> None:
    stack.run("scheduler", ["airflow", "dags", "trigger", DAG_ID, "--run-id", run_id])


def _state(stack: Stack, run_id: str) -> str:
    """Return a run's state: empty where it is not known."""
    return stack.ask(f"SELECT state FROM dag_run WHERE run_id = '{run_id}'")


def _workers_of(stack: Stack, run_id: str) -> set[str]:
    """Return the workers that were given the import of a run."""
    return {
        name
        for name in ("worker-1", "worker-2")
        if any(IMPORT in line and f"run_id='{run_id}'" in line for line in stack.log(name))
    }


def _delivering(ledger: Path) -> int:
    """Count the records of answers of the plan that is open."""
    logs = sorted(ledger.glob("targets/*/log/*.json"))
    newest = json.loads(logs[-1].read_text()) if logs else {}
    if newest.get("kind") != "plan":
        return 0
    return len(list(ledger.glob(f"targets/*/plans/{newest['plan_id']}/settled/*.json")))


def _wait(is_so: Callable[[], bool], state: Callable[[], str]) -> None:
    until = time.monotonic() + GREEN_WITHIN
    while not is_so():
        if state() == "failed" or time.monotonic() > until:
            raise SystemExit(f"It did not get there: the run is {state()}.")
        time.sleep(1)


def _exact(sandbox: Sandbox, numbers: Iterable[int]) -> bool:
    members = set(sandbox.cohort(COHORT_ID)["members"])
    wanted = {f"user-{number}" for number in numbers}
    exact = members == wanted
    print(f"  Braze's cohort: {len(members):,} people, {'exact' if exact else 'NOT what the segment says'}")
    return exact


def _wait_for_the_end(variables: dict[str, str]) -> None:
    print(f"Airflow's UI: http://127.0.0.1:{variables['AIRFLOW_PORT']} (Ctrl-C ends it)", flush=True)
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        return


if __name__ == "__main__":
    sys.exit(main())
