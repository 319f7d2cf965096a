"""One cohort's tasks as Airflow calls them, night after night."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

from airflow_provider_heapbraze import glances
from airflow_provider_heapbraze.members import FileMembers
from airflow_provider_heapbraze.operators.cohort import BrazeCohortImportOperator, BrazeCohortPlanOperator
from airflow_provider_heapbraze.operators.match import HeapUserMatchOperator

COHORT = {"cohort_id": "cohort-1", "cohort_name": "Cohort one"}
PEOPLE = [f"private-person-{number:04}" for number in range(100)]


class OutletEvents:
    """What Airflow hands to a task for the assets that it updates."""

    def __init__(self):
        self.by_name = {}

    def __getitem__(self, outlet):
        events = []
        accessor = SimpleNamespace(
            events=events, extra={}, add=lambda asset, extra: events.append((asset, extra))
        )
        return self.by_name.setdefault(outlet.name, accessor)


def context(dag_run="night-1", map_index=-1, task_id="import"):
    ti = SimpleNamespace(dag_id="cohorts", run_id=dag_run, task_id=task_id, map_index=map_index, pushed={})
    ti.xcom_push = lambda key, value: ti.pushed.update({key: value})
    dag_run_ = SimpleNamespace(run_after=datetime(2026, 11, 24, tzinfo=UTC))
    return {"ti": ti, "dag_run": dag_run_, "outlet_events": OutletEvents()}


class Pipeline:
    """One cohort's tasks, night after night."""

    def __init__(self, folder):
        self.ledger = (folder / "ledger").as_uri()
        self.file = folder / "members.csv"

    def match(self, people):
        self.file.write_text("\n".join(["identity", *people, ""]))
        operator = HeapUserMatchOperator(
            task_id="match", members=FileMembers(self.file.as_uri()), ledger=self.ledger
        )
        return operator.execute(context())

    def plan(self, people, **arguments):
        operator = BrazeCohortPlanOperator(
            task_id="plan", **COHORT, match=self.match(people), ledger=self.ledger, **arguments
        )
        return operator.execute(context())

    def run(self, people=None, night=None, **arguments):
        if people is not None:
            arguments["match"] = self.match(people)
        operator = BrazeCohortImportOperator(task_id="import", **COHORT, ledger=self.ledger, **arguments)
        return operator.execute(night or context())


def glance(ledger):
    """Return what the only record of a ledger was last said to be; None where its log has the word."""
    root = Path(ledger.removeprefix("file://"))
    (newest,) = glances.newest(root).values()
    return glances.read(root, newest)
