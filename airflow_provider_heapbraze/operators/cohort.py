"""Plan and import a cohort: Braze is made to hold exactly the matched members."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from airflow_provider_heapbraze.hooks.braze import BrazeHook
from airflow_provider_heapbraze.links import HeapBrazeRunLink
from airflow_provider_heapbraze.membership.guards import Guards
from airflow_provider_heapbraze.operators._airflow import HeapBrazeOperator, text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk import Context

CohortDelivery = Literal["cohort", "attribute"]


class _CohortOperator(HeapBrazeOperator):
    """What planning, importing and restoring have in common: which cohort, and within which limits."""

    template_fields: Sequence[str] = (
        "cohort_id",
        "guards",
        "braze_conn_id",
        "delivery",
        "attribute",
        "ledger",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"guards": "py", "match": "json", "plan": "json"}
    ui_color = "#ffe9d6"
    operator_extra_links = (HeapBrazeRunLink(),)

    def __init__(
        self,
        *,
        cohort_id: str,
        guards: Guards | None = None,
        braze_conn_id: str = BrazeHook.default_conn_name,
        delivery: CohortDelivery = "cohort",
        attribute: str | None = None,
        ledger: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.cohort_id = cohort_id
        self.guards = copy(guards) if guards else Guards()
        self.braze_conn_id = braze_conn_id
        self.delivery = delivery
        self.attribute = attribute
        self.ledger = ledger

    @property
    def label(self) -> str:
        """Say which cohort."""
        return text(self.cohort_id)


class _SendingOperator(_CohortOperator):
    """What importing and restoring have in common: a plan is delivered, unless a guard stops it."""

    template_fields: Sequence[str] = (*_CohortOperator.template_fields, "on_breach")

    def __init__(self, *, on_breach: Literal["fail", "skip"] = "fail", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.on_breach = on_breach


class _MatchedOperator(_CohortOperator):
    """What planning and importing have in common: the change set is made from a match."""

    template_fields: Sequence[str] = (
        *_CohortOperator.template_fields,
        "cohort_name",
        "match",
        "reassert_share",
        "remove_after_runs",
        "remove_after_hours",
    )

    def __init__(
        self,
        *,
        cohort_name: str,
        match: Mapping[str, Any] | None = None,
        reassert_share: float = 0,
        remove_after_runs: int | None = None,
        remove_after_hours: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.cohort_name = cohort_name
        self.match = match
        self.reassert_share = reassert_share
        self.remove_after_runs = remove_after_runs
        self.remove_after_hours = remove_after_hours


class BrazeCohortPlanOperator(_MatchedOperator):
    """Write down what an import would change, and send nothing.

    Returns ``{"uri", "plan_id", "name", "adds", "removes", "unchanged", "change", "requests",
    "seconds_at_limit", "breaches", "sources"}``; give it to :class:`BrazeCohortImportOperator` as ``plan`` to
    carry out this very plan. A breached guard does not fail this task: it is named in ``breaches``, and
    :class:`.approval.BrazeCohortApprovalOperator` shows it to a person. ``change`` is what guards look at:
    how many people are ``held`` now, ``adds`` and ``removes`` without whom is only sent again.

    :param cohort_id: the cohort's id in Braze, ours to choose and never to change.
    :param cohort_name: the name that Braze's dashboard shows.
    :param match: return value of :class:`HeapUserMatchOperator`.
    :param guards: limits that stop an import.
    :param reassert_share: as the import has it; so have ``remove_after_runs`` and ``remove_after_hours``.
    :param braze_conn_id: the Braze connection.
    :param delivery: ``cohort`` (partner endpoint) or ``attribute`` (a boolean custom attribute).
    :param attribute: the attribute's name, with ``delivery="attribute"``.
    :param ledger: location of the ledger; default ``[heapbraze] ledger`` of Airflow's configuration.
    """

    def execute(self, context: Context) -> dict[str, Any]:
        """Plan, and return what would be sent."""
        from airflow_provider_heapbraze.operators._work.cohort import plan

        return plan(self, context)


class BrazeCohortImportOperator(_SendingOperator, _MatchedOperator):
    """Make a Braze cohort equal to the matched members of a Heap segment.

    Only changes are sent, each once: a retry or a cleared task goes on exactly where the last attempt
    stopped. Returns ``{"run_id", "adds", "removes", "acknowledged", "rejected", "requests", "size",
    "report_uri", "waterfall"}``. An outlet ``AssetAlias`` gets the asset ``braze://cohort/<cohort id>`` with
    the size and the change in its event.

    :param cohort_id: the cohort's id in Braze, ours to choose and never to change.
    :param cohort_name: the name that Braze's dashboard shows; another name renames the cohort.
    :param match: return value of :class:`HeapUserMatchOperator`; or give ``plan``.
    :param plan: return value of :class:`BrazeCohortPlanOperator`: this very plan is carried out, and refused
        where the cohort has changed since.
    :param guards: limits that stop the import before anything is sent.
    :param on_breach: what a breached guard does to the task: ``fail`` (without retries) or ``skip``.
    :param force_full: send everybody again, and the removals of the last 30 runs, not only the changes: after
        Braze's side was changed by hand, or where the ledger is damaged.
    :param reassert_share: share of the unchanged people who are sent again in each run, 0 to 1, with recent
        removals: with 1/30, a write that Braze lost is mended within 30 runs, for 1/30 of a full import each.
    :param remove_after_runs: remove a leaver only after being absent in so many runs in a row.
    :param remove_after_hours: remove a leaver only after being absent for so many hours.
    :param braze_conn_id: the Braze connection.
    :param delivery: ``cohort`` (partner endpoint; needs a partner key) or ``attribute`` (a boolean custom
        attribute through ``/users/track``, for any REST key).
    :param attribute: the attribute's name, with ``delivery="attribute"``.
    :param ledger: location of the ledger; default ``[heapbraze] ledger`` of Airflow's configuration.
    """

    template_fields: Sequence[str] = (
        *_MatchedOperator.template_fields,
        "on_breach",
        "plan",
        "force_full",
    )

    def __init__(
        self, *, plan: Mapping[str, Any] | None = None, force_full: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.plan = plan
        self.force_full = force_full

    def execute(self, context: Context) -> dict[str, Any]:
        """Send what there is to send, and return what happened in numbers."""
        from airflow_provider_heapbraze.operators._work.cohort import import_match_or_plan

        return import_match_or_plan(self, context)


class BrazeCohortRestoreOperator(_SendingOperator):
    """Make a Braze cohort again what an earlier run had left.

    A plan like any other: guards, resuming and report are those of :class:`BrazeCohortImportOperator`, and so
    is what it returns. The next import makes the cohort equal to Heap's segment again: pause its DAG, or mend
    the segment first. Where the ledger is damaged, it goes on from whatever the ledger still holds.

    :param cohort_id: the cohort's id in Braze.
    :param run_id: the run whose outcome is to be there again, as its import returned it; or the DAG run's id
        alone. Where it is not known, the error lists the newest runs.
    :param guards: limits that stop the plan before anything is sent.
    :param on_breach: what a breached guard does to the task: ``fail`` (without retries) or ``skip``.
    :param braze_conn_id: the Braze connection.
    :param delivery: as the import has it; so has ``attribute``.
    :param ledger: location of the ledger; default ``[heapbraze] ledger`` of Airflow's configuration.
    """

    template_fields: Sequence[str] = (*_SendingOperator.template_fields, "run_id")

    def __init__(self, *, run_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.run_id = run_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Send what there is to send, and return what happened in numbers."""
        from airflow_provider_heapbraze.operators._work.cohort import restore

        return restore(self, context)
