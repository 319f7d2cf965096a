"""Carry Braze's Currents events over to Heap, each once."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from airflow.sdk import Asset, AssetAlias

from airflow_provider_heapbraze.clients.errors import ConfigurationError
from airflow_provider_heapbraze.clients.event_budget import EventBudget
from airflow_provider_heapbraze.clients.shared_file import shared_folder
from airflow_provider_heapbraze.hooks.heap import HeapHook
from airflow_provider_heapbraze.links import HeapBrazeRunLink, push_run_link
from airflow_provider_heapbraze.locations import ledger_root, path_of
from airflow_provider_heapbraze.moments import moment
from airflow_provider_heapbraze.operators._airflow import (
    HeapBrazeOperator,
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
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from airflow.sdk import Context

    from airflow_provider_heapbraze.clients.heap import HeapClient
    from airflow_provider_heapbraze.events.export import Export
    from airflow_provider_heapbraze.events.mapping import MappingRules
    from airflow_provider_heapbraze.events.source_ledger import SourceLedger
    from airflow_provider_heapbraze.events.sources import HourRange

FIRST_HOUR, LAST_HOUR = "0001-01-01-00", "9999-12-31-23"
COUNTS = ("files", "events", "sent", "duplicates", "anonymous", "filtered", "cut", "rejected")


class BrazeCurrentsToHeapOperator(HeapBrazeOperator):
    """Send the events that Braze Currents left in storage to Heap, each once.

    Files are found out by their content: Avro, JSON lines, JSON documents, Custom HTTP batches, plain or
    compressed. A retry or a cleared task goes on at the very event where the last attempt stopped; a file
    that comes late is found by the next run. There is one checkpoint per source, environment and ledger: two
    exports of one source with different rules need a ledger each.

    Returns ``{"files", "events", "sent", "duplicates", "anonymous", "filtered", "cut", "rejected",
    "set_aside", "requests", "report_uri"}``, where ``events`` is the sum of what was sent, duplicates,
    anonymous, filtered and rejected. Outlets of type ``Asset`` get the counts; an ``AssetAlias`` gets the
    asset ``heap://events/braze`` with them.

    :param source: folder of the files, in Braze's layout or any other: ``s3://conn_id@bucket/prefix``.
    :param heap_conn_id: the Heap connection.
    :param identity_field: the event's field that is Heap's identity.
    :param event_prefix: put before every event's name, as ``braze-`` in Heap's own feed.
    :param event_names: names in place of the readable ones, by event type or by a custom event's name.
    :param pii: what becomes of fields that Braze marks as personal data (the identity excepted): ``drop``,
        ``hash`` (with the connection's ``pii_salt``) or ``keep``.
    :param anonymous: what becomes of events without an identity: kept ``aside`` in the ledger, or sent by
        ``braze_id``.
    :param include_events: patterns of event types that go along, for example ``users.messages.*``.
    :param exclude_events: patterns of event types that do not; they win.
    :param include_properties: patterns of Heap properties that go along.
    :param exclude_properties: patterns of Heap properties that do not; they win.
    :param sample: share of the people whose events go along, above 0 and up to 1; the same people always.
    :param start: of a backfill, ISO 8601 (UTC where nothing is said): from the hour of this moment on. Hours
        are those of Braze's folders, in which it queued the events; where a path has none, of the events.
    :param end: of a backfill: up to the hour of this moment, with it unless the moment is its very
        beginning. A backfill has a checkpoint of its own.
    :param window_days: for how many days ids of events are kept, to know an event that comes again.
    :param max_bad_files: files that may be set aside as unreadable before the task fails at its end.
    :param ledger: location of the ledger; default ``[heapbraze] ledger`` of Airflow's configuration.
    """

    template_fields: Sequence[str] = (
        "source",
        "heap_conn_id",
        "identity_field",
        "event_prefix",
        "event_names",
        "pii",
        "anonymous",
        "include_events",
        "exclude_events",
        "include_properties",
        "exclude_properties",
        "sample",
        "start",
        "end",
        "window_days",
        "max_bad_files",
        "ledger",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"event_names": "json"}
    ui_color = "#ffe9d6"
    operator_extra_links = (HeapBrazeRunLink(),)

    def __init__(
        self,
        *,
        source: str,
        heap_conn_id: str = HeapHook.default_conn_name,
        identity_field: str = "external_user_id",
        event_prefix: str = "",
        event_names: Mapping[str, str] | None = None,
        pii: Literal["drop", "hash", "keep"] = "drop",
        anonymous: Literal["aside", "braze_id"] = "aside",
        include_events: Sequence[str] = (),
        exclude_events: Sequence[str] = (),
        include_properties: Sequence[str] = (),
        exclude_properties: Sequence[str] = (),
        sample: float = 1.0,
        start: str | datetime | None = None,
        end: str | datetime | None = None,
        window_days: float = 3.0,
        max_bad_files: int = 0,
        ledger: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.source = source
        self.heap_conn_id = heap_conn_id
        self.identity_field = identity_field
        self.event_prefix = event_prefix
        self.event_names = event_names
        self.pii = pii
        self.anonymous = anonymous
        self.include_events = include_events
        self.exclude_events = exclude_events
        self.include_properties = include_properties
        self.exclude_properties = exclude_properties
        self.sample = sample
        self.start = start
        self.end = end
        self.window_days = window_days
        self.max_bad_files = max_bad_files
        self.ledger = ledger
        self._export: Export | None = None

    @property
    def label(self) -> str:
        """Say where the events come from."""
        return text(self.source)

    def execute(self, context: Context) -> dict[str, Any]:
        """Export what is new, and return what became of every event in numbers."""
        hook = HeapHook(self.heap_conn_id)
        with airflow_errors(), hook.get_conn() as client:
            self._flow = Flow((located(text(self.source)),), (in_heap(client.environment, "events"),))
            budget = EventBudget(client.environment, hook.get_event_limits(), folder=shared_folder())
            try:
                ledger, export = self._open(context, client, budget, hook.get_pii_salt())
                self._export = export
                with kept_in_view(ledger):
                    report = apart(export.run, export.stop)
            finally:
                budget.close()
        result = {
            **{name: report[name] for name in COUNTS},
            "set_aside": len(report["set_aside"]),
            "requests": report["requests"]["requests"],
            "report_uri": report["report_uri"],
        }
        self._flow = self._counted(result)
        self._update_assets(context, {name: result[name] for name in COUNTS})
        return result

    def on_kill(self) -> None:
        """Record what was accepted before the process goes."""
        if self._export is not None:
            self._export.stop()

    def _counted(self, result: dict[str, Any]) -> Flow:
        flow = self._flow.counted(result["events"], result["sent"])
        return replace(flow, reads=tuple(replace(place, files=result["files"]) for place in flow.reads))

    def _update_assets(self, context: Context, counts: dict[str, Any]) -> None:
        # Any asset: what the events of one source are to others, only the DAG's author knows.
        for outlet in self.outlets:
            if isinstance(outlet, AssetAlias):
                context["outlet_events"][outlet].add(asset_of("heap", "events", "braze"), extra=counts)
            elif isinstance(outlet, Asset):
                context["outlet_events"][outlet].extra.update(counts)

    def _open(
        self, context: Context, client: HeapClient, budget: EventBudget, salt: str | None
    ) -> tuple[SourceLedger, Export]:
        # Parsing a DAG file must not load what reads and keeps events.
        from airflow_provider_heapbraze.events.estimate import estimate
        from airflow_provider_heapbraze.events.export import Export, ExportRequest
        from airflow_provider_heapbraze.events.mapping import EventMapping
        from airflow_provider_heapbraze.events.source_ledger import ExportTarget, SourceLedger

        uri = required(self.source, "source")
        source, hours = path_of(uri), self._hours()
        rules = self._rules(salt)
        if hours:
            held = estimate(source, hours, events_per_second=budget.events_per_second)
            self.log.info("The backfill holds %s.", held)
        target = ExportTarget(uri, client.environment, f"{hours.start}/{hours.end}" if hours else "")
        request = ExportRequest(
            source=source,
            run_id=run_id(context),
            hours=hours,
            max_bad_files=int(self.max_bad_files),
            window_days=float(self.window_days),
        )
        ledger = SourceLedger(ledger_root(self.ledger), target)
        push_run_link(context, "sources", ledger.folder.name, run_id(context))
        show = shown_progress(context)
        return ledger, Export(request, ledger, EventMapping(rules), client, budget, show=show)

    def _rules(self, salt: str | None) -> MappingRules:
        from airflow_provider_heapbraze.events.mapping import MappingRules, Selection

        choice(self.pii, "pii", ("drop", "hash", "keep"))
        choice(self.anonymous, "anonymous", ("aside", "braze_id"))
        return MappingRules(
            identity_field=required(self.identity_field, "identity_field"),
            event_prefix=self.event_prefix or "",
            event_names=self.event_names or {},
            pii=self.pii,
            salt=salt,
            anonymous=self.anonymous,
            selection=Selection(
                include_events=_patterns(self.include_events, "include_events"),
                exclude_events=_patterns(self.exclude_events, "exclude_events"),
                include_properties=_patterns(self.include_properties, "include_properties"),
                exclude_properties=_patterns(self.exclude_properties, "exclude_properties"),
                sample=float(self.sample),
            ),
        )

    def _hours(self) -> HourRange | None:
        """Return the hours of a backfill, or None."""
        from airflow_provider_heapbraze.events.sources import HourRange

        start, end = moment(self.start, "start"), moment(self.end, "end")
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
