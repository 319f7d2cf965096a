"""Every night: each Heap segment in ``heap_cohorts.yaml`` becomes a Braze cohort, and stays equal to it.

Copy this file and the YAML beside it. It needs the connection ``braze_default``, and a pool ``braze`` with a
slot for each import that your workers have memory for (``airflow pools set braze 8 "Braze imports"``): those
that run at once share Braze's limit, small ones first.
The task ``verify`` needs a REST API key with ``users.export.ids`` and, for cohorts with a ``segment_id``,
``users.export.segment``; without one leave it out, and give the outlet to ``import``. The members' files have
the columns ``identity``, ``email``, ``device_id`` and ``is_identified``; or mend the mapping below.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import yaml
from airflow.sdk import AssetAlias, Param, dag, task_group

from airflow_provider_heapbraze.members import FileMembers, Guards, IdentityMapping
from airflow_provider_heapbraze.operators.cohort import BrazeCohortImportOperator
from airflow_provider_heapbraze.operators.match import HeapUserMatchOperator
from airflow_provider_heapbraze.operators.verify import BrazeCohortVerifyOperator
from airflow_provider_heapbraze.retries import HeapBrazeRetryPolicy

COHORTS_FILE = Path(os.environ.get("HEAP_COHORTS_FILE", Path(__file__).with_name("heap_cohorts.yaml")))
# Where Braze leaves exports of segments, if it writes them to a bucket of your own.
BUCKET = os.environ.get("BRAZE_EXPORT_BUCKET")
COHORTS = [{"segment_id": None, **cohort} for cohort in yaml.safe_load(COHORTS_FILE.read_text())]


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
    params={"force_full": Param(default=False, type="boolean", title="Send everybody, not only changes")},
    tags=["heap", "braze"],
    doc_md=__doc__,
)
def heap_cohorts_to_braze() -> None:
    """Import every cohort of the YAML file, and verify it."""

    @task_group
    def cohort(cohort_id: str, cohort_name: str, members: str, segment_id: str | None) -> None:
        """Match the segment's members, import them, and prove that they arrived."""
        match = HeapUserMatchOperator(
            task_id="match",
            members=FileMembers(members),
            mapping=IdentityMapping(
                external_id="identity",
                alias_name="email",
                alias_label="email",
                device_id="device_id",
                identified="is_identified",
            ),
        )
        imported = BrazeCohortImportOperator(
            task_id="import",
            cohort_id=cohort_id,
            cohort_name=cohort_name,
            match=match.output,
            guards=Guards(max_removed_share=0.2),
            force_full="{{ params.force_full }}",
            pool="braze",
        )
        # What waits for the asset waits for this: by the segment to the last person, else by a sample.
        verified = BrazeCohortVerifyOperator(
            task_id="verify",
            cohort_id=cohort_id,
            segment_id=segment_id,
            bucket=BUCKET,
            deferrable=True,
            pool="braze",
            outlets=[AssetAlias("braze_cohorts")],
        )
        imported >> verified

    cohort.expand_kwargs(COHORTS)


heap_cohorts_to_braze()
