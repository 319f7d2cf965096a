"""The topology of docker-compose.yaml without Docker: ``make stack``.

Postgres, Redis, scheduler, API server, DAG processor, triggerer, two Celery workers, sandbox and landing
service are started. On three nights 20 mapped cohorts are imported: by one worker; by two, to compare the
time; and by two of which one is killed while it delivers, so that the other one finishes. After each night
every cohort in Braze is compared with its segment, to the last person.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import secrets
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path

import redis
from cryptography.fernet import Fernet

from airflow_provider_heapbraze.sandbox.client import Sandbox
from airflow_provider_heapbraze.sandbox.connections import environment as connections
from stack.compose import services, variables_of
from stack.processes import Stack

PROJECT = Path(__file__).resolve().parents[1]
DAG_ID = "heap_cohorts_to_braze"
WORKERS = ("worker-1", "worker-2")
COHORTS = 20
PEOPLE = 30_000  # in each
MOVED = 500  # leave each, and as many join, from one night to the next
SEND_ALL = {"force_full": True}
# It is Braze that is waited for, as in imports that take long, and not the processors of this machine, which
# all services share.
SLOWLY = {"latency": 2.0, "endpoints": ["cohort-users"]}
BUDGET_DB = 1  # of Redis; Celery has 0
BRAZES_LIMIT = 250_000 / 3600  # requests a second
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
    _write_cohorts(home, night=0)
    print("Starting the services of docker-compose.yaml:", flush=True)
    with stack.up():
        sandbox.faults(**SLOWLY)
        print(f"{COHORTS} cohorts of {PEOPLE:,} people are imported by one worker:", flush=True)
        stack.stop("worker-2")
        _end(stack, sandbox, _begin_with_the_night_that_is_due(stack), night=0)
        print("The next night they are by two:", flush=True)
        stack.start("worker-2")
        _write_cohorts(home, night=1)
        _begin(stack, "two-workers")
        _end(stack, sandbox, "two-workers", night=1)
        _look_for_budget(variables)
        print("The third night one of the two is killed while it delivers:", flush=True)
        _write_cohorts(home, night=2)
        _begin(stack, "one-killed")
        _kill_one(stack, ledger, "one-killed")
        _end(stack, sandbox, "one-killed", night=2)
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
    }


def _free_ports(count: int) -> list[int]:
    taken = [socket.socket() for _ in range(count)]
    for one in taken:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in taken]
    for one in taken:
        one.close()
    return ports


def _members(cohort: int, night: int) -> range:
    """Return the numbers of the users who are in a cohort's segment on a night."""
    first = cohort * 100 + night * MOVED
    return range(first, first + PEOPLE)


def _cohort_id(cohort: int) -> str:
    return f"stack-{cohort:02}"


def _write_cohorts(home: Path, night: int) -> None:
    """Write the segments of a night, and the file that names the cohorts, which stays as it is."""
    folder = home / "volumes" / "heapbraze"
    folder.mkdir(parents=True, exist_ok=True)
    cohorts = []
    for cohort in range(COHORTS):
        segment = folder / f"segment-{cohort:02}.csv"
        with segment.open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["identity", "email", "device_id", "is_identified"])
            rows.writerows([f"user-{number}", "", "", "true"] for number in _members(cohort, night))
        cohorts.append(
            {
                "cohort_id": _cohort_id(cohort),
                "cohort_name": f"Stack {cohort:02}",
                "members": segment.as_uri(),
            }
        )
    (folder / "cohorts.yaml").write_text(json.dumps(cohorts))


def _begin_with_the_night_that_is_due(stack: Stack) -> str:
    """Switch the DAG on; return the run that Airflow then makes by itself."""
    stack.run("scheduler", ["airflow", "dags", "unpause", DAG_ID])
    _wait(lambda: bool(_scheduled(stack)), lambda: "not there")
    return _scheduled(stack)


def _scheduled(stack: Stack) -> str:
    return stack.ask(f"SELECT run_id FROM dag_run WHERE dag_id = '{DAG_ID}' LIMIT 1")


def _begin(stack: Stack, run_id: str) -> None:
    """Begin a night that sends everybody, so that it has as much to do as the first one."""
    trigger = ["airflow", "dags", "trigger", DAG_ID, "--run-id", run_id, "--conf", json.dumps(SEND_ALL)]
    stack.run("scheduler", trigger)


