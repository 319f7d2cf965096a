"""A person decides about a plan: what is shown, what is kept, and what the import makes of it."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, DownstreamTasksSkipped
from airflow.providers.standard.exceptions import HITLTimeoutError
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG
from airflow.sdk.execution_time import task_runner

from airflow_provider_heapbraze.locations import path_of
from airflow_provider_heapbraze.members import Guards
from airflow_provider_heapbraze.operators.approval import BrazeCohortApprovalOperator
from tests.airflow.cohorts import PEOPLE, context

try:
    from airflow.sdk.exceptions import TaskAwaitingInput as Waiting
except ImportError:  # below Airflow 3.3
    from airflow.providers.common.compat.sdk import TaskDeferred as Waiting

AT = datetime(2026, 11, 24, 3, 10, 5, 123456, tzinfo=UTC)


class TaskInstance(SimpleNamespace):
    """One task instance: what it puts into XCom stays when it comes back from waiting."""

    def __init__(self):
        super().__init__(id=uuid4(), task_id="approval", map_index=-1, xcoms={})

    def xcom_push(self, key, value):
        self.xcoms[key] = json.loads(json.dumps(value))

    def xcom_pull(self, key, task_ids, map_indexes):
        assert (task_ids, map_indexes) == (self.task_id, self.map_index)
        return self.xcoms[key]


@pytest.fixture
def person(monkeypatch):
    return Person(monkeypatch)


class Person:
    """Whoever sits before Airflow: is asked through its supervisor, and answers."""

    def __init__(self, monkeypatch):
        self.asked = []
        self.ti = TaskInstance()
        self._monkeypatch = monkeypatch

    def is_asked(self, plan, **arguments):
        """Run the task until it waits; return the question."""
        with pytest.raises(Waiting):
            self.run(plan, **arguments)
        return self.asked[-1]

    def run(self, plan, **arguments):
        task = self._task(plan, **arguments)

        def send(msg):
            self.asked.append(msg)

        with self._monkeypatch.context() as patched:
            patched.setattr(task_runner, "SUPERVISOR_COMMS", SimpleNamespace(send=send), raising=False)
            return task.execute(self._context(task))

    def answers(self, plan, option, user="anna", **arguments):
        """Run the task from where it waited."""
        event = {
            "chosen_options": [option],
            "params_input": {},
            "responded_at": AT,
            "responded_by_user": user and {"id": "7", "name": user},
        }
        self.comes_back(plan, event, **arguments)

    def comes_back(self, plan, event, **arguments):
        task = self._task(plan, **arguments)
        return task.execute_complete(self._context(task), event)

    def _task(self, plan, **arguments):
        with DAG("cohorts"):
            approval = BrazeCohortApprovalOperator(task_id="approval", plan=plan, **arguments)
            approval >> EmptyOperator(task_id="import")
        return approval

    def _context(self, task):
        return {"ti": self.ti, "task_instance": self.ti, "task": task}


@pytest.fixture
def risky(pipeline):
    """Give a plan that removes half of the people."""
    pipeline.run(PEOPLE)
    return pipeline.plan(PEOPLE[:50])


def decisions(plan):
    folder = path_of(plan["uri"]) / "decisions"
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def decision(by, *, approved, guards=None):
    at = "2026-11-24T03:10:05+00:00"
    seen = guards or {"max_removed_share": 0.5}
    return {"format": 1, "approved": approved, "guards": seen, "by": by, "at": at}


def test_nobody_is_asked_where_no_guard_is_passed(pipeline, person):
    plan = pipeline.plan(PEOPLE)
    assert person.run(plan) is None
    assert person.asked == []
    assert decisions(plan) == []
    pipeline.run(plan=plan)


def test_a_time_for_the_answer(risky, person):
    with pytest.raises(Waiting) as waiting:
        person.run(risky, response_timeout=timedelta(hours=20), defaults="Reject")
    wait = waiting.value
    left = wait.trigger.timeout_datetime - datetime.now(UTC) if hasattr(wait, "trigger") else wait.timeout
    assert timedelta(hours=19) < left <= timedelta(hours=20)


def test_what_a_person_sees(pipeline, person):
    pipeline.run(PEOPLE[:60])
    plan = pipeline.plan(PEOPLE[20:], reassert_share=1, guards=Guards(max_removed=10))
    question = person.is_asked(plan)
    assert question.subject == "Braze cohort “Cohort one”: 40 people to add, 20 to remove"
    assert question.options == ["Approve", "Reject"]
    assert question.body == (
        "| People |  |\n"
        "| --- | ---: |\n"
        "| in the cohort now | 60 |\n"
        "| to add | 40 |\n"
        "| to remove | 20 |\n"
        "| unchanged | 40 |\n"
        "| **in the cohort afterwards** | **80** |\n"
        "| also sent again, without a change | 40 |\n"
        "\n"
        "Requests to Braze: 2, about 1 s at its limit.\n"
        "\n"
        "| Guard | This plan | Limit |\n"
        "| --- | --- | ---: |\n"
        "| `max_removed_share` | 33.34 % of the people held would be removed (20 of 60) | 20 % |\n"
        "| `max_removed` | 20 people would be removed | 10 |\n"
        "\n"
        "**Approve:** this very plan is carried out; it is refused if the cohort has changed by then. "
        "**Reject:** nothing is sent."
    )


def test_an_attribute_goes_by_its_name(pipeline, person):
    where = {"delivery": "attribute", "attribute": "in_cohort_one"}
    pipeline.run(PEOPLE, **where)
    question = person.is_asked(pipeline.plan(PEOPLE[:50], **where))
    assert question.subject.startswith("Braze cohort “in_cohort_one”: ")


def test_an_approved_plan_is_carried_out(pipeline, sandbox, person, risky):
    person.is_asked(risky)
    person.answers(risky, "Approve")
    assert decisions(risky) == [decision("anna", approved=True)]
    result = pipeline.run(plan=risky)
    assert set(sandbox.cohort("cohort-1")["members"]) == set(PEOPLE[:50])
    report = json.loads(path_of(result["report_uri"]).read_text())
    assert report["approval"]["by"] == "anna"


def test_a_rejected_plan_is_not(pipeline, sandbox, person, risky):
    seen = len(sandbox.requests())
    person.is_asked(risky)
    with pytest.raises(DownstreamTasksSkipped) as skipped:
        person.answers(risky, "Reject")
    assert skipped.value.tasks == ["import"]
    assert decisions(risky) == [decision("anna", approved=False)]
    with pytest.raises(AirflowFailException, match="max_removed_share"):
        pipeline.run(plan=risky)
    assert len(sandbox.requests()) == seen


def test_the_last_word_counts(pipeline, person, risky):
    person.is_asked(risky)
    with pytest.raises(DownstreamTasksSkipped):
        person.answers(risky, "Reject")
    person.is_asked(risky)  # the task was cleared
    person.answers(risky, "Approve", user="bert")
    assert decisions(risky) == [decision("anna", approved=False), decision("bert", approved=True)]
    assert pipeline.run(plan=risky)["size"] == 50


def test_nobody_answers_in_time(person, risky):
    person.is_asked(risky, defaults="Reject")
    with pytest.raises(DownstreamTasksSkipped):
        person.answers(risky, "Reject", user=None, defaults="Reject")
    assert decisions(risky) == [decision("nobody in time", approved=False)]
    with pytest.raises(HITLTimeoutError):
        person.comes_back(risky, {"error": "The time is over.", "error_type": "timeout"})
    assert len(decisions(risky)) == 1, "no answer is no decision"


def test_the_cohort_changes_after_the_approval(pipeline, sandbox, person, risky):
    person.is_asked(risky)
    person.answers(risky, "Approve")
    pipeline.run(PEOPLE[:90], context("somebody else"))
    with pytest.raises(AirflowFailException, match=r"out of date.*Nothing was sent"):
        pipeline.run(plan=risky)
    assert set(sandbox.cohort("cohort-1")["members"]) == set(PEOPLE[:90])


def test_a_breach_that_nobody_saw_still_stops(pipeline, sandbox, person, risky):
    person.is_asked(risky)
    person.answers(risky, "Approve")
    with pytest.raises(AirflowFailException, match="max_removed") as stopped:
        pipeline.run(plan=risky, guards=Guards(max_removed=10))
    assert "max_removed_share" not in str(stopped.value)
    assert len(sandbox.cohort("cohort-1")["members"]) == 100


def test_a_plan_that_is_made_anew_meanwhile_is_not_approved(pipeline, person, risky):
    """The planning task alone is cleared while the question is open: the answer is about the old plan."""
    person.is_asked(risky)
    worse = pipeline.plan(PEOPLE[:10])
    person.answers(worse, "Approve")
    assert decisions(risky) == [decision("anna", approved=True)]
    with pytest.raises(AirflowFailException, match="max_removed_share"):
        pipeline.run(plan=worse)


def test_a_worker_that_does_not_reach_the_ledger_asks_nobody(person, risky):
    shutil.rmtree(path_of(risky["uri"]))
    with pytest.raises(AirflowFailException, match=r"plan.json is missing.*clear the planning task"):
        person.run(risky)
    assert person.asked == []


def test_something_else_than_a_plan(person):
    with pytest.raises(AirflowFailException, match="plan must be the return value of its task"):
        person.run("{'uri': 'rendered as text'}")


def test_nothing_private_is_shown_or_kept(person, risky):
    question = person.is_asked(risky)
    person.answers(risky, "Approve")
    kept = [path.read_text() for path in Path(path_of(risky["uri"])).glob("decisions/*")]
    for text in (question.model_dump_json(), json.dumps(person.ti.xcoms), *kept):
        assert "private-person" not in text
