"""Plan and import a cohort: Braze is made to hold exactly the matched members."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from airflow.providers.common.compat.sdk import AirflowSkipException
from airflow.sdk import Asset, AssetAlias

from airflow_provider_heapbraze.clients.errors import ConfigurationError
from airflow_provider_heapbraze.hooks.braze import BrazeHook
from airflow_provider_heapbraze.locations import ledger_root, path_of
from airflow_provider_heapbraze.membership.entries import Target
from airflow_provider_heapbraze.membership.errors import GuardBreachedError
from airflow_provider_heapbraze.membership.guards import ChangeCounts, Guards
from airflow_provider_heapbraze.membership.ledger import TargetLedger
from airflow_provider_heapbraze.membership.matching import read_match
from airflow_provider_heapbraze.membership.planning import Request, make_plan
from airflow_provider_heapbraze.membership.senders import (
    ATTRIBUTE_KINDS,
    COHORT_KINDS,
    AttributeSender,
    CohortSender,
)
from airflow_provider_heapbraze.membership.sync import Sync
from airflow_provider_heapbraze.operators._airflow import (
    HeapBrazeOperator,
    airflow_errors,
    as_of,
    choice,
    flag,
    item,
    required,
    run_id,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk import Context

    from airflow_provider_heapbraze.clients.braze import BrazeClient
    from airflow_provider_heapbraze.membership.delivery import Sender

CohortDelivery = Literal["cohort", "attribute"]


class _CohortOperator(HeapBrazeOperator):
    """What planning and importing have in common: which cohort, from which match, within which limits."""

    template_fields: Sequence[str] = (
        "cohort_id",
        "cohort_name",
        "match",
        "guards",
        "braze_conn_id",
        "delivery",
        "attribute",
        "ledger",
    )
    ui_color = "#ffe9d6"

    def __init__(
        self,
        *,
        cohort_id: str,
        cohort_name: str,
        match: Mapping[str, Any] | None = None,
        guards: Guards | None = None,
        braze_conn_id: str = BrazeHook.default_conn_name,
        delivery: CohortDelivery = "cohort",
        attribute: str | None = None,
        ledger: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.cohort_id = cohort_id
        self.cohort_name = cohort_name
        self.match = match
        self.guards = copy(guards) if guards else Guards()
        self.braze_conn_id = braze_conn_id
        self.delivery = delivery
        self.attribute = attribute
        self.ledger = ledger

    def _target(self, client: BrazeClient) -> Target:
        choice(self.delivery, "delivery", ("cohort", "attribute"))
        if self.delivery == "cohort":
            place = {"partner": client.keys.partner_name, "cohort_id": self._target_id()}
        else:
            place = {"attribute": self._target_id()}
        return Target(self.delivery, {"braze": client.base_url, **place})

    def _target_id(self) -> str:
        if self.delivery == "cohort":
            return required(self.cohort_id, "cohort_id")
        return required(self.attribute, "attribute")

    def _sender(self, client: BrazeClient) -> Sender:
        if self.delivery == "cohort":
            return CohortSender(client, self._target_id())
        return AttributeSender(client, self._target_id())

    def _ledger(self, client: BrazeClient) -> TargetLedger:
        return TargetLedger(ledger_root(self.ledger), self._target(client))

    def _request(self, context: Context, *, force_full: bool) -> Request:
        folder = path_of(item(self.match, "uri", "match"))
        cohort = self.delivery == "cohort"
        return Request(
            run_id=run_id(context),
            match=read_match(folder),
            match_folder=folder,
            kinds=COHORT_KINDS if cohort else ATTRIBUTE_KINDS,
            name=required(self.cohort_name, "cohort_name") if cohort else None,
            force_full=force_full,
            as_of=as_of(context),
        )


class BrazeCohortPlanOperator(_CohortOperator):
    """Write down what an import would change, and send nothing.

    Returns ``{"uri", "plan_id", "adds", "removes", "unchanged", "requests", "seconds_at_limit",
    "breaches"}``; give it to :class:`BrazeCohortImportOperator` as ``plan`` to carry out this very plan. A
    breached guard does not fail this task: it is named in ``breaches``.

    :param cohort_id: the cohort's id in Braze, ours to choose and never to change.
    :param cohort_name: the name that Braze's dashboard shows.
    :param match: return value of :class:`HeapUserMatchOperator`.
    :param guards: limits that stop an import.
    :param braze_conn_id: the Braze connection.
    :param delivery: ``cohort`` (partner endpoint) or ``attribute`` (a boolean custom attribute).
    :param attribute: the attribute's name, with ``delivery="attribute"``.
    :param ledger: location of the ledger; default ``[heapbraze] ledger`` of Airflow's configuration.
    """

    def execute(self, context: Context) -> dict[str, Any]:
        """Plan, and return what would be sent."""
        with airflow_errors(), BrazeHook(self.braze_conn_id).get_conn() as client:
            ledger, sender = self._ledger(client), self._sender(client)
            plan = make_plan(ledger, ledger.last(), self._request(context, force_full=False))
            breaches = self.guards.breaches(ChangeCounts(**plan.change))
            naming = plan.name is not None and not plan.name_known
            requests = -(-plan.rows // sender.rows_per_request) + naming
            budget = client.cohort_budget if self.delivery == "cohort" else client.track_budget
            seconds = budget.seconds_for(requests)
        for breach in breaches:
            self.log.warning("An import would be stopped: %s", breach)
        return {
            "uri": ledger.uri(plan.folder),
            "plan_id": plan.plan_id,
            "adds": plan.adds,
            "removes": plan.removes,
            "unchanged": plan.counts["unchanged"],
            "requests": requests,
            "seconds_at_limit": round(seconds, 1),
            "breaches": [breach.as_dict() for breach in breaches],
        }


class BrazeCohortImportOperator(_CohortOperator):
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
    :param force_full: send everybody again, not only the changes; after Braze's side was changed by hand.
    :param braze_conn_id: the Braze connection.
    :param delivery: ``cohort`` (partner endpoint; needs a partner key) or ``attribute`` (a boolean custom
        attribute through ``/users/track``, for any REST key).
    :param attribute: the attribute's name, with ``delivery="attribute"``.
    :param ledger: location of the ledger; default ``[heapbraze] ledger`` of Airflow's configuration.
    """

    template_fields: Sequence[str] = (*_CohortOperator.template_fields, "plan", "on_breach", "force_full")

    def __init__(
        self,
        *,
        plan: Mapping[str, Any] | None = None,
        on_breach: Literal["fail", "skip"] = "fail",
        force_full: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.plan = plan
        self.on_breach = on_breach
        self.force_full = force_full
        self._sync: Sync | None = None

    def execute(self, context: Context) -> dict[str, Any]:
        """Import, and return what happened in numbers."""
        with airflow_errors(), BrazeHook(self.braze_conn_id).get_conn() as client:
            skip = choice(self.on_breach, "on_breach", ("fail", "skip")) == "skip"
            self._sync = Sync(self._ledger(client), self._sender(client), client.statistics)
            try:
                report = self._import(self._sync, context)
            except GuardBreachedError as error:
                if skip:
                    raise AirflowSkipException(str(error)) from error
                raise
        result = {
            "run_id": report["run_id"],
            "adds": report["waterfall"]["adds"],
            "removes": report["waterfall"]["removes"],
            "acknowledged": report["waterfall"]["acknowledged"],
            "rejected": sum(report["waterfall"]["rejected"].values()),
            "requests": report["requests"]["requests"],
            "size": report["size"],
            "report_uri": report["report_uri"],
            "waterfall": report["waterfall"],
        }
        self._update_assets(context, result)
        return result

    def on_kill(self) -> None:
        """Record what was accepted before the process goes."""
        if self._sync is not None:
            self._sync.stop()

    def _import(self, sync: Sync, context: Context) -> dict[str, Any]:
        if bool(self.match) == bool(self.plan):
            raise ConfigurationError("Give either match or plan, not both. Nothing was sent.")
        force_full = flag(self.force_full, "force_full")
        if not self.plan:
            return sync.run(self._request(context, force_full=force_full), self.guards)
        if force_full:
            raise ConfigurationError("force_full makes a new plan: give match, not plan. Nothing was sent.")
        return sync.apply(item(self.plan, "plan_id", "plan"), run_id(context), self.guards)

    def _update_assets(self, context: Context, result: Mapping[str, Any]) -> None:
        what = self._target_id()
        asset = Asset(
            name=f"braze {self.delivery} {what}", uri=f"braze://{self.delivery}/{quote(what, safe='')}"
        )
        extra = {key: result[key] for key in ("size", "adds", "removes")}
        for outlet in self.outlets:
            if isinstance(outlet, AssetAlias):
                context["outlet_events"][outlet].add(asset, extra=extra)
            elif isinstance(outlet, Asset) and outlet.uri == asset.uri:
                context["outlet_events"][outlet].extra.update(extra)
