"""On demand: a Braze cohort becomes again what an earlier run had left.

Pause the DAG that imports the cohort first, or mend the segment in Heap: its next run makes the cohort equal
to the segment again. It is a plan like any other: guards stop it, and a failed task that is cleared goes on
where it stopped.

It needs the connection ``braze_default`` and a pool ``braze``, with a slot for each import that may run at
once.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.sdk import AssetAlias, Param, dag

from airflow_provider_heapbraze.members import Guards
from airflow_provider_heapbraze.operators.cohort import BrazeCohortRestoreOperator
from airflow_provider_heapbraze.retries import HeapBrazeRetryPolicy


@dag(
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    max_active_runs=1,
    params={
        "cohort_id": Param(
            type="string", minLength=1, description="The cohort's id, as the DAG that imports it has it."
        ),
        "run_id": Param(
            type="string",
            minLength=1,
            description="The run whose outcome is to be there again: the run's id in Airflow, such as "
            "`scheduled__2026-11-23T03:00:00+00:00`. Give any text to get a list of the last ten.",
        ),
        "max_removed_share": Param(
            default=0.2,
            type="number",
            minimum=0,
            maximum=1,
            description="The largest share of the people in the cohort now that may be removed.",
        ),
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
def braze_cohort_restore() -> None:
    """Restore one cohort."""
    BrazeCohortRestoreOperator(
        task_id="restore",
        cohort_id="{{ params.cohort_id }}",
        run_id="{{ params.run_id }}",
        guards=Guards(max_removed_share="{{ params.max_removed_share }}"),
        pool="braze",
        outlets=[AssetAlias("braze_cohorts")],
    )


braze_cohort_restore()
