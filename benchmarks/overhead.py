"""What this package adds to Airflow: to a task of 1,000 members, and to the reading of a DAG file.

A task is carried out as ``dag.test()`` does it, in a process of its own each time, as workers do; the time is
that between its start and its end in Airflow's database. A DAG file is read in a process that has Airflow.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measuring import machine, measured

MEMBERS = 1_000
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
    BrazeCurrentsSensor(task_id="wait_for_files", source="/currents")
    HeapConnectDumpSensor(task_id="wait_for_dump", path="/dumps")
"""


def read_file(code: str) -> float:
    """Return the milliseconds that a DAG file takes where Airflow is there already."""
    import airflow.providers.standard.operators.python
    import airflow.sdk  # noqa: F401 - as the DAG processor has

    compiled = compile(code, "dag.py", "exec")
    started = time.perf_counter()
    exec(compiled, {})  # noqa: S102 - the code above
    return (time.perf_counter() - started) * 1000


def carry_out(environment: dict[str, str], which: str) -> dict[str, float]:
    """Run a DAG, and return the milliseconds of its tasks."""
    os.environ.update(environment)
    from airflow.sdk import DAG, task

    from airflow_provider_heapbraze.members import FileMembers, IdentityMapping
    from airflow_provider_heapbraze.operators.cohort import BrazeCohortImportOperator
    from airflow_provider_heapbraze.operators.match import HeapUserMatchOperator

    with DAG("measured") as dag:
        if which == "empty":
            task(lambda: None, task_id="empty")()
        else:
            match = HeapUserMatchOperator(
                task_id="match",
                members=FileMembers(environment["MEMBERS"]),
                mapping=IdentityMapping("identity"),
            )
            name = f"cohort-{os.getpid()}"
            BrazeCohortImportOperator(task_id="import", cohort_id=name, cohort_name=name, match=match.output)
    run = dag.test()
    return {ti.task_id: (ti.end_date - ti.start_date).total_seconds() * 1000 for ti in run.task_instances}


def prepared(folder: Path, url: str) -> dict[str, str]:
    """Make an Airflow's database, and give its environment."""
    from airflow_provider_heapbraze.sandbox.client import Sandbox

    members = folder / "members.csv"
    members.write_text("identity\n" + "".join(f"customer-{n}\n" for n in range(MEMBERS)))
    with Sandbox(url) as sandbox:
        connections = sandbox.environment()
    environment = {
        **connections,
        "AIRFLOW_HOME": str(folder),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(folder / "dags"),
        "AIRFLOW__HEAPBRAZE__LEDGER": (folder / "ledger").as_uri(),
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
        "MEMBERS": members.as_uri(),
    }
    command = [str(Path(sys.executable).with_name("airflow")), "db", "migrate"]
    subprocess.run(command, env={**os.environ, **environment}, check=True, capture_output=True)
    return environment


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--runs", type=int, default=5)
    chosen = options.parse_args()
    print(f"{machine()}; median of {chosen.runs} runs, each in a process of its own\n")
    from delivery import braze

    with tempfile.TemporaryDirectory() as name, braze(latency=0.0) as (url, _):
        environment = prepared(Path(name), url)
        tasks: dict[str, list[float]] = {}
        for _ in range(chosen.runs):
            for which in ("empty", "import"):
                for task, taken in measured(carry_out, environment, which).done.items():
                    tasks.setdefault(task, []).append(taken)
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
