"""After each dump of Heap Connect: whom a query finds in it becomes a Braze cohort, and stays equal to it.

``HEAP_CONNECT_PATH`` is the folder of the dumps, with ``manifests`` in it. The query is DuckDB's SQL over
Heap's tables: ``users``, ``sessions``, ``pageviews`` and one for each event; only what it names is read.

It needs the connection ``braze_default`` (for ``verify`` with a REST API key that has ``users.export.ids``)
and a pool ``braze``, with a slot for each import that may run at once.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta

from airflow.sdk import AssetAlias, dag

from airflow_provider_heapbraze.members import Guards, HeapConnectMembers, IdentityMapping
from airflow_provider_heapbraze.operators.cohort import BrazeCohortImportOperator
from airflow_provider_heapbraze.operators.match import HeapUserMatchOperator
from airflow_provider_heapbraze.operators.verify import BrazeCohortVerifyOperator
from airflow_provider_heapbraze.retries import HeapBrazeRetryPolicy
from airflow_provider_heapbraze.sensors.heap_connect import HeapConnectDumpSensor

DUMPS = os.environ.get("HEAP_CONNECT_PATH", "s3://aws_default@heap-rs3-my-bucket")
BEGAN_CHECKOUT_AND_DID_NOT_BUY = """
    SELECT DISTINCT users.identity
    FROM users JOIN checkout_begin USING (user_id)
    WHERE checkout_begin.time > now() - INTERVAL 30 DAY AND NOT EXISTS (
        FROM purchase WHERE purchase.user_id = users.user_id AND purchase.time > now() - INTERVAL 30 DAY
    )
"""


@dag(
    schedule="0 3 * * *",
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
def heap_cohort_from_heap_connect() -> None:
    """Wait for the dump, ask it for the members, import and verify them."""
    dump = HeapConnectDumpSensor(task_id="wait_for_dump", path=DUMPS, deferrable=True)
    match = HeapUserMatchOperator(
        task_id="match",
        members=HeapConnectMembers(DUMPS, BEGAN_CHECKOUT_AND_DID_NOT_BUY),
        mapping=IdentityMapping(external_id="identity"),
    )
    imported = BrazeCohortImportOperator(
        task_id="import",
        cohort_id="heap-began-checkout",
        cohort_name="Heap: began checkout, did not buy",
        match=match.output,
        guards=Guards(max_removed_share=0.2),
        pool="braze",
    )
    verified = BrazeCohortVerifyOperator(
        task_id="verify",
        cohort_id="heap-began-checkout",
        deferrable=True,
        pool="braze",
        outlets=[AssetAlias("braze_cohorts")],
    )
    dump >> match
    imported >> verified


heap_cohort_from_heap_connect()
