"""Every four hours: a segment that Heap pushes becomes a Braze cohort, and stays equal to it.

The landing service has taken what Heap's Segments Sync pushed: on its own (``python -m
airflow_provider_heapbraze.landing``) or inside Airflow's API server. ``HEAPBRAZE_LANDING_PATH`` says where.
What is pushed is the Heap property that was chosen as the matching key; it is matched as ``identity``.

It needs the connection ``braze_default`` (for ``verify`` with a REST API key that has ``users.export.ids``)
and a pool ``braze``, with a slot for each import that may run at once.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta

from airflow.sdk import AssetAlias, dag

from airflow_provider_heapbraze.members import Guards, IdentityMapping, SegmentSyncMembers
from airflow_provider_heapbraze.operators.cohort import BrazeCohortImportOperator
from airflow_provider_heapbraze.operators.match import HeapUserMatchOperator
from airflow_provider_heapbraze.operators.verify import BrazeCohortVerifyOperator
from airflow_provider_heapbraze.retries import HeapBrazeRetryPolicy

LANDED = os.environ.get("HEAPBRAZE_LANDING_PATH", "s3://aws_default@my-bucket/landed")
SEGMENT_ID = os.environ.get("HEAP_SEGMENT_ID", "1338065")  # as Heap sends it


@dag(
    schedule="30 */4 * * *",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args={
        "retries": 4,
        "retry_delay": timedelta(minutes=1),
        "retry_exponential_backoff": True,
        "max_retry_delay": timedelta(minutes=30),
        "retry_policy": HeapBrazeRetryPolicy(),  # from Airflow 3.3 on, in place of the three above
    },
    tags=["heap", "braze"],
    doc_md=__doc__,
)
def heap_cohort_from_segments_sync() -> None:
    """Fold what was pushed, import it, and verify it."""
    match = HeapUserMatchOperator(
        task_id="match",
        members=SegmentSyncMembers(LANDED, SEGMENT_ID),
        mapping=IdentityMapping(external_id="identity"),
    )
    imported = BrazeCohortImportOperator(
        task_id="import",
        cohort_id="heap-free-customers",
        cohort_name="Heap: free customers",
        match=match.output,
        guards=Guards(max_removed_share=0.2),
        pool="braze",
    )
    verified = BrazeCohortVerifyOperator(
        task_id="verify",
        cohort_id="heap-free-customers",
        deferrable=True,
        pool="braze",
        outlets=[AssetAlias("braze_cohorts")],
    )
    imported >> verified


heap_cohort_from_segments_sync()
