"""What the operators know of Airflow and the core does not: run ids, arguments and exceptions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import contextmanager, suppress
from copy import copy
from datetime import UTC
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowSkipException,
    AirflowTaskTimeout,
)
from airflow.sdk import BaseOperator

from airflow_provider_heapbraze.clients.errors import (
    RUNBOOK,
    ConfigurationError,
    HeapBrazeError,
    PermanentError,
)
from airflow_provider_heapbraze.membership.errors import GuardBreachedError
from airflow_provider_heapbraze.operators._lineage import Flow, lineage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    import jinja2
    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Context

LABEL = "{{ task.label or ti.map_index }}"
OUT_OF_TIME = "the-task-ran-out-of-time"


def run_id(context: Context) -> str:
    """Name this task's run: the same after a retry, a clear and a restart."""
    ti = context["ti"]
    mapped = f"/{ti.map_index}" if ti.map_index is not None and ti.map_index >= 0 else ""
    return f"{ti.dag_id}/{ti.run_id}/{ti.task_id}{mapped}"


def as_of(context: Context) -> str:
    """Return the time that this task's run is for: it orders runs, whenever they are cleared."""
    run_after: datetime = context["dag_run"].run_after
    return run_after.astimezone(UTC).isoformat(timespec="seconds")


class LabelledOperator(BaseOperator):
    """An operator whose mapped task instances are shown by what they are about, not by a number.

    ``map_index_template`` of the user's own goes before.
    """

    @classmethod
    def partial(cls, **kwargs: Any) -> Any:
        """Begin a mapped task, as Airflow does; it asks no instance for the template."""
        begun = super().partial(**kwargs)
        begun.kwargs["map_index_template"] = begun.kwargs.get("map_index_template") or LABEL
        return begun

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.map_index_template = self.map_index_template or LABEL

    @property
    def label(self) -> str:
        """Say what this task is about; empty where it is best called by its number."""
        raise NotImplementedError


class HeapBrazeOperator(LabelledOperator):
    """An operator whose arguments may be objects with template fields of their own.

    Airflow renders such an object in place. Mapped task instances that run in one process (``dag.test()``)
    share it, so each renders a copy of its own: else the second cohort would get the members of the first.

    Whoever does a task's work says in ``flow`` what is read and written, and in ``run_link`` where its report
    is shown, as soon as that is known; and in ``stop_work`` what asks the work to end soon.
    """

    flow = Flow()
    run_link = ""
    stop_work: Callable[[], None] | None = None

    def get_openlineage_facets_on_complete(self, _task_instance: Any) -> OperatorLineage[Any, Any] | None:
        """Say what was read and written; OpenLineage's provider asks, also after a failure."""
        return lineage(self.flow)

    def on_kill(self) -> None:
        """Record what was accepted before the process goes."""
        if self.stop_work is not None:
            self.stop_work()

    def render_template_fields(self, context: Context, jinja_env: jinja2.Environment | None = None) -> None:
        """Render every template field, nested ones in a copy."""
        for name in self.template_fields:
            value = getattr(self, name)
            if hasattr(value, "template_fields") and not isinstance(value, BaseOperator):
                setattr(self, name, copy(value))
        super().render_template_fields(context, jinja_env)


def shown_progress(context: Context) -> Callable[[dict[str, Any]], None] | None:
    """Return what keeps a run's progress in the task's state store: from 3.3 on Airflow's UI shows it."""
    store = context.get("task_state_store")
    return None if store is None else lambda numbers: store.set("progress", numbers)


@contextmanager
def airflow_errors() -> Iterator[None]:
    """Turn our errors into Airflow's: a permanent one stops the retries at once.

    Each leads to its section of the runbook. ``execution_timeout`` stays what it is, and says how far the run
    had come.
    """
    try:
        yield
    except AirflowTaskTimeout as cut:
        if isinstance(cut.__cause__, HeapBrazeError):
            raise AirflowTaskTimeout(
                f"The task's execution_timeout is over. {cut.__cause__}\nSee {RUNBOOK}#{OUT_OF_TIME}"
            ) from cut
        raise
    except PermanentError as error:
        raise AirflowFailException(_with_runbook(error)) from error
    except HeapBrazeError as error:
        raise AirflowException(_with_runbook(error)) from error


def _with_runbook(error: HeapBrazeError) -> str:
    return f"{error}\nSee {RUNBOOK}#{error.section}"


@contextmanager
def guarded(on_breach: Any) -> Iterator[None]:
    """Skip the task where a guard stops the plan, if that is wanted.

    :param on_breach: ``fail`` or ``skip``.
    :raises ConfigurationError: it is neither.
    """
    skip = choice(on_breach, "on_breach", ("fail", "skip")) == "skip"
    try:
        yield
    except GuardBreachedError as error:
        if skip:
            raise AirflowSkipException(_with_runbook(error)) from error
        raise


def text(value: Any) -> str:
    """Return an argument as text; empty where it is None, or where a template made ``None`` of it."""
    given = str(value).strip() if value is not None else ""
    return "" if given == "None" else given


def required(value: Any, name: str) -> str:
    """Return an argument that must be text.

    :raises ConfigurationError: it is empty.
    """
    given = text(value)
    if not given:
        raise ConfigurationError(f"{name} is empty. Nothing was sent. Give it in the DAG.")
    return given


def item(xcom: Any, key: str, name: str) -> str:
    """Return one item of another task's return value.

    :raises ConfigurationError: the value is not one of that task's.
    """
    if not isinstance(xcom, Mapping) or key not in xcom:
        raise ConfigurationError(
            f"{name} must be the return value of its task, for example {name}=task.output; a template needs "
            "render_template_as_native_obj=True in the DAG. Nothing was sent."
        )
    return str(xcom[key])


def choice(value: Any, name: str, allowed: tuple[str, ...]) -> str:
    """Return an argument that is one of a few words.

    :raises ConfigurationError: it is none of them.
    """
    if value not in allowed:
        raise ConfigurationError(f"{name} must be one of {allowed}, not {value!r}. Nothing was sent.")
    return str(value)


def whole_number(value: Any, name: str, *, least: int = 1) -> int:
    """Return an argument that is a whole number, also where a template made it.

    :raises ConfigurationError: it is none, or too small.
    """
    given = text(value)
    if not given.isdecimal() or int(given) < least:
        raise ConfigurationError(f"{name} must be a whole number of at least {least}. Nothing was sent.")
    return int(given)


def seconds(value: Any, name: str, *, may_be_zero: bool = False) -> float:
    """Return an argument that is a time in seconds, also where a template made it.

    :raises ConfigurationError: it is none.
    """
    with suppress(TypeError, ValueError):
        number = float(value)
        if 0 < number < math.inf or (may_be_zero and not number):
            return number
    raise ConfigurationError(f"{name} must be a number of seconds. Nothing was sent.")


def flag(value: Any, name: str) -> bool:
    """Return an argument that is true or false, also where a template made it.

    :raises ConfigurationError: it is neither.
    """
    return choice(str(value).strip().lower(), name, ("true", "false")) == "true"
