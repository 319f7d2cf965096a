"""Braze segments in Heap: their members as a user property, and their sizes over time."""

from __future__ import annotations

from copy import copy
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar, Literal
from uuid import uuid4

from airflow_provider_heapbraze.hooks.braze import BrazeHook
from airflow_provider_heapbraze.hooks.heap import HeapHook
from airflow_provider_heapbraze.ledger_folder import LedgerDamagedError, LedgerFolder
from airflow_provider_heapbraze.links import HeapBrazeRunLink, push_run_link
from airflow_provider_heapbraze.locations import ledger_root
from airflow_provider_heapbraze.membership.arguments import limit
from airflow_provider_heapbraze.membership.entries import Plan, Target
from airflow_provider_heapbraze.membership.guards import Guards
from airflow_provider_heapbraze.membership.identity import HeapIdentity
from airflow_provider_heapbraze.membership.ledger import TargetLedger
from airflow_provider_heapbraze.membership.matching import match, match_folder, read_match
from airflow_provider_heapbraze.membership.planning import Request
from airflow_provider_heapbraze.membership.senders import PROPERTY_KINDS, HeapPropertySender
from airflow_provider_heapbraze.membership.sync import Sync, now
from airflow_provider_heapbraze.operators._airflow import (
    AirflowAccess,
    HeapBrazeOperator,
    airflow_errors,
    flag,
    guarded,
    run_id,
    shown_progress,
    text,
    whole_number,
)
from airflow_provider_heapbraze.operators._apart import apart
from airflow_provider_heapbraze.operators._exports import SegmentExportOperator, chosen_segment
from airflow_provider_heapbraze.operators._lineage import Flow, in_braze, in_heap, located
from airflow_provider_heapbraze.operators._results import asset_of, import_result, update_assets
from airflow_provider_heapbraze.overview.keeping import kept_in_view
from airflow_provider_heapbraze.segments.exported import EXPORT_FIELDS, ExportedMembers, export_archives
from airflow_provider_heapbraze.segments.exports import segment_folder
from airflow_provider_heapbraze.segments.names import PropertySource, usual_property
from airflow_provider_heapbraze.segments.sizes import SizeHistory, SuddenChangeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context

    from airflow_provider_heapbraze.clients.braze import BrazeClient
    from airflow_provider_heapbraze.clients.heap import HeapClient
    from airflow_provider_heapbraze.membership.matching import MatchResult


