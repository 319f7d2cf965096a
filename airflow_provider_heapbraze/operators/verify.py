"""Prove that a cohort arrived: what Braze shows is compared with what was delivered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_heapbraze.operators._airflow import text
from airflow_provider_heapbraze.operators._exports import SegmentExportOperator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context

    from airflow_provider_heapbraze.operators.cohort import CohortDelivery


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
        from airflow_provider_heapbraze.operators._work.verify import verify

        return verify(self, context, state, ready=ready)
