"""What a DAG run tells beside its data: its lineage, as OpenLineage gets it, and names of mapped tasks."""

from __future__ import annotations

import json
import subprocess
from urllib.parse import urlsplit

from tests.airflow_home import COHORT_ID, DAG_ID

PEOPLE = [f"private-person-{number:06}" for number in range(50)]


def test_an_import_leads_from_its_file_to_the_cohort(airflow):
    airflow.sandbox.add_users([{"external_id": person} for person in PEOPLE])
    airflow.write_segment(PEOPLE)
    file = airflow.home / "lineage.json"
    transport = {"type": "file", "log_file_path": str(file), "append": True}
    # In a process of its own: Airflow looks at this setting when it is imported.
    environment = {**airflow.environment, "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps(transport)}
    command = ["airflow", "dags", "test", DAG_ID, "2026-11-24"]
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=240)

    events = [json.loads(line) for line in file.read_text().splitlines()]
    ended = {event["job"]["name"]: event for event in events if event["eventType"] == "COMPLETE"}
    imported = ended[f"{DAG_ID}.cohort.import"]
    (source,) = imported["inputs"]
    assert (source["namespace"], source["name"]) == ("file", str(airflow.segment))
    assert source["inputFacets"]["inputStatistics"]["rowCount"] == 50
    cohort, ledger = imported["outputs"]
    assert cohort["namespace"] == f"braze://{urlsplit(airflow.sandbox.url).netloc}"
    assert cohort["name"] == f"cohort/{COHORT_ID}"
    assert cohort["outputFacets"]["outputStatistics"]["rowCount"] == 50
    assert ledger["name"].startswith(f"{airflow.ledger}/targets/cohort-")
    assert ended[f"{DAG_ID}.cohort.verify"]["inputs"][0]["name"] == cohort["name"]
    assert "private-person" not in file.read_text()

    shown = airflow.query("SELECT task_id, rendered_map_index FROM task_instance WHERE map_index >= 0")
    assert dict(shown) == {
        "cohort.match": airflow.segment.as_uri(),
        "cohort.import": COHORT_ID,
        "cohort.verify": COHORT_ID,
    }
