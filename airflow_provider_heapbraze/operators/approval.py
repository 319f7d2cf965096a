"""A person decides about a plan that guards would stop."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.standard.operators.hitl import ApprovalOperator, HITLOperator

from airflow_provider_heapbraze.locations import path_of
from airflow_provider_heapbraze.membership.guards import Breach
from airflow_provider_heapbraze.operators._airflow import LabelledOperator, airflow_errors, item, text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from airflow.sdk import Context

# Before 1.13 of its standard provider Airflow takes the time for the answer from execution_timeout.
HAS_RESPONSE_TIMEOUT = "response_timeout" in inspect.signature(HITLOperator.__init__).parameters
ASKED = "asked"
NOBODY = "nobody in time"
CHOICE = (
    "**Approve:** this very plan is carried out; it is refused if the cohort has changed by then. "
    "**Reject:** nothing is sent."
)
MINUTE, HOUR = 60, 3600


class BrazeCohortApprovalOperator(LabelledOperator, ApprovalOperator):
    """Ask a person about a plan that passes guards; a plan that passes none needs no approval.

    Airflow's own approval, with the plan as a table. Who approves lets this very plan pass the guards that
    are shown, and no others; the import refuses it where the cohort has changed since. Where it is rejected,
    what comes after is skipped. The decision is kept in the ledger: what it was, whose, and when.

    Arguments are those of Airflow's ``ApprovalOperator`` but for ``subject`` and ``body``; for example
    ``assigned_users`` (who may answer), ``notifiers`` (how they hear of it) and ``response_timeout`` with
    ``defaults="Reject"``: who has not answered in this time has rejected. Without ``defaults`` the task
    fails then; without ``response_timeout`` it waits for good, and with ``max_active_runs=1`` so do the
    nights after it.

    :param plan: return value of :class:`.cohort.BrazeCohortPlanOperator`.
    """

    template_fields: Sequence[str] = ("plan",)
    template_fields_renderers: ClassVar[dict[str, str]] = {"plan": "json"}
    ui_color = "#ffe9d6"

    def __init__(self, *, plan: Mapping[str, Any], **kwargs: Any) -> None:
        self._answer_time = None if HAS_RESPONSE_TIMEOUT else kwargs.pop("response_timeout", None)
        super().__init__(subject="A plan for a Braze cohort", **kwargs)
        self.plan = plan

    @property
    def label(self) -> str:
        """Say which cohort, by its name."""
        return text(self.plan.get("name")) if isinstance(self.plan, Mapping) else ""

    def execute(self, context: Context) -> Any:
        """Ask, where there is something to ask."""
        # Parsing a DAG file must not load what reads the ledger.
        from airflow_provider_heapbraze.membership.decisions import plan_folder

        with airflow_errors():
            uri = item(self.plan, "uri", "plan")
            if not self.plan["breaches"]:
                self.log.info("The plan passes no guard: nobody has to approve it.")
                return None
            plan_folder(path_of(uri))  # else the answer could not be kept
        self.subject = _subject(self.plan)
        self.body = _body(self.plan)
        # The planning task may be cleared before somebody answers, who would then have seen another plan.
        guards = {breach["guard"]: breach["value"] for breach in self.plan["breaches"]}
        context["ti"].xcom_push(key=ASKED, value={"uri": uri, "guards": guards})
        self.execution_timeout = self._answer_time or self.execution_timeout
        return super().execute(context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Keep the answer, and go by it."""
        if "error" not in event:
            self._keep(context, event)
        return super().execute_complete(context, event)

    def _keep(self, context: Context, event: Mapping[str, Any]) -> None:
        from airflow_provider_heapbraze.membership.decisions import decide, plan_folder
        from airflow_provider_heapbraze.membership.entries import Approval

        ti = context["ti"]
        asked = ti.xcom_pull(key=ASKED, task_ids=ti.task_id, map_indexes=ti.map_index)
        user = event["responded_by_user"]
        approval = Approval(
            approved=event["chosen_options"] == [self.APPROVE],
            guards=asked["guards"],
            by=user["name"] if user else NOBODY,
            at=event["responded_at"].isoformat(timespec="seconds"),
        )
        with airflow_errors():
            decide(plan_folder(path_of(asked["uri"])), approval)
        self.log.info("%s by %s.", "Approved" if approval.approved else "Rejected", approval.by)


def _subject(plan: Mapping[str, Any]) -> str:
    change = plan["change"]
    return (
        f"Braze cohort “{' '.join(plan['name'].split())}”: "
        f"{change['adds']:,} people to add, {change['removes']:,} to remove"
    )


def _body(plan: Mapping[str, Any]) -> str:
    """Lay a plan out in Markdown: counts only."""
    seconds = _duration(plan["seconds_at_limit"])
    return "\n".join(
        (
            *_table(("People", ""), _people(plan)),
            "",
            f"Requests to Braze: {plan['requests']:,}, about {seconds} at its limit.",
            "",
            *_table(("Guard", "This plan", "Limit"), map(_breach, plan["breaches"])),
            "",
            CHOICE,
        )
    )


def _people(plan: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    held, adds, removes = (plan["change"][name] for name in ("held", "adds", "removes"))
    yield "in the cohort now", f"{held:,}"
    yield "to add", f"{adds:,}"
    yield "to remove", f"{removes:,}"
    yield "unchanged", f"{held - removes:,}"
    yield "**in the cohort afterwards**", f"**{held - removes + adds:,}**"
    again = plan["adds"] + plan["removes"] - adds - removes
    if again:
        yield "also sent again, without a change", f"{again:,}"


def _breach(found: Mapping[str, Any]) -> tuple[str, str, str]:
    breach = Breach(**found)
    return f"`{breach.guard}`", breach.said, breach.limit_said


def _table(head: Sequence[str], rows: Iterator[tuple[str, ...]]) -> Iterator[str]:
    """Make a table whose last column is of numbers."""
    yield _row(head)
    yield _row([*["---"] * (len(head) - 1), "---:"])
    yield from map(_row, rows)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _duration(seconds: float) -> str:
    if seconds < MINUTE:
        return f"{max(1, math.ceil(seconds))} s"
    if seconds < HOUR:
        return f"{seconds / MINUTE:.0f} min"
    return f"{seconds / HOUR:.1f} h"
