"""Every hour: the events that Braze Currents left in storage become Heap events, each once.

Copy this file. It needs the connection ``heap_default``, the storage's own connection, and a pool ``heap``
(``airflow pools set heap 1 "Heap exports"``). Exports in one container share Heap's limit by themselves; with
more than one slot and several workers, give each its share of the limit as an extra of its connection.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta

from airflow.sdk import Asset, dag

from airflow_provider_heapbraze.operators.currents import BrazeCurrentsToHeapOperator
from airflow_provider_heapbraze.retries import HeapBrazeRetryPolicy
from airflow_provider_heapbraze.sensors.currents import BrazeCurrentsSensor

# The folder that Braze's storage connector writes to.
SOURCE = os.environ.get("BRAZE_CURRENTS_SOURCE", "s3://aws_default@my-bucket/currents")
BRAZE_EVENTS = Asset(name="heap events braze", uri="heap://events/braze")


@dag(
    schedule="@hourly",
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
def braze_currents_to_heap() -> None:
    """Wait for new files without a worker, then export them."""
    wait = BrazeCurrentsSensor(
        task_id="wait_for_files",
        source=SOURCE,
        deferrable=True,
        poke_interval=60,
        timeout=50 * 60,
        on_timeout="skip",
    )
    export = BrazeCurrentsToHeapOperator(
        task_id="export",
        source=SOURCE,
        event_prefix="Braze ",
        pool="heap",
        outlets=[BRAZE_EVENTS],
    )
    wait >> export


braze_currents_to_heap()
