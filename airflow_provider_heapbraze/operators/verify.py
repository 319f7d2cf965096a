"""Prove that a cohort arrived: what Braze shows is compared with what was delivered."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from airflow_provider_heapbraze.hooks.braze import BrazeHook
from airflow_provider_heapbraze.locations import ledger_root
from airflow_provider_heapbraze.membership.arguments import share
from airflow_provider_heapbraze.membership.ledger import TargetLedger
from airflow_provider_heapbraze.operators._airflow import (
    required,
    run_id,
    seconds,
    text,
    whole_number,
)
from airflow_provider_heapbraze.operators._exports import SegmentExportOperator
from airflow_provider_heapbraze.operators._lineage import Flow, in_braze, located
from airflow_provider_heapbraze.operators._results import asset_of, update_assets
from airflow_provider_heapbraze.operators.cohort import CohortDelivery, cohort_target
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
    from collections.abc import Sequence

    from airflow.sdk import Context

    from airflow_provider_heapbraze.clients.braze import BrazeClient
    from airflow_provider_heapbraze.membership.entries import Commit


class BrazeCohortVerifyOperator(SegmentExportOperator):
    """Prove that what :class:`BrazeCohortImportOperator` delivered has arrived.

    With the id (or name) of a Braze segment that somebody built on the cohort or the attribute: its members
    are exported and compared with the ledger, person by person. Without one (None): a random sample is looked
    up, which says that people exist, with a stated confidence; and, with ``delivery="attribute"``, that they
    have the attribute, and that those who left last do not. Braze shows nobody's cohorts.

    A task of its own and not a part of the import: it waits for an export and for reads that lag behind
    writes without a worker, and clearing it imports nothing. Returns the result: ``{"check",
    "verified_run_id", "missing", "unknown", …, "verified_at", "report_uri"}``. Outlets get the cohort's asset
    with the size, the change and the result, so that what waits for the asset waits for *verified*.

    :param cohort_id: as the import's.
    :param delivery: as the import's.
    :param attribute: as the import's.
    :param segment_id: the id of the Braze segment (Segment API Identifier); or give ``segment_name``.
    :param segment_name: its name; where several have it, the error lists their ids.
    :param sample: how many people are looked up where there is no segment; fifty a request.
    :param tolerance: largest share of those who were checked that may be missing or surplus, 0 to 1.
    :param max_unknown_share: largest share of those who were checked that Braze may not know, 0 to 1; it
        ignores them without an error.
    :param max_lag: seconds from the first look on in which a difference may be a read that lags behind: it is
        looked again.
    :param braze_conn_id: the Braze connection; its REST API key needs ``users.export.ids``, and
        ``users.export.segment`` for a segment.
    :param bucket: location in which Braze leaves exports, where the workspace has storage credentials.
    :param timeout: seconds to wait for an export.
    :param poll_interval: seconds between two looks, at most.
    :param deferrable: wait in the triggerer, without a worker; default ``[operators] default_deferrable``.
    :param ledger: as the import's.
    """

    template_fields: Sequence[str] = (
        *SegmentExportOperator.template_fields,
        "cohort_id",
        "delivery",
        "attribute",
        "sample",
        "tolerance",
        "max_unknown_share",
    )

    def __init__(
        self,
        *,
        cohort_id: str = "",
        delivery: CohortDelivery = "cohort",
        attribute: str | None = None,
        sample: int = 600,
        tolerance: float = 0.0,
        max_unknown_share: float = 0.5,
        max_lag: float = 900,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.cohort_id = cohort_id
        self.delivery = delivery
        self.attribute = attribute
        self.sample = sample
        self.tolerance = tolerance
        self.max_unknown_share = max_unknown_share
        self.max_lag = max_lag

    @property
    def label(self) -> str:
        """Say which cohort."""
        return text(self.cohort_id) or text(self.attribute)

    def look(self, context: Context, state: dict[str, Any], *, ready: bool) -> dict[str, Any] | None:
        """Compare; return the result, or None where it has to be looked again."""
        tolerance = Tolerance(
            share(self.tolerance, "tolerance"), share(self.max_unknown_share, "max_unknown_share")
        )
        max_lag = seconds(self.max_lag, "max_lag", may_be_zero=True)
        with BrazeHook(self.braze_conn_id).get_conn() as client:
            target = cohort_target(client, self.delivery, self.cohort_id, self.attribute)
            ledger = TargetLedger(ledger_root(self.ledger), target)
            commit = last_commit(ledger)
            found = self._find(client, ledger, commit, run_id(context), state, ready=ready)
            seen = state.get("segment_id")
            looked_at = ("segment", seen) if seen else (self.delivery, list(target.place.values())[-1])
            self._flow = Flow((in_braze(client.base_url, *looked_at),), (located(ledger.uri("")),))
        if found is None:
            return None
        self._flow = self._flow.counted(found["held"] if "held" in found else found["sample"], None)
        check_still_last(ledger, commit)
        lag_until = state.setdefault("lag_until", time.time() + max_lag)
        wrong = tolerance.about_wrong(found)
        if wrong and time.time() < lag_until:
            self.log.info("Not yet: %s. Reads lag behind writes; it is looked again.", *wrong)
            return None
        with kept_in_view(ledger):
            result = write_verification(ledger, commit, found)
        complaints = tolerance.complaints(found)
        if complaints:
            raise failed(ledger, found, complaints)
        self._update_assets(context, ledger, commit, result)
        return result

    def _find(
        self,
        client: BrazeClient,
        ledger: TargetLedger,
        commit: Commit,
        run: str,
        state: dict[str, Any],
        *,
        ready: bool,
    ) -> dict[str, Any] | None:
        if self.segment_id is None and self.segment_name is None:
            size = whole_number(self.sample, "sample")
            sample = draw(ledger, commit, size)
            if self.delivery == "cohort":
                return check_existence(sample, client.reads)
            leavers = draw_leavers(ledger, commit, size)
            attribute = required(self.attribute, "attribute")
            return check_attribute_values(sample, leavers, client.reads, attribute)
        # An export that was begun before the last import would show what was there before it.
        exports = self._exports(client, self._segment(client, state), f"{run}@{commit.number}")
        export = self._exported(exports, client, COMPARED_FIELDS, state, ready=ready)
        if export is None:
            return None
        archives = export_archives(export, client.reads, self._bucket_path())
        with exports.reading(export):
            return {
                "segment_id": export.segment_id,
                "exported_at": export.started,
                **compare(ledger, commit, archives, client.reads),
            }

    def _update_assets(
        self, context: Context, ledger: TargetLedger, commit: Commit, result: dict[str, Any]
    ) -> None:
        waterfall = ledger.read_report(commit.report)["waterfall"]
        extra = {
            "size": commit.size,
            "adds": waterfall["adds"],
            "removes": waterfall["removes"],
            "verified": {key: value for key, value in result.items() if key != "aside"},
        }
        name = list(ledger.target.place.values())[-1]
        update_assets(context, self.outlets, asset_of("braze", ledger.target.kind, name), extra)
