"""Plan and import a cohort: Braze is made to hold exactly the matched members."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from airflow.sdk import Asset, AssetAlias
from airflow.sdk.exceptions import AirflowSkipException

from airflow_provider_heapbraze.clients.errors import ConfigurationError
from airflow_provider_heapbraze.hooks.braze import BrazeHook
from airflow_provider_heapbraze.membership.entries import Target
from airflow_provider_heapbraze.membership.errors import GuardBreachedError
from airflow_provider_heapbraze.membership.guards import Guards, describe
from airflow_provider_heapbraze.membership.ledger import TargetLedger
from airflow_provider_heapbraze.membership.matching import read_match
from airflow_provider_heapbraze.membership.planning import Request, make_plan
from airflow_provider_heapbraze.membership.senders import (
    ATTRIBUTE_KINDS,
    COHORT_KINDS,
    AttributeSender,
    CohortSender,
)
from airflow_provider_heapbraze.membership.sync import Sync, now
from airflow_provider_heapbraze.operators._airflow import (
    HeapBrazeOperator,
    airflow_errors,
    ledger_root,
    path_of,
    required,
    run_id,
    uri_of,
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
        if self.delivery == "cohort":
            place = {"partner": client.keys.partner_name, "cohort_id": required(self.cohort_id, "cohort_id")}
        elif self.delivery == "attribute":
            place = {"attribute": required(self.attribute, "attribute")}
        else:
            raise ConfigurationError(
                f"delivery must be 'cohort' or 'attribute', not {self.delivery!r}. Nothing was sent."
            )
        return Target(self.delivery, {"braze": client.base_url, **place})

    def _ledger(self, client: BrazeClient) -> TargetLedger:
        return TargetLedger(ledger_root(self.ledger), self._target(client))

    def _request(self, context: Context, *, force_full: bool) -> Request:
        folder = path_of(uri_of(self.match, "match"))
        cohort = self.delivery == "cohort"
        return Request(
            run_id=run_id(context),
            match=read_match(folder),
            match_folder=folder,
            kinds=COHORT_KINDS if cohort else ATTRIBUTE_KINDS,
            name=required(self.cohort_name, "cohort_name") if cohort else None,
            guards=self.guards,
            force_full=force_full,
            made_at=now(),
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
            ledger = self._ledger(client)
            sender = _sender(self, client)
            plan = make_plan(ledger, ledger.last(), self._request(context, force_full=False))
            requests = -(-plan.rows // sender.rows_per_request)
        if plan.breaches:
            self.log.warning("An import would be stopped: %s", describe(plan.breaches))
        return {
            "uri": ledger.uri(plan.folder),
            "plan_id": plan.plan_id,
            "adds": plan.adds,
            "removes": plan.removes,
            "unchanged": plan.counts["unchanged"],
            "requests": requests,
            "seconds_at_limit": round(_budget(self, client).seconds_for(requests), 1),
            "breaches": plan.breaches,
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
            self._sync = Sync(self._ledger(client), _sender(self, client), client.statistics)
            try:
                report = self._import(self._sync, context)
            except GuardBreachedError as error:
                if self.on_breach == "skip":
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
        if (self.match is None) == (self.plan is None):
            raise ConfigurationError("Give either match or plan, not both. Nothing was sent.")
        if self.plan is None:
            return sync.run(self._request(context, force_full=_is_true(self.force_full)))
        return sync.apply(str(self.plan.get("plan_id")), run_id(context))

    def _update_assets(self, context: Context, result: Mapping[str, Any]) -> None:
        what = self.cohort_id if self.delivery == "cohort" else self.attribute
        asset = Asset(
            name=f"braze {self.delivery} {what}", uri=f"braze://{self.delivery}/{quote(str(what), safe='')}"
        )
        extra = {key: result[key] for key in ("size", "adds", "removes")}
        for outlet in self.outlets:
            if isinstance(outlet, AssetAlias):
                context["outlet_events"][outlet].add(asset, extra=extra)
            elif isinstance(outlet, Asset) and outlet.uri == asset.uri:
                context["outlet_events"][outlet].extra.update(extra)


def _sender(operator: _CohortOperator, client: BrazeClient) -> Sender:
    if operator.delivery == "cohort":
        return CohortSender(client, operator.cohort_id)
    return AttributeSender(client, required(operator.attribute, "attribute"))


def _budget(operator: _CohortOperator, client: BrazeClient) -> Any:
    return client.cohort_budget if operator.delivery == "cohort" else client.track_budget


def _is_true(value: Any) -> bool:
    """Read a flag that may come from a rendered template."""
    return str(value).strip().lower() == "true"
