"""What people are told of a task: what happened, to which cohort, and what to do; and nothing private."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
    BaseNotifier,
    BaseOperator,
)
from airflow.providers_manager import ProvidersManager

from airflow_provider_heapbraze.clients.errors import AuthenticationError, ServerError
from airflow_provider_heapbraze.members import FileMembers
from airflow_provider_heapbraze.notifications import HeapBrazeNotifier, notice_of
from airflow_provider_heapbraze.operators._airflow import airflow_errors
from airflow_provider_heapbraze.operators.cohort import BrazeCohortImportOperator
from airflow_provider_heapbraze.operators.match import HeapUserMatchOperator
from airflow_provider_heapbraze.sensors.currents import BrazeCurrentsSensor
from tests.airflow.cohorts import COHORT, PEOPLE
from tests.airflow.cohorts import context as task_context

URL = "https://airflow.acme.test/dags/cohorts/runs/night-1/tasks/import/mapped/3?try_number=2"


class Channel(BaseNotifier):
    """A notifier as those of Slack or of mail are: it renders its text, then sends it."""

    template_fields = ("text",)
    sent: list[str] = []  # noqa: RUF012 - each test starts with an empty one

    def __init__(self, text="{{ notice.text }}"):
        super().__init__()
        self.text = text

    def notify(self, context):
        self.sent.append(self.text)


@pytest.fixture(autouse=True)
def sent():
    Channel.sent.clear()
    return Channel.sent


def ended(exception=None, task=None, **ti):
    """Return what Airflow gives a callback once a task has ended."""
    given = {"rendered_map_index": None, "state": "failed", "log_url": URL, "map_index": -1, **ti}
    context = {
        "ti": SimpleNamespace(dag_id="cohorts", run_id="night-1", task_id="import", **given),
        "task": task or importing(),
    }
    return context if exception is None else {**context, "exception": exception}


def importing():
    return BrazeCohortImportOperator(task_id="import", **COHORT)


def raised(error):
    with pytest.raises((AirflowException, AirflowTaskTimeout)) as caught, airflow_errors():
        raise error
    return caught.value


def test_a_breached_guard(pipeline, sent):
    pipeline.run(PEOPLE)
    with pytest.raises(AirflowException) as caught:
        pipeline.run(PEOPLE[:50], task_context("night-2"))
    HeapBrazeNotifier(Channel())(ended(caught.value))
    title, said, kept, _, runbook, url = sent[0].split("\n")
    assert title == "cohorts / import [cohort-1] failed"
    assert said.endswith("50 % of the people held would be removed (50 of 100); the limit is 20 %.")
    assert kept.startswith(
        "Nothing was sent. To allow it once, give the operator guards=Guards(max_removed_share=0.5)"
    )
    assert runbook.endswith("#max_removed_share")
    assert url == URL
    with pytest.raises(AirflowSkipException) as skipped:
        pipeline.run(PEOPLE[:50], task_context("night-2"), on_breach="skip")
    notice = notice_of(ended(skipped.value))
    assert (notice.title, notice.error) == ("cohorts / import [cohort-1] was skipped", "GuardBreachedError")
    assert "private-person" not in sent[0] + notice.text


def test_an_error_of_ours_is_told_in_its_words():
    notice = notice_of(ended(raised(AuthenticationError("The key was refused. Nothing was sent."))))
    assert notice.error == "AuthenticationError"
    assert notice.said.startswith("The key was refused. Nothing was sent.\nSee https://")
    # A task of the user's own that calls a hook, and says more than we would.
    error = ValueError("private-person-0001 was not sent")
    error.__cause__ = ServerError("Braze failed (503).")
    notice = notice_of(ended(error, BaseOperator(task_id="own")))
    assert (notice.error, notice.said) == ("ServerError", "Braze failed (503).")


def test_an_execution_timeout_says_how_far_the_run_had_come():
    cut = AirflowTaskTimeout("Timeout, PID: 1")
    cut.__cause__ = ServerError("10 of 20 changes are settled.")
    said = notice_of(ended(raised(cut))).said
    assert said.startswith(
        "The task's execution_timeout is over. 10 of 20 changes are settled.\nSee https://"
    )
    assert notice_of(ended(AirflowTaskTimeout("Timeout, PID: 1"))).said == "Timeout, PID: 1"


@pytest.mark.parametrize(
    ("task", "error_class"),
    [
        (importing(), ValueError),
        (importing(), AirflowException),
        (BaseOperator(task_id="own"), ValueError),
        (BaseOperator(task_id="own"), AirflowSensorTimeout),
    ],
)
def test_of_any_other_error_only_its_type_is_told(task, error_class):
    notice = notice_of(ended(error_class("private-person-0001"), task))
    assert notice.said.startswith(f"{error_class.__name__}. Its text is not shown")
    assert "private-person" not in notice.text
    assert ("Clearing the task is safe" in notice.said) is isinstance(task, BrazeCohortImportOperator)


def test_a_sensor_that_waited_in_vain():
    sensor = BrazeCurrentsSensor(task_id="wait", source="s3://bucket/currents")
    notice = notice_of(ended(AirflowSensorTimeout("No new files have come in 60 s."), sensor))
    assert notice.said == "No new files have come in 60 s."


def test_a_task_that_was_killed():
    """The DAG processor tells of it, from a DAG in which nothing is rendered."""
    mapped = BrazeCohortImportOperator.partial(task_id="import", cohort_name="One").expand(
        cohort_id=["a", "b"]
    )
    notice = notice_of(ended(task=mapped, map_index=0, rendered_map_index="b"))
    assert notice.title == "cohorts / import [b] failed"
    assert notice.said.startswith("Its process ended without a word")
    templated = BrazeCohortImportOperator(task_id="import", cohort_id="{{ params.one }}", cohort_name="One")
    assert notice_of(ended(task=templated)).title == "cohorts / import failed"
    assert notice.error == ""


def test_a_retry_is_said():
    assert notice_of(ended(raised(ServerError("said")), state="up_for_retry")).title.endswith(
        "[cohort-1] failed, and is tried again"
    )


def test_one_notifier_serves_many_tasks(sent):
    tell = HeapBrazeNotifier(Channel("{{ notice.title }} of {{ ti.run_id }}"))
    for task in (importing(), HeapUserMatchOperator(task_id="match", members=FileMembers("s3://b/one.csv"))):
        tell(ended(raised(ServerError("said")), task))
    assert sent == [
        "cohorts / import [cohort-1] failed of night-1",
        "cohorts / import [s3://b/one.csv] failed of night-1",
    ]


def test_a_callback_of_the_users_own():
    got = []
    HeapBrazeNotifier(got.append)(ended(raised(ServerError("said"))))
    assert got[0]["notice"].said.startswith("said")


def test_airflow_knows_it():
    assert "airflow_provider_heapbraze.notifications.HeapBrazeNotifier" in ProvidersManager().notification
