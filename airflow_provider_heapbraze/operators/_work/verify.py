"""What the verification of a cohort does when its task runs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from airflow_provider_heapbraze.hooks.braze import BrazeHook
from airflow_provider_heapbraze.locations import ledger_root
from airflow_provider_heapbraze.membership.arguments import share
from airflow_provider_heapbraze.membership.ledger import TargetLedger
from airflow_provider_heapbraze.membership.spaces import Spaces
from airflow_provider_heapbraze.operators._access import AirflowAccess
from airflow_provider_heapbraze.operators._airflow import required, run_id, seconds, whole_number
from airflow_provider_heapbraze.operators._lineage import Flow, in_braze, located
from airflow_provider_heapbraze.operators._results import asset_of, update_assets
from airflow_provider_heapbraze.operators._work.cohort import cohort_target
from airflow_provider_heapbraze.operators._work.exports import SegmentExports
from airflow_provider_heapbraze.overview.keeping import kept_in_view
from airflow_provider_heapbraze.segments.comparison import COMPARED_FIELDS, compare
from airflow_provider_heapbraze.segments.existence import (
    check_attribute_values,
    check_existence,
    draw,
    draw_leavers,
)
from airflow_provider_heapbraze.segments.exported import export_archives
from airflow_provider_heapbraze.segments.verification import (
    Tolerance,
    check_still_last,
    failed,
    last_commit,
    write_verification,
)

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_heapbraze.clients.braze import BrazeClient
    from airflow_provider_heapbraze.membership.entries import Commit
    from airflow_provider_heapbraze.operators.verify import BrazeCohortVerifyOperator


def verify(
    operator: BrazeCohortVerifyOperator, context: Context, state: dict[str, Any], *, ready: bool
) -> dict[str, Any] | None:
    """Compare; return the result, or None where it has to be looked again."""
    tolerance = Tolerance(
        share(operator.tolerance, "tolerance"), share(operator.max_unknown_share, "max_unknown_share")
    )
    max_lag = seconds(operator.max_lag, "max_lag", may_be_zero=True)
    with BrazeHook(operator.braze_conn_id).get_conn() as client:
        target = cohort_target(client, operator.delivery, operator.cohort_id, operator.attribute)
        root = ledger_root(operator.ledger)
        ledger = TargetLedger(root, target, Spaces(AirflowAccess(root, context)))
        commit = last_commit(ledger)
        segment = SegmentExports(operator, client, state)
        found = (
            _looked_up(operator, client, ledger, commit)
            if operator.segment_id is None and operator.segment_name is None
            else _compared(segment, client, ledger, commit, run_id(context), ready=ready)
        )
        seen = state.get("segment_id")
        looked_at = ("segment", seen) if seen else (operator.delivery, list(target.place.values())[-1])
        operator.flow = Flow((in_braze(client.base_url, *looked_at),), (located(ledger.uri("")),))
    if found is None:
        return None
    operator.flow = operator.flow.counted(found["held"] if "held" in found else found["sample"], None)
    check_still_last(ledger, commit)
    lag_until = state.setdefault("lag_until", time.time() + max_lag)
    wrong = tolerance.about_wrong(found)
    if wrong and time.time() < lag_until:
        operator.log.info("Not yet: %s. Reads lag behind writes; it is looked again.", *wrong)
        return None
    with kept_in_view(ledger):
        result = write_verification(ledger, commit, found)
    complaints = tolerance.complaints(found)
    if complaints:
        raise failed(ledger, found, complaints)
    _update_assets(operator, context, ledger, commit, result)
    return result


def _looked_up(
    operator: BrazeCohortVerifyOperator, client: BrazeClient, ledger: TargetLedger, commit: Commit
) -> dict[str, Any]:
    """Look up a random sample, where there is no segment."""
    size = whole_number(operator.sample, "sample")
    sample = draw(ledger, commit, size)
    if operator.delivery == "cohort":
        return check_existence(sample, client.reads)
    leavers = draw_leavers(ledger, commit, size)
    attribute = required(operator.attribute, "attribute")
    return check_attribute_values(sample, leavers, client.reads, attribute)


def _compared(
    segment: SegmentExports,
    client: BrazeClient,
    ledger: TargetLedger,
    commit: Commit,
    run: str,
    *,
    ready: bool,
) -> dict[str, Any] | None:
    """Compare with a segment's members; return None where Braze has to end another export first."""
    # An export that was begun before the last import would show what was there before it.
    exports = segment.of_run(f"{run}@{commit.number}")
    export = segment.exported(exports, COMPARED_FIELDS, ready=ready)
    if export is None:
        return None
    archives = export_archives(export, client.reads, segment.bucket())
    with exports.reading(export):
        return {
            "segment_id": export.segment_id,
            "exported_at": export.started,
            **compare(ledger, commit, archives, client.reads),
        }


def _update_assets(
    operator: BrazeCohortVerifyOperator,
    context: Context,
    ledger: TargetLedger,
    commit: Commit,
    result: dict[str, Any],
) -> None:
    waterfall = ledger.read_report(commit.report)["waterfall"]
    extra = {
        "size": commit.size,
        "adds": waterfall["adds"],
        "removes": waterfall["removes"],
        "verified": {key: value for key, value in result.items() if key != "aside"},
    }
    name = list(ledger.target.place.values())[-1]
    update_assets(context, operator.outlets, asset_of("braze", ledger.target.kind, name), extra)
