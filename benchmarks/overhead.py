"""What this package adds to Airflow: to a task of 1,000 members, and to the reading of a DAG file.

A task is carried out as ``dag.test()`` does it, in a process of its own each time, as workers do; the time is
that between its start and its end in Airflow's database. A DAG file is read in a process that has Airflow.
"""

from __future__ import annotations

import argparse
import gc
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from measuring import machine, measured

MEMBERS = 1_000
RETURNED = "SELECT value FROM xcom WHERE task_id = 'match' AND key = 'return_value' ORDER BY timestamp DESC"
TASKS = """
import json
import os

from airflow.sdk import DAG, task

from airflow_provider_heapbraze.members import FileMembers, IdentityMapping
from airflow_provider_heapbraze.operators.cohort import BrazeCohortImportOperator
from airflow_provider_heapbraze.operators.match import HeapUserMatchOperator

def first():
    return task(lambda: None, task_id="first")()  # dag.test() makes Airflow's API at its first request

with DAG("empty"):
    first() >> task(lambda: None, task_id="empty")()
with DAG("match"):
    first() >> HeapUserMatchOperator(
        task_id="match", members=FileMembers(os.environ["MEMBERS"]), mapping=IdentityMapping("identity")
    )
with DAG("import"):
    cohort_id = os.environ["COHORT_ID"]
    first() >> BrazeCohortImportOperator(
        task_id="import", cohort_id=cohort_id, cohort_name=cohort_id, match=json.loads(os.environ["MATCH"])
    )
"""
WITHOUT = """
from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG

with DAG("without"):
    PythonOperator(task_id="one", python_callable=print)
"""
WITH = """
from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG

from airflow_provider_heapbraze.members import FileMembers, Guards, IdentityMapping
from airflow_provider_heapbraze.operators.approval import BrazeCohortApprovalOperator
from airflow_provider_heapbraze.operators.cohort import (
    BrazeCohortImportOperator,
    BrazeCohortPlanOperator,
    BrazeCohortRestoreOperator,
)
from airflow_provider_heapbraze.operators.currents import BrazeCurrentsToHeapOperator
from airflow_provider_heapbraze.operators.ledger import HeapBrazeLedgerPruneOperator
from airflow_provider_heapbraze.operators.match import HeapUserMatchOperator
from airflow_provider_heapbraze.operators.segment import BrazeSegmentSizeOperator, BrazeSegmentToHeapOperator
from airflow_provider_heapbraze.operators.verify import BrazeCohortVerifyOperator
from airflow_provider_heapbraze.sensors.currents import BrazeCurrentsSensor
from airflow_provider_heapbraze.sensors.heap_connect import HeapConnectDumpSensor

cohort = {"cohort_id": "cohort", "cohort_name": "Cohort"}
with DAG("with"):
    PythonOperator(task_id="one", python_callable=print)
    match = HeapUserMatchOperator(
        task_id="match", members=FileMembers("/members.csv"), mapping=IdentityMapping("identity")
    )
    plan = BrazeCohortPlanOperator(task_id="plan", match=match.output, **cohort)
    BrazeCohortApprovalOperator(task_id="approval", plan=plan.output)
    BrazeCohortImportOperator(task_id="import", match=match.output, guards=Guards(), **cohort)
    BrazeCohortVerifyOperator(task_id="verify", cohort_id="cohort", deferrable=True)
    BrazeCohortRestoreOperator(task_id="restore", cohort_id="cohort", run_id="run")
    BrazeCurrentsToHeapOperator(task_id="export", source="/currents")
    BrazeSegmentToHeapOperator(task_id="refresh", segment_name="Segment")
    BrazeSegmentSizeOperator(task_id="size", segment_name="Segment")
    HeapBrazeLedgerPruneOperator(task_id="prune")
    BrazeCurrentsSensor(task_id="wait_for_files", source="/currents")
    HeapConnectDumpSensor(task_id="wait_for_dump", path="/dumps")
"""


def read_file(code: str) -> float:
    """Return the milliseconds of CPU that a DAG file takes in Airflow's DAG processor."""
    import airflow.dag_processing.processor
    import airflow.providers.standard.operators.python  # noqa: F401 - both files need it

    compiled = compile(code, "dag.py", "exec")
    gc.collect()
    gc.freeze()  # as the DAG processor does: the file does not pay for what Airflow has in memory
    started = time.process_time()
    exec(compiled, {})  # noqa: S102 - the code above
    return (time.process_time() - started) * 1000


def carry_out(environment: dict[str, str], which: str, **more: str) -> float:
    """Run a DAG, and return the milliseconds of its second task."""
    subprocess.run(
        ["airflow", "dags", "test", which],  # noqa: S607 - the environment's
        env={**environment, **more},
        check=True,
        capture_output=True,
    )
    ((taken,),) = asked(
        environment,
        "SELECT (julianday(end_date) - julianday(start_date)) * 86400000 FROM task_instance "
        f"WHERE task_id = '{which}' ORDER BY start_date DESC LIMIT 1",
    )
    return float(taken)


def asked(environment: dict[str, str], query: str) -> list[tuple[object, ...]]:
    """Ask Airflow's database."""
    with closing(sqlite3.connect(Path(environment["AIRFLOW_HOME"]) / "airflow.db")) as database:
        return database.execute(query).fetchall()


def prepared(folder: Path, url: str) -> dict[str, str]:
    """Make an Airflow's database, and give its environment."""
    from airflow_provider_heapbraze.sandbox.client import Sandbox

    members = folder / "members.csv"
    members.write_text("identity\n" + "".join(f"customer-{n}\n" for n in range(MEMBERS)))
    dags = folder / "dags"
    dags.mkdir()
    (dags / "tasks.py").write_text(TASKS)
    environment = {
        **os.environ,
        **Sandbox(url).environment(),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "AIRFLOW_HOME": str(folder),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW__HEAPBRAZE__LEDGER": (folder / "ledger").as_uri(),
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
        "MEMBERS": members.as_uri(),
        "MATCH": "{}",
    }
    migrate = ["airflow", "db", "migrate"]
    subprocess.run(migrate, env=environment, check=True, capture_output=True)
    return environment


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--runs", type=int, default=5)
    chosen = options.parse_args()
    print(f"{machine()}; median of {chosen.runs} runs, each in a process of its own\n")
    from delivery import braze

    with tempfile.TemporaryDirectory() as name, braze(latency=0.0) as (url, _):
        environment = prepared(Path(name), url)
        tasks: dict[str, list[float]] = {"empty": [], "match": [], "import": []}
        for number in range(chosen.runs):
            for which, taken in tasks.items():
                taken.append(carry_out(environment, which, COHORT_ID=f"cohort-{number}"))
                if which == "match":
                    ((found,), *_) = asked(environment, RETURNED)
                    environment["MATCH"] = str(found)
    empty, matched, imported = (statistics.median(tasks[task]) for task in ("empty", "match", "import"))
    print(f"{'task of 1,000 members':<32}{'ms':>8}{'beyond an empty task':>24}")
    for task, taken in (("empty", empty), ("match", matched), ("import", imported)):
        print(f"{task:<32}{taken:>8.0f}{taken - empty:>24.0f}")
    readings = {
        name: statistics.median(measured(read_file, code).done for _ in range(chosen.runs))
        for name, code in (("without", WITHOUT), ("with every operator", WITH))
    }
    print(f"\n{'DAG file':<32}{'ms':>8}{'more':>24}")
    for reading, taken in readings.items():
        print(f"{reading:<32}{taken:>8.1f}{taken - readings['without']:>24.1f}")


if __name__ == "__main__":
    main()
