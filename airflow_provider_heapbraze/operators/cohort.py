"""Plan and import a cohort: Braze is made to hold exactly the matched members."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any, Literal

from airflow_provider_heapbraze.clients.errors import ConfigurationError
from airflow_provider_heapbraze.hooks.braze import BrazeHook
from airflow_provider_heapbraze.locations import ledger_root, path_of
from airflow_provider_heapbraze.membership.entries import Target
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
    guarded,
    item,
    required,
    run_id,
)
from airflow_provider_heapbraze.operators._results import asset_of, import_result, update_assets

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

    def _target_id(self) -> str:
        return _target_id(self.delivery, self.cohort_id, self.attribute)

    def _sender(self, client: BrazeClient) -> Sender:
        if self.delivery == "cohort":
            return CohortSender(client, self._target_id())
        return AttributeSender(client, self._target_id())

    def _ledger(self, client: BrazeClient) -> TargetLedger:
        return TargetLedger(
            ledger_root(self.ledger),
            cohort_target(client, self.delivery, self.cohort_id, self.attribute),
        )

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
        hook = BrazeHook(self.braze_conn_id)
        with airflow_errors(), guarded(self.on_breach), hook.get_conn() as client:
            self._sync = Sync(self._ledger(client), self._sender(client), client.statistics)
            report = self._import(self._sync, context)
        result = import_result(report)
        extra = {key: result[key] for key in ("size", "adds", "removes")}
        update_assets(context, self.outlets, asset_of("braze", self.delivery, self._target_id()), extra)
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
