"""A task in a process of its own that is told to end as Airflow's task runner does it.

``python -m tests.airflow.ending <task> <folder>`` runs one and prints how it ended.
"""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

from airflow.sdk.execution_time.timeout import timeout

from airflow_provider_heapbraze.members import FileMembers, Guards
from airflow_provider_heapbraze.operators.cohort import BrazeCohortImportOperator
from airflow_provider_heapbraze.operators.currents import BrazeCurrentsToHeapOperator
from airflow_provider_heapbraze.operators.match import HeapUserMatchOperator
from airflow_provider_heapbraze.operators.segment import BrazeSegmentToHeapOperator
from airflow_provider_heapbraze.segments import arrival
from tests.airflow.cohorts import context

HOUR = 3600


def cohort(home):
    ledger = (home / "ledger").as_uri()
    members = FileMembers((home / "members.csv").as_uri())
    match = HeapUserMatchOperator(task_id="match", members=members, ledger=ledger)
    return BrazeCohortImportOperator(
        task_id="import",
        cohort_id="cohort-1",
        cohort_name="Cohort one",
        match=match.execute(context()),
        ledger=ledger,
    )


def segment(home):
    arrival.QUIET_SECONDS = 0.3
    return BrazeSegmentToHeapOperator(
        task_id="refresh",
        segment_id="segment-one",
        property_name="in_segment",
        poll_interval=0.05,
        guards=Guards(max_removed_share=None),
        ledger=(home / "ledger").as_uri(),
    )


def currents(home):
    return BrazeCurrentsToHeapOperator(
        task_id="export", source=(home / "source").as_uri(), ledger=(home / "ledger").as_uri()
    )


TASKS = {"cohort": cohort, "segment": segment, "currents": currents}


def main(name, home):
    task = TASKS[name](home)
    # As Airflow's task runner: SIGTERM calls on_kill() and nothing else, execution_timeout is an alarm.
    signal.signal(signal.SIGTERM, lambda *_: task.on_kill())
    try:
        with timeout(HOUR):
            ended = ["nothing", str(task.execute(context()))]
    except BaseException as error:  # noqa: BLE001 - it is what the test asks for
        ended = [type(error).__name__, str(error)]
    print(json.dumps(ended))  # noqa: T201 - read by the test


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
