"""Every night: a segment that Heap syncs to the warehouse becomes a Braze cohort, and stays equal to it.

``heap_warehouse`` is the connection of the warehouse: Redshift, Snowflake, BigQuery, Databricks or Postgres.
Mend the names of the schema and of the segment's table; or give a query of your own.

It needs the connection ``braze_default`` (for ``verify`` with a REST API key that has ``users.export.ids``)
and a pool ``braze``, with a slot for each import that may run at once.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta

from airflow.sdk import AssetAlias, dag

from airflow_provider_heapbraze.members import Guards, IdentityMapping, SqlMembers, heap_segment_query
from airflow_provider_heapbraze.operators.cohort import BrazeCohortImportOperator
from airflow_provider_heapbraze.operators.match import HeapUserMatchOperator
from airflow_provider_heapbraze.operators.verify import BrazeCohortVerifyOperator
from airflow_provider_heapbraze.retries import HeapBrazeRetryPolicy

WAREHOUSE = os.environ.get("HEAP_WAREHOUSE_CONN_ID", "heap_warehouse")
POWER_USERS = heap_segment_query("segment_power_users", schema="main_production")


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
def heap_cohort_from_warehouse() -> None:
    """Ask the warehouse for the members, import and verify them."""
    match = HeapUserMatchOperator(
        task_id="match",
        members=SqlMembers(WAREHOUSE, POWER_USERS),
        mapping=IdentityMapping(external_id="identity"),
    )
    imported = BrazeCohortImportOperator(
        task_id="import",
        cohort_id="heap-power-users",
        cohort_name="Heap: power users",
        match=match.output,
        guards=Guards(max_removed_share=0.2),
        pool="braze",
    )
    verified = BrazeCohortVerifyOperator(
        task_id="verify",
        cohort_id="heap-power-users",
        deferrable=True,
        pool="braze",
        outlets=[AssetAlias("braze_cohorts")],
    )
    imported >> verified


heap_cohort_from_warehouse()
