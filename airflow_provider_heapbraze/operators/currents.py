"""Carry Braze's Currents events over to Heap, each once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from airflow_provider_heapbraze.hooks.heap import HeapHook
from airflow_provider_heapbraze.links import HeapBrazeRunLink
from airflow_provider_heapbraze.operators._airflow import HeapBrazeOperator, text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from airflow.sdk import Context


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

    @property
    def label(self) -> str:
        """Say where the events come from."""
        return text(self.source)

    def execute(self, context: Context) -> dict[str, Any]:
        """Export what is new, and return what became of every event in numbers."""
        from airflow_provider_heapbraze.operators._work.currents import export

        return export(self, context)