class BrazeSegmentToHeapOperator(SegmentExportOperator):
    """Make a Heap user property equal to the members of a Braze segment.

    Members get ``"true"``, those who leave ``"false"``; only changes are sent, each once: a retry or a
    cleared task goes on exactly where the last attempt stopped. It adopts an export that is under way, and
    makes a new one where nothing was sent yet. Returns what :class:`BrazeCohortImportOperator` returns.
    Outlets get the asset ``heap://property/<name>`` with the size and the change.

    :param segment_id: the segment's id in Braze (Segment API Identifier); or give ``segment_name``.
    :param segment_name: its name; where several have it, the error lists their ids.
    :param property_name: the property in Heap; default ``braze_segment_<name>``, from the name that the
        segment had at first. One property has one segment.
    :param alias_label: people's Heap identity is their alias with this label; default: their external id.
    :param braze_conn_id: the Braze connection; its REST API key needs ``users.export.segment``, and
        ``segments.list`` or ``segments.details`` to find names.
    :param heap_conn_id: the Heap connection.
    :param guards: limits that stop a refresh before anything is sent.
    :param on_breach: what a breached guard does to the task: ``fail`` (without retries) or ``skip``.
    :param force_full: send everybody again, not only the changes; also where the ledger is damaged.
    :param bucket: location in which Braze leaves exports, where the workspace has storage credentials.
    :param timeout: seconds to wait for an export; 20 million people can take an hour or more.
    :param poll_interval: seconds between two looks, at most.
    :param deferrable: wait in the triggerer, without a worker; default ``[operators] default_deferrable``.
    :param ledger: location of the ledger; default ``[heapbraze] ledger`` of Airflow's configuration.
    """

    operator_extra_links = (HeapBrazeRunLink(),)
    template_fields: Sequence[str] = (
        *SegmentExportOperator.template_fields,
        "property_name",
        "alias_label",
        "heap_conn_id",
        "guards",
        "on_breach",
        "force_full",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"guards": "py"}

    def __init__(
        self,
        *,
        property_name: str | None = None,
        alias_label: str | None = None,
        heap_conn_id: str = HeapHook.default_conn_name,
        guards: Guards | None = None,
        on_breach: Literal["fail", "skip"] = "fail",
        force_full: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.property_name = property_name
        self.alias_label = alias_label
        self.heap_conn_id = heap_conn_id
        self.guards = copy(guards) if guards else Guards()
        self.on_breach = on_breach
        self.force_full = force_full
        self._sync: Sync | None = None

    @property
    def label(self) -> str:
        """Say which property."""
        return text(self.property_name) or super().label

    def look(self, context: Context, state: dict[str, Any], *, ready: bool) -> dict[str, Any] | None:
        """Refresh the property once the export is there; return what happened in numbers."""
        braze_hook, heap_hook = BrazeHook(self.braze_conn_id), HeapHook(self.heap_conn_id)
        with guarded(self.on_breach), braze_hook.get_conn() as braze, heap_hook.get_conn() as heap:
            segment_id = self._segment(braze, state)
            name = self._property(braze, state)
            sender = HeapPropertySender(heap, name)
            ledger = self._ledger(heap, name)
            push_run_link(context, "targets", ledger.folder.name, run_id(context))
            self._flow = Flow(
                (in_braze(braze.base_url, "segment", segment_id),),
                (in_heap(heap.environment, "property", name), located(ledger.uri(""))),
            )
            source = PropertySource(segment_id, text(self.alias_label) or None)
            source.check(ledger)
            request = self._open_request(ledger, context) or self._new_request(
                braze, context, state, ready=ready
            )
            if request is None:
                return None
            source.claim(ledger)
            access = AirflowAccess(ledger_root(self.ledger), context)
            sync = self._sync = Sync(ledger, sender, heap.statistics, access, show=shown_progress(context))
            with kept_in_view(ledger):
                report = apart(lambda: sync.run(request, self.guards), sync.stop)
        result = import_result(report)
        counts = report["waterfall"]["members"], result["acknowledged"], result["size"]
        self._flow = self._flow.counted(*counts)
        extra = {key: result[key] for key in ("size", "adds", "removes")}
        update_assets(context, self.outlets, asset_of("heap", "property", name), extra)
        return result

    def on_kill(self) -> None:
        """Record what was accepted before the process goes."""
        if self._sync is not None:
            self._sync.stop()

    def _property(self, braze: BrazeClient, state: dict[str, Any]) -> str:
        given = text(self.property_name)
        return given or usual_property(
            ledger_root(self.ledger), braze.reads, braze.base_url, state["segment_id"]
        )

    def _ledger(self, heap: HeapClient, name: str) -> TargetLedger:
        # The environment is a hash: the app id that is in it is a credential.
        target = Target("property", {"heap": heap.environment, "property": name})
        return TargetLedger(ledger_root(self.ledger), target)

    def _open_request(self, ledger: TargetLedger, context: Context) -> Request | None:
        """Return what this run has begun to send; another export would have other members."""
        last = ledger.last_or_unknown() if flag(self.force_full, "force_full") else ledger.last()
        if not isinstance(last, Plan) or last.run_id != run_id(context):
            return None
        try:
            members = read_match(match_folder(ledger_root(self.ledger), last.fingerprint))
        except LedgerDamagedError:
            self.log.warning("The members whom this run began to send are not in the ledger any more.")
            return None
        self.log.info("This run has begun to send already: it goes on with the rest.")
        return self._request(context, members, last.as_of)

    def _new_request(
        self, braze: BrazeClient, context: Context, state: dict[str, Any], *, ready: bool
    ) -> Request | None:
        exports = self._exports(braze, state["segment_id"], run_id(context))
        label = text(self.alias_label) or None
        matcher = HeapIdentity(label)
        fields = [EXPORT_FIELDS[column] for column in matcher.columns().values()]
        export = self._exported(exports, braze, fields, state, ready=ready)
        if export is None:
            return None
        members = ExportedMembers(export_archives(export, braze.reads, self._bucket_path()), label)
        with exports.reading(export):
            ledger = ledger_root(self.ledger)
            matched = match(members, matcher, AirflowAccess(ledger, context), ledger)
        return self._request(context, matched, export.started)

    def _request(self, context: Context, members: MatchResult, as_of: str) -> Request:
        """Ask for these members; what counts is when they were read, whichever run it was for."""
        return Request(
            run_id=run_id(context),
            match=members,
            match_folder=match_folder(ledger_root(self.ledger), members.fingerprint),
            kinds=PROPERTY_KINDS,
            name=None,
            force_full=flag(self.force_full, "force_full"),
            as_of=as_of,
            goes_on=flag(self.force_full, "force_full"),
        )


class BrazeSegmentSizeOperator(HeapBrazeOperator):
    """Record a Braze segment's size, and fail where it changed suddenly.

    An operator and not a sensor: a size is a fact of the day, there is nothing to wait for. The present size
    is compared with the median of the days before; both are Braze's estimates. Returns ``{"segment_id",
    "size", "day", "usual", "change", "series", "report_uri"}``. Outlets get the asset
    ``braze://segment/<segment id>`` with size, day and change.

    :param segment_id: the segment's id in Braze (Segment API Identifier); or give ``segment_name``.
    :param segment_name: its name; where several have it, the error lists their ids.
    :param days: how many days are looked at, 2 to 100.
    :param max_drop_share: largest share of the usual size that may be gone; None for any.
    :param max_rise_share: largest share of the usual size that may have come; None for any.
    :param braze_conn_id: the Braze connection; its REST API key needs ``segments.data_series``.
    :param ledger: location of the ledger; default ``[heapbraze] ledger`` of Airflow's configuration.
    """

    template_fields: Sequence[str] = (
        "segment_id",
        "segment_name",
        "days",
        "max_drop_share",
        "max_rise_share",
        "braze_conn_id",
        "ledger",
    )
    ui_color = "#ffe9d6"

    def __init__(
        self,
        *,
        segment_id: str | None = None,
        segment_name: str | None = None,
        days: int = 8,
        max_drop_share: float | None = 0.5,
        max_rise_share: float | None = None,
        braze_conn_id: str = BrazeHook.default_conn_name,
        ledger: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.segment_id = segment_id
        self.segment_name = segment_name
        self.days = days
        self.max_drop_share = max_drop_share
        self.max_rise_share = max_rise_share
        self.braze_conn_id = braze_conn_id
        self.ledger = ledger

    @property
    def label(self) -> str:
        """Say which segment."""
        return text(self.segment_name) or text(self.segment_id)

    def execute(self, context: Context) -> dict[str, Any]:
        """Ask for the sizes, and return them."""
        with airflow_errors(), BrazeHook(self.braze_conn_id).get_conn() as client:
            drop = limit(self.max_drop_share, "max_drop_share")
            rise = limit(self.max_rise_share, "max_rise_share")
            segment_id = chosen_segment(client, self.segment_id, self.segment_name)
            self._flow = Flow((in_braze(client.base_url, "segment", segment_id),))
            days = client.reads.sizes(segment_id, whole_number(self.days, "days", least=2))
            history = SizeHistory.of(days, datetime.now(UTC).date())
            result = self._record(client, segment_id, history)
            self._flow = self._flow.counted(result["size"])
            complaints = history.complaints(drop, rise)
            if complaints:
                raise SuddenChangeError(
                    f"Segment {segment_id} has {'; '.join(complaints)}: {history.size:,} on "
                    f"{result['day']}, usually {history.usual:,.0f}. Look at it in Braze; to allow it once, "
                    f"clear the task with a higher limit. All sizes: {result['report_uri']}."
                )
        extra = {key: result[key] for key in ("size", "day", "change")}
        update_assets(context, self.outlets, asset_of("braze", "segment", segment_id), extra)
        return result

    def _record(self, client: BrazeClient, segment_id: str, history: SizeHistory) -> dict[str, Any]:
        folder = segment_folder(client.base_url, segment_id)
        record = LedgerFolder(ledger_root(self.ledger) / folder, way_on="remove the file.")
        name = f"sizes/{history.days[-1].day.isoformat()}-{uuid4().hex[:8]}.json"
        result = {"segment_id": segment_id, **history.as_dict(), "report_uri": record.uri(name)}
        record.write(name, {**result, "finished_at": now()})
        if history.usual is None:
            self.log.warning(
                "There are no earlier days to compare with: the size is recorded, and not judged."
            )
        usual = "unknown" if history.usual is None else f"{history.usual:,.0f}"
        size = f"{history.size:,}"
        self.log.info("Segment %s: %s people on %s, usually %s.", segment_id, size, result["day"], usual)
        return result
