"""Every day: the members of each Braze segment in ``braze_segments.yaml`` become a Heap user property.

Copy this file and the YAML beside it. It needs the connections ``braze_default`` (with a REST API key that
has ``segments.data_series`` and ``users.export.segment``) and ``heap_default``, and the pool ``heap``
(``airflow pools set heap 1 "Heap exports"``). Where Braze leaves exports in a bucket of your own, say so in
``BRAZE_EXPORT_BUCKET``.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import yaml
from airflow.sdk import AssetAlias, Param, dag, task_group

from airflow_provider_heapbraze.members import Guards
from airflow_provider_heapbraze.operators.segment import BrazeSegmentSizeOperator, BrazeSegmentToHeapOperator
from airflow_provider_heapbraze.retries import HeapBrazeRetryPolicy

SEGMENTS_FILE = Path(os.environ.get("BRAZE_SEGMENTS_FILE", Path(__file__).with_name("braze_segments.yaml")))
SEGMENTS = yaml.safe_load(SEGMENTS_FILE.read_text())
BUCKET = os.environ.get("BRAZE_EXPORT_BUCKET")


@dag(
    schedule="0 5 * * *",
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
    params={"force_full": Param(default=False, type="boolean", title="Send everybody, not only changes")},
    tags=["heap", "braze"],
    doc_md=__doc__,
)
def braze_segments_to_heap() -> None:
    """Refresh the property of every segment of the YAML file."""

    @task_group
    def segment(segment_id: str, property_name: str) -> None:
        """Look at the segment's size, then make the property equal to its members."""
        size = BrazeSegmentSizeOperator(
            task_id="size",
            segment_id=segment_id,
            max_drop_share=0.5,
        )
        refresh = BrazeSegmentToHeapOperator(
            task_id="refresh",
            segment_id=segment_id,
            property_name=property_name,
            bucket=BUCKET,
            guards=Guards(max_removed_share=0.5),
            force_full="{{ params.force_full }}",
            deferrable=True,
            pool="heap",
            outlets=[AssetAlias("braze_segments_in_heap")],
        )
        size >> refresh

    segment.expand_kwargs(SEGMENTS)


braze_segments_to_heap()
