"""Tell people by Slack, mail or anything else what became of a task, in words that hold nothing private.

It goes around a notifier of any other provider, or a callback of your own, and gives it ``notice`` for its
templates::

    from airflow.providers.slack.notifications.slack_webhook import SlackWebhookNotifier

    tell = HeapBrazeNotifier(SlackWebhookNotifier(text="{{ notice.text }}"))

    @dag(default_args={"on_failure_callback": tell, "on_skipped_callback": tell}, ...)
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
    BaseNotifier,
)

from airflow_provider_heapbraze.clients.errors import own_error

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow.sdk import Context

PACKAGE = __name__.partition(".")[0]
AIRFLOWS = (AirflowException, AirflowTaskTimeout)
# What Airflow itself and the sensors of this package say with these holds nothing private.
PLAIN = (AirflowSensorTimeout, AirflowSkipException, AirflowTaskTimeout)
CLEAR = "Clearing the task is safe: what was accepted is recorded, and not sent again."


@dataclass(frozen=True)
class Notice:
    """What became of a task.

    :param title: which task, which cohort and what: ``cohorts / import [heap-trial-power-users] failed``.
    :param error: the type of the error, for example ``GuardBreachedError``; empty where there is none.
    :param said: what happened, what was kept, what to do next, and where the runbook tells more.
    :param url: of the task's attempt in Airflow's UI.
    """

    title: str
    error: str
    said: str
    url: str

    @property
    def text(self) -> str:
        """Return all of it, a line each; in HTML give it as ``<pre>{{ notice.text | e }}</pre>``."""
        return "\n".join(line for line in (self.title, self.said, self.url) if line)


class HeapBrazeNotifier(BaseNotifier):
    """Say what happened to a task, through another notifier.

    For ``on_failure_callback``, ``on_retry_callback`` and, where a breached guard is to skip
    (``on_breach="skip"``), ``on_skipped_callback``. Its templates have ``notice``, a :class:`Notice`, beside
    all that Airflow gives: ``{{ notice.text }}``, ``{{ notice.title }}``, ``{{ notice.said }}``,
    ``{{ notice.url }}``, ``{{ notice.error }}``.

    An error of this package is told in its own words, which say what was kept and what to do next. Of any
    other only the type is told: its text may quote a person, and stays in the task's log.

    :param notifier: of any provider; or a function that takes Airflow's context.
    """

    def __init__(self, notifier: Callable[[Context], Any]) -> None:
        super().__init__()
        self.notifier = notifier

    def notify(self, context: Context) -> None:
        """Notify; called by Airflow."""
        # A notifier renders its templates in place: the next task of this process needs them as they were.
        copy(self.notifier)({**context, "notice": notice_of(context)})  # type: ignore[typeddict-unknown-key]


def notice_of(context: Context) -> Notice:
    """Say what became of a task, as far as the context of Airflow's callback tells."""
    ti, task = context["ti"], context.get("task")
    exception = context.get("exception")
    if not isinstance(exception, BaseException):
        exception = None
    label = _label(ti, task)
    return Notice(
        title=f"{ti.dag_id} / {ti.task_id}{f' [{label}]' if label else ''} {_outcome(ti, exception)}",
        error=type(own_error(exception) or exception).__name__ if exception else "",
        said=_said(exception, ours=_is_ours(task)),
        url=str(getattr(ti, "log_url", "")),
    )


def _outcome(ti: Any, exception: BaseException | None) -> str:
    if isinstance(exception, AirflowSkipException):
        return "was skipped"
    return "failed, and is tried again" if getattr(ti, "state", None) == "up_for_retry" else "failed"


def _said(exception: BaseException | None, *, ours: bool) -> str:
    own = own_error(exception)
    if own is not None:
        # Operators put our words into Airflow's exceptions, and may add some; those of others are theirs.
        return str(exception if ours and isinstance(exception, AIRFLOWS) else own)
    if ours and isinstance(exception, PLAIN):
        return str(exception)
    if exception is None:
        said = "Its process ended without a word: it was killed, or its machine is gone."
    else:
        said = f"{type(exception).__name__}. Its text is not shown, as it may hold private data: see the log."
    return f"{said} {CLEAR}" if ours else said


def _label(ti: Any, task: Any) -> str:
    """Say what the task is about, where that is known; in a DAG that has not run nothing is rendered."""
    label = str(getattr(ti, "rendered_map_index", None) or getattr(task, "label", None) or "")
    return "" if "{{" in label else label


def _is_ours(task: Any) -> bool:
    operator_class = getattr(task, "operator_class", type(task))
    return str(getattr(operator_class, "__module__", "")).startswith(f"{PACKAGE}.")
