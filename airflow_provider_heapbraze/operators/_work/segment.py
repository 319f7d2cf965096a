"""What the operators for Braze segments do when their task runs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from airflow_provider_heapbraze.hooks.braze import BrazeHook
from airflow_provider_heapbraze.hooks.heap import HeapHook
from airflow_provider_heapbraze.ledger_folder import LedgerDamagedError, LedgerFolder
from airflow_provider_heapbraze.links import push_run_link
from airflow_provider_heapbraze.locations import ledger_root
from airflow_provider_heapbraze.membership.arguments import limit
from airflow_provider_heapbraze.membership.entries import Plan, Target
from airflow_provider_heapbraze.membership.identity import HeapIdentity
from airflow_provider_heapbraze.membership.ledger import TargetLedger
from airflow_provider_heapbraze.membership.matching import match, match_folder, read_match
from airflow_provider_heapbraze.membership.planning import Request
from airflow_provider_heapbraze.membership.senders import PROPERTY_KINDS, HeapPropertySender
from airflow_provider_heapbraze.membership.sync import Sync, now
from airflow_provider_heapbraze.operators._access import AirflowAccess
from airflow_provider_heapbraze.operators._airflow import (
    airflow_errors,
    flag,
    guarded,
    run_id,
    shown_progress,
    text,
    whole_number,
)
from airflow_provider_heapbraze.operators._apart import apart
from airflow_provider_heapbraze.operators._lineage import Flow, in_braze, in_heap, located
from airflow_provider_heapbraze.operators._results import asset_of, import_result, update_assets
from airflow_provider_heapbraze.operators._work.exports import SegmentExports, chosen_segment
from airflow_provider_heapbraze.overview.keeping import kept_in_view
from airflow_provider_heapbraze.segments.exported import EXPORT_FIELDS, ExportedMembers, export_archives
from airflow_provider_heapbraze.segments.exports import segment_folder
from airflow_provider_heapbraze.segments.names import PropertySource, usual_property
from airflow_provider_heapbraze.segments.sizes import SizeHistory, SuddenChangeError

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_heapbraze.clients.braze import BrazeClient
    from airflow_provider_heapbraze.clients.heap import HeapClient
    from airflow_provider_heapbraze.membership.matching import MatchResult
    from airflow_provider_heapbraze.operators.segment import (
        BrazeSegmentSizeOperator,
        BrazeSegmentToHeapOperator,
    )


def refresh(
    operator: BrazeSegmentToHeapOperator, context: Context, state: dict[str, Any], *, ready: bool
) -> dict[str, Any] | None:
    """Refresh the property once the export is there; return what happened in numbers."""
    braze_hook, heap_hook = BrazeHook(operator.braze_conn_id), HeapHook(operator.heap_conn_id)
    with guarded(operator.on_breach), braze_hook.get_conn() as braze, heap_hook.get_conn() as heap:
        segment = SegmentExports(operator, braze, state)
        segment_id = segment.segment_id()
        name = _property(operator, braze, segment_id)
        sender = HeapPropertySender(heap, name)
        ledger = _ledger(operator, heap, name)
        push_run_link(operator, context, "targets", ledger.folder.name, run_id(context))
        operator.flow = Flow(
            (in_braze(braze.base_url, "segment", segment_id),),
            (in_heap(heap.environment, "property", name), located(ledger.uri(""))),
        )
        source = PropertySource(segment_id, text(operator.alias_label) or None)
        source.check(ledger)
        request = _open_request(operator, ledger, context) or _new_request(
            operator, braze, segment, context, ready=ready
        )
        if request is None:
            return None
        source.claim(ledger)
        access = AirflowAccess(ledger_root(operator.ledger), context)
        sync = Sync(ledger, sender, heap.statistics, access, show=shown_progress(context))
        operator.stop_work = sync.stop
        with kept_in_view(ledger):
            report = apart(lambda: sync.run(request, operator.guards), sync.stop)
    result = import_result(report)
    counts = report["waterfall"]["members"], result["acknowledged"], result["size"]
    operator.flow = operator.flow.counted(*counts)
    extra = {key: result[key] for key in ("size", "adds", "removes")}
    update_assets(context, operator.outlets, asset_of("heap", "property", name), extra)
    return result


def record_size(operator: BrazeSegmentSizeOperator, context: Context) -> dict[str, Any]:
    """Ask for the sizes, and return them."""
    with airflow_errors(), BrazeHook(operator.braze_conn_id).get_conn() as client:
        drop = limit(operator.max_drop_share, "max_drop_share")
        rise = limit(operator.max_rise_share, "max_rise_share")
        segment_id = chosen_segment(client, operator.segment_id, operator.segment_name)
        operator.flow = Flow((in_braze(client.base_url, "segment", segment_id),))
        days = client.reads.sizes(segment_id, whole_number(operator.days, "days", least=2))
        history = SizeHistory.of(days, datetime.now(UTC).date())
        result = _record(operator, client, segment_id, history)
        operator.flow = operator.flow.counted(result["size"])
        complaints = history.complaints(drop, rise)
        if complaints:
            raise SuddenChangeError(
                f"Segment {segment_id} has {'; '.join(complaints)}: {history.size:,} on "
                f"{result['day']}, usually {history.usual:,.0f}. Look at it in Braze; to allow it once, "
                f"clear the task with a higher limit. All sizes: {result['report_uri']}."
            )
    extra = {key: result[key] for key in ("size", "day", "change")}
    update_assets(context, operator.outlets, asset_of("braze", "segment", segment_id), extra)
    return result


def _property(operator: BrazeSegmentToHeapOperator, braze: BrazeClient, segment_id: str) -> str:
    given = text(operator.property_name)
    return given or usual_property(ledger_root(operator.ledger), braze.reads, braze.base_url, segment_id)


def _ledger(operator: BrazeSegmentToHeapOperator, heap: HeapClient, name: str) -> TargetLedger:
    # The environment is a hash: the app id that is in it is a credential.
    target = Target("property", {"heap": heap.environment, "property": name})
    return TargetLedger(ledger_root(operator.ledger), target)


def _open_request(
    operator: BrazeSegmentToHeapOperator, ledger: TargetLedger, context: Context
) -> Request | None:
    """Return what this run has begun to send; another export would have other members."""
    last = ledger.last_or_unknown() if flag(operator.force_full, "force_full") else ledger.last()
    if not isinstance(last, Plan) or last.run_id != run_id(context):
        return None
    try:
        members = read_match(match_folder(ledger_root(operator.ledger), last.fingerprint))
    except LedgerDamagedError:
        operator.log.warning("The members whom this run began to send are not in the ledger any more.")
        return None
    operator.log.info("This run has begun to send already: it goes on with the rest.")
    return _request(operator, context, members, last.as_of)


def _new_request(
    operator: BrazeSegmentToHeapOperator,
    braze: BrazeClient,
    segment: SegmentExports,
    context: Context,
    *,
    ready: bool,
) -> Request | None:
    exports = segment.of_run(run_id(context))
    label = text(operator.alias_label) or None
    matcher = HeapIdentity(label)
    fields = [EXPORT_FIELDS[column] for column in matcher.columns().values()]
    export = segment.exported(exports, fields, ready=ready)
    if export is None:
        return None
    members = ExportedMembers(export_archives(export, braze.reads, segment.bucket()), label)
    with exports.reading(export):
        ledger = ledger_root(operator.ledger)
        matched = match(members, matcher, AirflowAccess(ledger, context), ledger)
    return _request(operator, context, matched, export.started)


def _request(
    operator: BrazeSegmentToHeapOperator, context: Context, members: MatchResult, as_of: str
) -> Request:
    """Ask for these members; what counts is when they were read, whichever run it was for."""
    return Request(
        run_id=run_id(context),
        match=members,
        match_folder=match_folder(ledger_root(operator.ledger), members.fingerprint),
        kinds=PROPERTY_KINDS,
        name=None,
        force_full=flag(operator.force_full, "force_full"),
        as_of=as_of,
        goes_on=flag(operator.force_full, "force_full"),
    )


def _record(
    operator: BrazeSegmentSizeOperator, client: BrazeClient, segment_id: str, history: SizeHistory
) -> dict[str, Any]:
    folder = segment_folder(client.base_url, segment_id)
    record = LedgerFolder(ledger_root(operator.ledger) / folder, way_on="remove the file.")
    name = f"sizes/{history.days[-1].day.isoformat()}-{uuid4().hex[:8]}.json"
    result = {"segment_id": segment_id, **history.as_dict(), "report_uri": record.uri(name)}
    record.write(name, {**result, "finished_at": now()})
    if history.usual is None:
        operator.log.warning(
            "There are no earlier days to compare with: the size is recorded, and not judged."
        )
    usual = "unknown" if history.usual is None else f"{history.usual:,.0f}"
    size = f"{history.size:,}"
    operator.log.info("Segment %s: %s people on %s, usually %s.", segment_id, size, result["day"], usual)
    return result
