"""Every night: a Heap segment becomes a Braze cohort, and a person decides where it changes too much.

A plan that keeps within the guards is carried out at once. Any other is shown under "Required Actions" in
Airflow's UI, as a table: approved, this very plan is carried out; rejected, or not answered in 20 hours,
nothing is sent. The decision is kept in the ledger: what it was, whose, and when.

It needs the connection ``braze_default`` and a pool ``braze``, with a slot for each import that may run at
once.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta

from airflow.sdk import AssetAlias, dag

from airflow_provider_heapbraze.members import FileMembers, Guards, IdentityMapping
from airflow_provider_heapbraze.operators.approval import BrazeCohortApprovalOperator
from airflow_provider_heapbraze.operators.cohort import BrazeCohortImportOperator, BrazeCohortPlanOperator
from airflow_provider_heapbraze.operators.match import HeapUserMatchOperator
from airflow_provider_heapbraze.retries import HeapBrazeRetryPolicy

MEMBERS = os.environ.get("HEAP_MEMBERS", "s3://aws_default@my-bucket/heap/vip_customers.csv")
COHORT = {
    "cohort_id": "heap-vip-customers",
    "cohort_name": "Heap: VIP customers",
    "guards": Guards(max_removed_share=0.1, max_added_share=0.5),
}


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
def heap_cohort_with_approval() -> None:
    """Match, plan, ask where a guard is passed, and import that very plan."""
    match = HeapUserMatchOperator(
        task_id="match",
        members=FileMembers(MEMBERS),
        mapping=IdentityMapping(external_id="identity"),
    )
    plan = BrazeCohortPlanOperator(task_id="plan", match=match.output, **COHORT)
    approval = BrazeCohortApprovalOperator(
        task_id="approval",
        plan=plan.output,
        response_timeout=timedelta(hours=20),
        defaults="Reject",
    )
    imported = BrazeCohortImportOperator(
        task_id="import",
        plan=plan.output,
        pool="braze",
        outlets=[AssetAlias("braze_cohorts")],
        **COHORT,
    )
    approval >> imported


heap_cohort_with_approval()
