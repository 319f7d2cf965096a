"""What becomes of a task that failed: never again, after the wait that was asked for, or ever later."""

from __future__ import annotations

import importlib
import sys
from datetime import timedelta
from types import ModuleType

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException
from airflow.sdk import DAG, BaseOperator

from airflow_provider_heapbraze import retries
from airflow_provider_heapbraze.clients import errors
from airflow_provider_heapbraze.events.errors import BadFilesError
from airflow_provider_heapbraze.ledger_folder import LedgerDamagedError, PlaceLostError, UnbalancedError
from airflow_provider_heapbraze.membership.errors import GuardBreachedError, StalePlanError
from airflow_provider_heapbraze.operators._airflow import airflow_errors
from airflow_provider_heapbraze.retries import HeapBrazeRetryPolicy

try:
    from airflow.sdk import RetryAction
except ImportError:
    RetryAction = None

needs_policies = pytest.mark.skipif(RetryAction is None, reason="retry policies came with Airflow 3.3")

PERMANENT = [
    errors.ConfigurationError("said"),
    errors.AuthenticationError("said"),
    errors.PermissionDeniedError("said"),
    errors.RequestRejectedError("said", status=400),
    errors.PayloadTooLargeError("said", status=413),
    errors.ExportRunningError("said"),
    errors.ExportGoneError("said"),
    errors.DownloadTooLargeError("said"),
    BadFilesError("said"),
    GuardBreachedError("said", guard="max_removed"),
    LedgerDamagedError("said"),
    PlaceLostError("said"),
    StalePlanError("said"),
    UnbalancedError("said"),
]
TRANSIENT = [
    errors.RateLimitedError,
    errors.ResourceLockedError,
    errors.ServerError,
    errors.NoAnswerError,
    errors.UnclearAnswerError,
    errors.InterruptedCallError,
]


def name(error):
    return (error if isinstance(error, type) else type(error)).__name__


def decide(error, try_number=1, **settings):
    """Return what is decided for an error that a user's own task lets through."""
    return HeapBrazeRetryPolicy(**settings).evaluate(error, try_number, max_tries=4, context={})


def as_an_operator_raises(error):
    with pytest.raises(AirflowException) as caught, airflow_errors():
        raise error
    return caught.value


@needs_policies
@pytest.mark.parametrize("error", PERMANENT, ids=name)
def test_a_permanent_error_fails_now(error):
    decision = decide(error)
    assert decision.action is RetryAction.FAIL
    assert name(error) in decision.reason
    # Airflow asks no policy about this type: it fails the task on every version.
    assert isinstance(as_an_operator_raises(error), AirflowFailException)


@needs_policies
@pytest.mark.parametrize("error_class", TRANSIENT, ids=name)
def test_the_wait_that_was_asked_for_is_kept(error_class):
    error = error_class("said", retry_after=1234.5)
    for raised in (error, as_an_operator_raises(error)):
        decision = decide(raised, try_number=3)
        assert (decision.action, decision.retry_delay) == (RetryAction.RETRY, timedelta(seconds=1234.5))


@needs_policies
def test_a_wait_of_nothing_is_a_second():
    assert decide(errors.RateLimitedError("said", retry_after=0)).retry_delay == timedelta(seconds=1)


@needs_policies
@pytest.mark.parametrize("error_class", [*TRANSIENT, errors.HeapBrazeError, ValueError, KeyError], ids=name)
def test_other_errors_are_tried_again_ever_later(error_class):
    decisions = [decide(error_class("said"), try_number) for try_number in (1, 2, 3, 4, 5, 6, 5000)]
    assert {decision.action for decision in decisions} == {RetryAction.RETRY}
    minutes = [decision.retry_delay / timedelta(minutes=1) for decision in decisions]
    assert minutes == [1, 2, 4, 8, 16, 30, 30]
    assert name(error_class) in decisions[0].reason


@needs_policies
def test_the_waits_can_be_set():
    settings = {"first": timedelta(seconds=10), "longest": timedelta(seconds=25)}
    waits = [decide(ValueError(), number, **settings).retry_delay.total_seconds() for number in (1, 2, 3)]
    assert waits == [10, 20, 25]


@needs_policies
def test_an_error_that_comes_while_another_is_handled_is_its_own():
    error = ConnectionError()
    error.__context__ = errors.ConfigurationError("said")
    assert decide(error).action is RetryAction.RETRY


@needs_policies
def test_no_text_of_an_error_is_stored():
    """Airflow keeps the reason in its database and shows it."""
    for error in (*PERMANENT, *(error_class("said", retry_after=1.0) for error_class in TRANSIENT)):
        assert "said" not in decide(error).reason


@needs_policies
def test_a_dag_takes_the_policy_in_its_default_arguments():
    policy = HeapBrazeRetryPolicy()
    with DAG("with_a_policy", default_args={"retry_policy": policy}, schedule=None):
        task = BaseOperator(task_id="task")
    assert task.retry_policy is policy


@pytest.mark.skipif(RetryAction is not None, reason="what Airflow below 3.3 does")
def test_below_airflow_3_3_a_dag_passes_over_the_policy():
    with DAG("with_a_policy", default_args={"retry_policy": HeapBrazeRetryPolicy()}, schedule=None):
        task = BaseOperator(task_id="task")
    assert not hasattr(task, "retry_policy")


def test_below_airflow_3_3_the_module_is_there_and_does_nothing(monkeypatch):
    """Airflow before 3.3 has no policies, and passes over an unknown default argument."""
    old = ModuleType("airflow.sdk")
    monkeypatch.setitem(sys.modules, "airflow.sdk", old)
    monkeypatch.delitem(sys.modules, retries.__name__)
    module = importlib.import_module(retries.__name__)
    assert module.HeapBrazeRetryPolicy().first == timedelta(minutes=1)
    assert not hasattr(module, "RetryDecision")
