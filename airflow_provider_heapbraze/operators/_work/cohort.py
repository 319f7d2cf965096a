"""What the cohort operators do when their task runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeAlias

from airflow_provider_heapbraze.clients.errors import ConfigurationError
from airflow_provider_heapbraze.hooks.braze import BrazeHook
from airflow_provider_heapbraze.links import push_run_link
from airflow_provider_heapbraze.locations import ledger_root, path_of
from airflow_provider_heapbraze.membership.arguments import limit, share
from airflow_provider_heapbraze.membership.damping import Damping
from airflow_provider_heapbraze.membership.entries import Target
from airflow_provider_heapbraze.membership.judged import judge
from airflow_provider_heapbraze.membership.ledger import TargetLedger
from airflow_provider_heapbraze.membership.matching import match_folder, read_match
from airflow_provider_heapbraze.membership.planning import Request, make_plan
from airflow_provider_heapbraze.membership.restoring import engine_of_run, find_run, match_of_run
from airflow_provider_heapbraze.membership.senders import (
    ATTRIBUTE_KINDS,
    COHORT_KINDS,
    AttributeSender,
    CohortSender,
)
from airflow_provider_heapbraze.membership.spaces import Spaces
from airflow_provider_heapbraze.membership.sync import Sync
from airflow_provider_heapbraze.operators._access import AirflowAccess
from airflow_provider_heapbraze.operators._airflow import (
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
from airflow_provider_heapbraze.operators._lineage import Flow, as_xcom, in_braze, located, of_xcom
from airflow_provider_heapbraze.operators._results import asset_of, import_result, update_assets
from airflow_provider_heapbraze.overview.keeping import kept_in_view

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airflow.sdk import Context

    from airflow_provider_heapbraze.clients.braze import BrazeClient
    from airflow_provider_heapbraze.membership.delivery import Sender
    from airflow_provider_heapbraze.operators._lineage import Place
    from airflow_provider_heapbraze.operators.cohort import (
        BrazeCohortImportOperator,
        BrazeCohortPlanOperator,
        BrazeCohortRestoreOperator,
    )

    AnyOperator: TypeAlias = BrazeCohortPlanOperator | BrazeCohortImportOperator | BrazeCohortRestoreOperator
    MatchedOperator: TypeAlias = BrazeCohortPlanOperator | BrazeCohortImportOperator
    SendingOperator: TypeAlias = BrazeCohortImportOperator | BrazeCohortRestoreOperator
    Send: TypeAlias = Callable[[Sync, TargetLedger], dict[str, Any]]


def plan(operator: BrazeCohortPlanOperator, context: Context) -> dict[str, Any]:
    """Plan, and return what would be sent."""
    with airflow_errors(), BrazeHook(operator.braze_conn_id).get_conn() as client:
        ledger = _ledger(operator, client, context, _engine(operator.match))
        sender = _sender(operator, client)
        push_run_link(operator, context, "targets", ledger.folder.name, run_id(context))
        sources = of_xcom(operator.match)
        operator.flow = Flow(sources, (located(ledger.uri("")),))
        request = _request(operator, context, force_full=False)
        with kept_in_view(ledger):
            made = make_plan(ledger, ledger.last(), request)
            breaches = judge(made, ledger, operator.guards, _access(operator, context))
        naming = made.name is not None and not made.name_known
        requests = made.requests(sender.rows_per_request) + naming
        budget = client.cohort_budget if operator.delivery == "cohort" else client.track_budget
        seconds = budget.seconds_for(requests)
    operator.flow = operator.flow.counted(made.counts["members"], made.rows)
    for breach in breaches:
        operator.log.warning("An import would be stopped: %s", breach)
    return {
        "uri": ledger.uri(made.folder),
        "plan_id": made.plan_id,
        "name": request.name or _target_id(operator),
        "adds": made.adds,
        "removes": made.removes,
        "unchanged": made.counts["unchanged"],
        "change": {name: made.change[name] for name in ("held", "adds", "removes")},
        "requests": requests,
        "seconds_at_limit": round(seconds, 1),
        "breaches": [breach.as_dict() for breach in breaches],
        "engine": ledger.spaces.engine,
        "sources": as_xcom(sources),
    }


def import_match_or_plan(operator: BrazeCohortImportOperator, context: Context) -> dict[str, Any]:
    """Send what a match or a plan asks for, and return what happened in numbers."""

    def send(sync: Sync, _ledger: TargetLedger) -> dict[str, Any]:
        if bool(operator.match) == bool(operator.plan):
            raise ConfigurationError("Give either match or plan, not both. Nothing was sent.")
        force_full = flag(operator.force_full, "force_full")
        if not operator.plan:
            return sync.run(_request(operator, context, force_full=force_full), operator.guards)
        if force_full:
            raise ConfigurationError("force_full makes a new plan: give match, not plan. Nothing was sent.")
        return sync.apply(item(operator.plan, "plan_id", "plan"), run_id(context), operator.guards)

    given = operator.match or operator.plan
    return _deliver(operator, context, send, of_xcom(given), _engine(given))


def restore(operator: BrazeCohortRestoreOperator, context: Context) -> dict[str, Any]:
    """Send what makes the cohort again what a run had left, and return what happened in numbers."""

    def send(sync: Sync, ledger: TargetLedger) -> dict[str, Any]:
        commit = find_run(ledger, required(operator.run_id, "run_id"))
        root = ledger_root(operator.ledger)
        ledger.spaces = replace(ledger.spaces, engine=engine_of_run(ledger, commit))
        match = match_of_run(ledger, commit, root)
        operator.log.info("Restoring what run %s left: %s people.", commit.run_id, f"{commit.size:,}")
        request = Request(
            run_id=run_id(context),
            match=match,
            match_folder=match_folder(root, match.fingerprint),
            kinds=_kinds(operator),
            name=commit.name,
            force_full=False,
            as_of=as_of(context),
            goes_on=True,
        )
        return sync.run(request, operator.guards)

    return _deliver(operator, context, send, None)


def cohort_target(client: BrazeClient, delivery: str, cohort_id: Any, attribute: Any) -> Target:
    """Return the target that an import writes to.

    :raises ConfigurationError: the cohort's id or the attribute is missing.
    """
    place = _place_in_braze(choice(delivery, "delivery", ("cohort", "attribute")), cohort_id, attribute)
    if delivery == "cohort":
        return Target(
            delivery,
            {"braze": client.base_url, "partner": client.keys.partner_name, "cohort_id": place},
        )
    return Target(delivery, {"braze": client.base_url, "attribute": place})


def _deliver(
    operator: SendingOperator,
    context: Context,
    send: Send,
    sources: Sequence[Place] | None,
    engine: str = "",
) -> dict[str, Any]:
    """Send, and return what happened in numbers.

    :param sources: datasets that the people come from; None where they come from the ledger.
    :param engine: where the match or the plan was made.
    """
    hook = BrazeHook(operator.braze_conn_id)
    with airflow_errors(), guarded(operator.on_breach), hook.get_conn() as client:
        ledger = _ledger(operator, client, context, engine)
        push_run_link(operator, context, "targets", ledger.folder.name, run_id(context))
        cohort = in_braze(client.base_url, operator.delivery, _target_id(operator))
        record = located(ledger.uri(""))
        operator.flow = Flow((record,) if sources is None else tuple(sources), (cohort, record))
        sync = Sync(
            ledger,
            _sender(operator, client),
            client.statistics,
            _access(operator, context),
            show=shown_progress(context),
        )
        operator.stop_work = sync.stop
        with kept_in_view(ledger):
            report = apart(lambda: send(sync, ledger), sync.stop)
    result = import_result(report)
    counts = report["waterfall"]["members"], result["acknowledged"], result["size"]
    operator.flow = operator.flow.counted(*counts)
    extra = {key: result[key] for key in ("size", "adds", "removes")}
    asset = asset_of("braze", operator.delivery, _target_id(operator))
    update_assets(context, operator.outlets, asset, extra)
    return result


def _request(operator: MatchedOperator, context: Context, *, force_full: bool) -> Request:
    folder = path_of(item(operator.match, "uri", "match"))
    # The same people at another time are the same match: what is kept there has the first time.
    taken_at = datetime.fromisoformat(item(operator.match, "taken_at", "match"))
    cohort = operator.delivery == "cohort"
    return Request(
        run_id=run_id(context),
        match=replace(read_match(folder, _engine(operator.match)), taken_at=taken_at),
        match_folder=folder,
        kinds=_kinds(operator),
        name=required(operator.cohort_name, "cohort_name") if cohort else None,
        force_full=force_full,
        as_of=as_of(context),
        goes_on=force_full,
        reassert_share=share(operator.reassert_share, "reassert_share"),
        damping=_damping(operator),
    )


def _damping(operator: MatchedOperator) -> Damping:
    runs = whole_number(text(operator.remove_after_runs) or 1, "remove_after_runs")
    return Damping(runs, limit(operator.remove_after_hours, "remove_after_hours") or 0)


def _engine(given: Mapping[str, Any] | None) -> str:
    """Return where a match or a plan was made; those of older versions do not say it."""
    return text(given.get("engine")) if isinstance(given, Mapping) else ""


def _ledger(operator: AnyOperator, client: BrazeClient, context: Context, engine: str) -> TargetLedger:
    target = cohort_target(client, operator.delivery, operator.cohort_id, operator.attribute)
    spaces = Spaces(_access(operator, context), engine)
    return TargetLedger(ledger_root(operator.ledger), target, spaces)


def _access(operator: AnyOperator, context: Context) -> AirflowAccess:
    return AirflowAccess(ledger_root(operator.ledger), context)


def _sender(operator: AnyOperator, client: BrazeClient) -> Sender:
    sender = CohortSender if operator.delivery == "cohort" else AttributeSender
    return sender(client, _target_id(operator))


def _kinds(operator: AnyOperator) -> tuple[str, ...]:
    return COHORT_KINDS if operator.delivery == "cohort" else ATTRIBUTE_KINDS


def _target_id(operator: AnyOperator) -> str:
    return _place_in_braze(operator.delivery, operator.cohort_id, operator.attribute)


def _place_in_braze(delivery: str, cohort_id: Any, attribute: Any) -> str:
    return required(cohort_id, "cohort_id") if delivery == "cohort" else required(attribute, "attribute")