def _end(stack: Stack, sandbox: Sandbox, run_id: str, night: int) -> None:
    """Wait for a run's end, say what it took, and compare what Braze has.

    :raises SystemExit: it failed, or a cohort is not what its segment says.
    """
    _wait(lambda: _state(stack, run_id) == "success", lambda: _state(stack, run_id))
    took = stack.ask(
        f"SELECT extract(epoch FROM end_date - start_date)::int FROM dag_run WHERE run_id = '{run_id}'"
    )
    since = float(stack.ask(f"SELECT extract(epoch FROM start_date) FROM dag_run WHERE run_id = '{run_id}'"))
    sent = [
        request["status"]
        for request in sandbox.requests()
        if request["endpoint"] == "cohort-users" and request["time"] > since
    ]
    at_the_limit = f"{len(sent) / BRAZES_LIMIT:.0f} s at Braze's limit"
    told_to_wait = f"{sent.count(HTTPStatus.TOO_MANY_REQUESTS)} told to wait"
    print(f"  {took} s; {len(sent):,} requests ({at_the_limit}), {told_to_wait}", flush=True)
    wrong = [cohort for cohort in range(COHORTS) if not _is_exact(sandbox, cohort, night)]
    if wrong:
        raise SystemExit(f"Not what their segments say: {', '.join(map(_cohort_id, wrong))}.")
    print(f"  Braze's cohorts: {COHORTS} of {PEOPLE:,} people, all exact", flush=True)


def _is_exact(sandbox: Sandbox, cohort: int, night: int) -> bool:
    members = set(sandbox.cohort(_cohort_id(cohort))["members"])
    return members == {f"user-{number}" for number in _members(cohort, night)}


def _look_for_budget(variables: dict[str, str]) -> None:
    """Say that the workers share the limit.

    :raises SystemExit: they do not.
    """
    port, password = int(variables["REDIS_PORT"]), variables["REDIS_PASSWORD"]
    with redis.Redis(port=port, password=password, db=BUDGET_DB) as store:
        limits = len(list(store.scan_iter("heapbraze:budget:*")))
    if not limits:
        raise SystemExit("The workers share no budget: nothing of it is in Redis.")
    print(f"  the workers share the limit through Redis ({limits} kept there)", flush=True)


def _kill_one(stack: Stack, ledger: Path, run_id: str) -> None:
    """Kill a worker that has delivered a part of a cohort.

    :raises SystemExit: it had delivered all of it, by then.
    """
    begun: list[int] = []

    def delivers() -> bool:
        begun.extend(_half_way(ledger, run_id))
        return bool(begun)

    _wait(delivers, lambda: _state(stack, run_id))
    killed = _worker_of(stack, run_id, begun[0])
    stack.kill(killed)
    lost = [cohort for cohort in _half_way(ledger, run_id) if _worker_of(stack, run_id, cohort) == killed]
    if not lost:
        raise SystemExit(f"{killed} was half-way through no cohort when it was killed: run it once more.")
    print(f"  {killed} is gone, half-way through {', '.join(map(_cohort_id, lost))}", flush=True)


def _half_way(ledger: Path, run_id: str) -> list[int]:
    """Return the cohorts of which a run has delivered a part, as far as is recorded."""
    found = []
    for log in ledger.glob("targets/*/log"):
        newest = json.loads(max(log.glob("*.json")).read_text())
        dag_run, _, cohort = newest["run_id"].rpartition("/")
        answers = log.parent.glob(f"plans/{newest.get('plan_id')}/settled/*.json")
        if newest["kind"] == "plan" and f"/{run_id}/" in dag_run and any(answers):
            found.append(int(cohort))
    return found


def _worker_of(stack: Stack, run_id: str, cohort: int) -> str:
    """Return the worker that was given a cohort's import last."""
    given = re.compile(rf"task_id='cohort.import'.*run_id='{run_id}'.*map_index={cohort}\b")
    for worker in WORKERS:
        if any(given.search(line) for line in stack.log(worker)):
            return worker
    return ""


def _state(stack: Stack, run_id: str) -> str:
    """Return a run's state: empty where it is not known."""
    return stack.ask(f"SELECT state FROM dag_run WHERE run_id = '{run_id}'")


def _wait(is_so: Callable[[], bool], state: Callable[[], str]) -> None:
    until = time.monotonic() + GREEN_WITHIN
    while not is_so():
        if state() == "failed" or time.monotonic() > until:
            raise SystemExit(f"It did not get there: the run is {state()}.")
        time.sleep(1)


def _wait_for_the_end(variables: dict[str, str]) -> None:
    print(f"Airflow's UI: http://127.0.0.1:{variables['AIRFLOW_PORT']} (Ctrl-C ends it)", flush=True)
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        return


if __name__ == "__main__":
    sys.exit(main())
