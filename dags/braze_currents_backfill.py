"""On demand: the Braze events of some days become Heap events, beside the hourly export.

Trigger it with a start and an end. It says first how many events there are and how long they take at Heap's
limit. It has a checkpoint of its own, and Heap passes over events whose id it has. In one container it shares
the limit with the hourly export, where the pool ``heap`` has two slots. Clear a failed task: it goes on where
it stopped.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta

from airflow.sdk import Param, dag

from airflow_provider_heapbraze.operators.currents import BrazeCurrentsToHeapOperator
from airflow_provider_heapbraze.retries import HeapBrazeRetryPolicy

SOURCE = os.environ.get("BRAZE_CURRENTS_SOURCE", "s3://aws_default@my-bucket/currents")


@dag(
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    params={
        "start": Param(type="string", format="date-time", description="From the hour of this moment on."),
        "end": Param(type="string", format="date-time", description="Up to this moment, in whole hours."),
    },
    default_args={
        "retries": 4,
        "retry_delay": timedelta(minutes=1),
        "retry_exponential_backoff": True,
        "retry_policy": HeapBrazeRetryPolicy(),  # from Airflow 3.3 on, in place of the two above
    },
    tags=["heap", "braze"],
    doc_md=__doc__,
)
def braze_currents_backfill() -> None:
    """Export the events of a range of hours."""
    BrazeCurrentsToHeapOperator(
        task_id="export",
        source=SOURCE,
        event_prefix="Braze ",
        start="{{ params.start }}",
        end="{{ params.end }}",
        pool="heap",
    )


braze_currents_backfill()
