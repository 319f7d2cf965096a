"""What the export of Currents does when its task runs."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset, AssetAlias

from airflow_provider_heapbraze.clients.errors import ConfigurationError
from airflow_provider_heapbraze.clients.event_budget import EventBudget
from airflow_provider_heapbraze.clients.shared_file import shared_folder
from airflow_provider_heapbraze.events.estimate import estimate
from airflow_provider_heapbraze.events.export import Export, ExportRequest
from airflow_provider_heapbraze.events.mapping import EventMapping, MappingRules, Selection
from airflow_provider_heapbraze.events.source_ledger import ExportTarget, SourceLedger
from airflow_provider_heapbraze.events.sources import HourRange
from airflow_provider_heapbraze.hooks.heap import HeapHook
from airflow_provider_heapbraze.links import push_run_link
from airflow_provider_heapbraze.locations import ledger_root, path_of
from airflow_provider_heapbraze.moments import moment
from airflow_provider_heapbraze.operators._airflow import (
    airflow_errors,
    choice,
    required,
    run_id,
    shown_progress,
    text,
)
from airflow_provider_heapbraze.operators._apart import apart
from airflow_provider_heapbraze.operators._lineage import Flow, in_heap, located
from airflow_provider_heapbraze.operators._results import asset_of
from airflow_provider_heapbraze.overview.keeping import kept_in_view

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_heapbraze.clients.heap import HeapClient
    from airflow_provider_heapbraze.operators.currents import BrazeCurrentsToHeapOperator

FIRST_HOUR, LAST_HOUR = "0001-01-01-00", "9999-12-31-23"
COUNTS = ("files", "events", "sent", "duplicates", "anonymous", "filtered", "cut", "rejected")


def export(operator: BrazeCurrentsToHeapOperator, context: Context) -> dict[str, Any]:
    """Export what is new, and return what became of every event in numbers."""
    hook = HeapHook(operator.heap_conn_id)
    with airflow_errors(), hook.get_conn() as client:
        source = located(text(operator.source))
        operator.flow = Flow((source,), (in_heap(client.environment, "events"),))
        budget = EventBudget(client.environment, hook.get_event_limits(), folder=shared_folder())
        try:
            ledger, opened = _open(operator, context, client, budget, hook.get_pii_salt())
            operator.stop_work = opened.stop
            with kept_in_view(ledger):
                report = apart(opened.run, opened.stop)
        finally:
            budget.close()
    result = {
        **{name: report[name] for name in COUNTS},
        "set_aside": len(report["set_aside"]),
        "requests": report["requests"]["requests"],
        "report_uri": report["report_uri"],
    }
    operator.flow = _counted(operator.flow, result)
    _update_assets(operator, context, {name: result[name] for name in COUNTS})
    return result


def _counted(flow: Flow, result: dict[str, Any]) -> Flow:
    counted = flow.counted(result["events"], result["sent"])
    return replace(counted, reads=tuple(replace(place, files=result["files"]) for place in counted.reads))


def _update_assets(operator: BrazeCurrentsToHeapOperator, context: Context, counts: dict[str, Any]) -> None:
    # Any asset: what the events of one source are to others, only the DAG's author knows.
    for outlet in operator.outlets:
        if isinstance(outlet, AssetAlias):
            context["outlet_events"][outlet].add(asset_of("heap", "events", "braze"), extra=counts)
        elif isinstance(outlet, Asset):
            context["outlet_events"][outlet].extra.update(counts)


def _open(
    operator: BrazeCurrentsToHeapOperator,
    context: Context,
    client: HeapClient,
    budget: EventBudget,
    salt: str | None,
) -> tuple[SourceLedger, Export]:
    uri = required(operator.source, "source")
    source, hours = path_of(uri), _hours(operator)
    rules = _rules(operator, salt)
    if hours:
        held = estimate(source, hours, events_per_second=budget.events_per_second)
        operator.log.info("The backfill holds %s.", held)
    target = ExportTarget(uri, client.environment, f"{hours.start}/{hours.end}" if hours else "")
    request = ExportRequest(
        source=source,
        run_id=run_id(context),
        hours=hours,
        max_bad_files=int(operator.max_bad_files),
        window_days=float(operator.window_days),
    )
    ledger = SourceLedger(ledger_root(operator.ledger), target)
    push_run_link(operator, context, "sources", ledger.folder.name, run_id(context))
    show = shown_progress(context)
    return ledger, Export(request, ledger, EventMapping(rules), client, budget, show=show)


def _rules(operator: BrazeCurrentsToHeapOperator, salt: str | None) -> MappingRules:
    choice(operator.pii, "pii", ("drop", "hash", "keep"))
    choice(operator.anonymous, "anonymous", ("aside", "braze_id"))
    return MappingRules(
        identity_field=required(operator.identity_field, "identity_field"),
        event_prefix=operator.event_prefix or "",
        event_names=operator.event_names or {},
        pii=operator.pii,
        salt=salt,
        anonymous=operator.anonymous,
        selection=Selection(
            include_events=_patterns(operator.include_events, "include_events"),
            exclude_events=_patterns(operator.exclude_events, "exclude_events"),
            include_properties=_patterns(operator.include_properties, "include_properties"),
            exclude_properties=_patterns(operator.exclude_properties, "exclude_properties"),
            sample=float(operator.sample),
        ),
    )


def _hours(operator: BrazeCurrentsToHeapOperator) -> HourRange | None:
    """Return the hours of a backfill, or None."""
    start, end = moment(operator.start, "start"), moment(operator.end, "end")
    if start is None and end is None:
        return None
    if start is not None and end is not None and end <= start:
        raise ConfigurationError("end is not after start: there is nothing to export. Nothing was sent.")
    return HourRange(
        f"{start:%Y-%m-%d-%H}" if start else FIRST_HOUR,
        f"{end + timedelta(hours=1, microseconds=-1):%Y-%m-%d-%H}" if end else LAST_HOUR,
    )


def _patterns(value: Any, name: str) -> tuple[str, ...]:
    """Return a list of patterns; a single text would be taken for its letters."""
    if isinstance(value, str):
        raise ConfigurationError(f"{name} must be a list of patterns, not one text. Nothing was sent.")
    return tuple(str(item) for item in value or ())
