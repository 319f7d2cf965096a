"""Plan and import a cohort: Braze is made to hold exactly the matched members."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from airflow_provider_heapbraze.clients.errors import ConfigurationError
from airflow_provider_heapbraze.hooks.braze import BrazeHook
from airflow_provider_heapbraze.links import HeapBrazeRunLink, push_run_link
from airflow_provider_heapbraze.locations import ledger_root, path_of
from airflow_provider_heapbraze.membership.arguments import limit, share
from airflow_provider_heapbraze.membership.damping import Damping
from airflow_provider_heapbraze.membership.entries import Target
from airflow_provider_heapbraze.membership.guards import Guards
from airflow_provider_heapbraze.membership.judged import judge
from airflow_provider_heapbraze.membership.ledger import TargetLedger
from airflow_provider_heapbraze.membership.matching import match_folder, read_match
from airflow_provider_heapbraze.membership.planning import Request, make_plan
from airflow_provider_heapbraze.membership.restoring import find_run, match_of_run
from airflow_provider_heapbraze.membership.senders import (
    ATTRIBUTE_KINDS,
    COHORT_KINDS,
    AttributeSender,
    CohortSender,
)
from airflow_provider_heapbraze.membership.sync import Sync
from airflow_provider_heapbraze.operators._airflow import (
    AirflowAccess,
    HeapBrazeOperator,
    airflow_errors,
    as_of,
    choice,
    flag,
    guarded,
    item,
    required,
    run_id,
    shown_progress,
    text,
    whole_number,
)
from airflow_provider_heapbraze.operators._apart import apart
from airflow_provider_heapbraze.operators._lineage import Flow, Place, as_xcom, in_braze, located, of_xcom
from airflow_provider_heapbraze.operators._results import asset_of, import_result, update_assets
from airflow_provider_heapbraze.overview.keeping import kept_in_view

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk import Context

    from airflow_provider_heapbraze.clients.braze import BrazeClient
    from airflow_provider_heapbraze.membership.delivery import Sender

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

    def _target_id(self) -> str:
        return _target_id(self.delivery, self.cohort_id, self.attribute)

    def _place(self, client: BrazeClient) -> Place:
        return in_braze(client.base_url, self.delivery, self._target_id())

    def _sender(self, client: BrazeClient) -> Sender:
        if self.delivery == "cohort":
            return CohortSender(client, self._target_id())
        return AttributeSender(client, self._target_id())

    def _ledger(self, client: BrazeClient) -> TargetLedger:
        return TargetLedger(
            ledger_root(self.ledger),
            cohort_target(client, self.delivery, self.cohort_id, self.attribute),
        )

    def _access(self, context: Context) -> AirflowAccess:
        return AirflowAccess(ledger_root(self.ledger), context)

    def _kinds(self) -> tuple[str, ...]:
        return COHORT_KINDS if self.delivery == "cohort" else ATTRIBUTE_KINDS


class _SendingOperator(_CohortOperator):
    """What importing and restoring have in common: a plan is delivered, and can be stopped."""

    template_fields: Sequence[str] = (*_CohortOperator.template_fields, "on_breach")

    def __init__(self, *, on_breach: Literal["fail", "skip"] = "fail", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.on_breach = on_breach
        self._sync: Sync | None = None

    def execute(self, context: Context) -> dict[str, Any]:
        """Send what there is to send, and return what happened in numbers."""
        hook = BrazeHook(self.braze_conn_id)
        with airflow_errors(), guarded(self.on_breach), hook.get_conn() as client:
            ledger = self._ledger(client)
            push_run_link(context, "targets", ledger.folder.name, run_id(context))
            self._flow = self._flow_of(self._place(client), located(ledger.uri("")))
            sync = self._sync = Sync(
                ledger,
                self._sender(client),
                client.statistics,
                self._access(context),
                show=shown_progress(context),
            )
            with kept_in_view(ledger):
                report = apart(lambda: self._send(sync, ledger, context), sync.stop)
        result = import_result(report)
        counts = report["waterfall"]["members"], result["acknowledged"], result["size"]
        self._flow = self._flow.counted(*counts)
        extra = {key: result[key] for key in ("size", "adds", "removes")}
        update_assets(context, self.outlets, asset_of("braze", self.delivery, self._target_id()), extra)
        return result

    def on_kill(self) -> None:
        """Record what was accepted before the process goes."""
        if self._sync is not None:
            self._sync.stop()

    def _send(self, sync: Sync, ledger: TargetLedger, context: Context) -> dict[str, Any]:
        raise NotImplementedError

    def _flow_of(self, cohort: Place, ledger: Place) -> Flow:
        raise NotImplementedError


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

    def _request(self, context: Context, *, force_full: bool) -> Request:
        folder = path_of(item(self.match, "uri", "match"))
        # The same people at another time are the same match: what is kept there has the first time.
        taken_at = datetime.fromisoformat(item(self.match, "taken_at", "match"))
        cohort = self.delivery == "cohort"
        return Request(
            run_id=run_id(context),
            match=replace(read_match(folder), taken_at=taken_at),
            match_folder=folder,
            kinds=self._kinds(),
            name=required(self.cohort_name, "cohort_name") if cohort else None,
            force_full=force_full,
            as_of=as_of(context),
            goes_on=force_full,
            reassert_share=share(self.reassert_share, "reassert_share"),
            damping=self._damping(),
        )

    def _damping(self) -> Damping:
        runs = whole_number(text(self.remove_after_runs) or 1, "remove_after_runs")
        return Damping(runs, limit(self.remove_after_hours, "remove_after_hours") or 0)


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
        with airflow_errors(), BrazeHook(self.braze_conn_id).get_conn() as client:
            ledger, sender = self._ledger(client), self._sender(client)
            push_run_link(context, "targets", ledger.folder.name, run_id(context))
            sources = of_xcom(self.match)
            self._flow = Flow(sources, (located(ledger.uri("")),))
            request = self._request(context, force_full=False)
            with kept_in_view(ledger):
                plan = make_plan(ledger, ledger.last(), request)
                breaches = judge(plan, ledger, self.guards, self._access(context))
            naming = plan.name is not None and not plan.name_known
            requests = plan.requests(sender.rows_per_request) + naming
            budget = client.cohort_budget if self.delivery == "cohort" else client.track_budget
            seconds = budget.seconds_for(requests)
        self._flow = self._flow.counted(plan.counts["members"], plan.rows)
        for breach in breaches:
            self.log.warning("An import would be stopped: %s", breach)
        return {
            "uri": ledger.uri(plan.folder),
            "plan_id": plan.plan_id,
            "name": request.name or self._target_id(),
            "adds": plan.adds,
            "removes": plan.removes,
            "unchanged": plan.counts["unchanged"],
            "change": {name: plan.change[name] for name in ("held", "adds", "removes")},
            "requests": requests,
            "seconds_at_limit": round(seconds, 1),
            "breaches": [breach.as_dict() for breach in breaches],
            "sources": as_xcom(sources),
        }


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

    def _send(self, sync: Sync, _ledger: TargetLedger, context: Context) -> dict[str, Any]:
        if bool(self.match) == bool(self.plan):
            raise ConfigurationError("Give either match or plan, not both. Nothing was sent.")
        force_full = flag(self.force_full, "force_full")
        if not self.plan:
            return sync.run(self._request(context, force_full=force_full), self.guards)
        if force_full:
            raise ConfigurationError("force_full makes a new plan: give match, not plan. Nothing was sent.")
        return sync.apply(item(self.plan, "plan_id", "plan"), run_id(context), self.guards)

    def _flow_of(self, cohort: Place, ledger: Place) -> Flow:
        return Flow(of_xcom(self.match or self.plan), (cohort, ledger))


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

    def _send(self, sync: Sync, ledger: TargetLedger, context: Context) -> dict[str, Any]:
        commit = find_run(ledger, required(self.run_id, "run_id"))
        root = ledger_root(self.ledger)
        match = match_of_run(ledger, commit, root)
        self.log.info("Restoring what run %s left: %s people.", commit.run_id, f"{commit.size:,}")
        request = Request(
            run_id=run_id(context),
            match=match,
            match_folder=match_folder(root, match.fingerprint),
            kinds=self._kinds(),
            name=commit.name,
            force_full=False,
            as_of=as_of(context),
            goes_on=True,
        )
        return sync.run(request, self.guards)

    def _flow_of(self, cohort: Place, ledger: Place) -> Flow:
        return Flow((ledger,), (cohort, ledger))


def cohort_target(client: BrazeClient, delivery: str, cohort_id: Any, attribute: Any) -> Target:
    """Return the target that an import writes to.

    :raises ConfigurationError: the cohort's id or the attribute is missing.
    """
    place = _target_id(choice(delivery, "delivery", ("cohort", "attribute")), cohort_id, attribute)
    if delivery == "cohort":
        return Target(
            delivery,
            {"braze": client.base_url, "partner": client.keys.partner_name, "cohort_id": place},
        )
    return Target(delivery, {"braze": client.base_url, "attribute": place})


def _target_id(delivery: str, cohort_id: Any, attribute: Any) -> str:
    return required(cohort_id, "cohort_id") if delivery == "cohort" else required(attribute, "attribute")
