"""What the pictures of the documentation show: a ledger of many cohorts, and nights of an Airflow.

The Airflow is that of the tests, and its runs are real, against the sandbox. The ledger of many cohorts is
written by hand: no night of it was sent anywhere.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from airflow_provider_heapbraze.events.checkpoint import Checkpoint
from airflow_provider_heapbraze.events.progress import Progress
from airflow_provider_heapbraze.events.source_ledger import ExportTarget, SourceLedger
from airflow_provider_heapbraze.membership.entries import Target
from airflow_provider_heapbraze.membership.ledger import found_target
from airflow_provider_heapbraze.overview.keeping import keep_in_view
from airflow_provider_heapbraze.sandbox.server import SandboxServer
from tests.airflow_command import AirflowCommands
from tests.airflow_home import ALL_HAVE, DAG_ID, PROJECT, Airflow
from tests.unit.overview import ledgers

# It stands in logs and on the page: the same on every machine, and nobody's own folder.
HOME = Path("/tmp/heapbraze")  # noqa: S108 - it must not be there before
APPROVAL_DAG_ID = "heap_cohort_with_approval"
APPROVED_RUN_ID = "after-the-vip-rules-changed"
POWER_USERS, CHECKOUT, INACTIVE = "heap-trial-power-users", "heap-began-checkout", "heap-inactive-30-days"
# The first run, and what is added to a segment and taken from it each night.
FIRST_SIZES = {POWER_USERS: 18_240, CHECKOUT: 6_410, INACTIVE: 9_870}
NIGHTS, FAILED_NIGHT, KILLED_NIGHT = 7, 4, 6
TAKEN_BEFORE_IT_IS_KILLED = 3
MATCHES_AT_ONCE = 4
PATIENCE = 300
# What a form shows. Tasks use those of the environment, which lead to the sandbox.
CONNECTIONS = {
    "braze_default": {
        "conn_type": "braze",
        "description": "Workspace “Production”",
        "host": "https://rest.iad-01.braze.com",
        "password": "a-rest-api-key",
        "extra": {
            "partner_name": "heap",
            "partner_api_key": "a-partner-api-key",
            "data_import_key": "a-data-import-key",
        },
    },
    "heap_default": {
        "conn_type": "heap",
        "description": "Environment “Production”",
        "login": "1234567890",
        "password": "an-api-key",
        "extra": {"region": "us", "webhook_secret": "a-webhook-secret", "pii_salt": "a-salt"},
    },
}
PLANNED_CHANGE = {"adds": 96, "removes": 1_420}


def last_night():
    """Return when the nightly runs that are in the past were due last."""
    now = datetime.now(UTC)
    tonight = now.replace(hour=3, minute=0, second=0, microsecond=0)
    return tonight if tonight <= now else tonight - timedelta(days=1)


# The ledger of many cohorts


def write_ledger(root):
    """Write what the page shows: whole records, and one of each kind that needs somebody; return folders."""
    at = last_night() + timedelta(minutes=14)
    common = {"dag": DAG_ID, "last_night": at, "nights": 30}
    cohorts = {
        POWER_USERS: ("Heap: power users on trial", 18_200),
        CHECKOUT: ("Heap: began checkout, did not buy", 6_400),
        "heap-invited-a-colleague": ("Heap: invited a colleague", 2_150),
        "heap-reports-twice-a-week": ("Heap: opens reports twice a week", 31_700),
        "heap-mobile-only": ("Heap: mobile app only", 54_300),
    }
    folders = {
        cohort_id: ledgers.cohort(root, cohort_id, name=name, size=size, **common)
        for cohort_id, (name, size) in cohorts.items()
    }
    attribute = Target("attribute", {"braze": ledgers.HOST, "attribute": "in_heap_onboarding_done"})
    ledgers.held(root, attribute, size=88_400, verified=False, **common)
    segment = Target("property", {"heap": "4f1c09d2a7be", "property": "braze_segment_newsletter"})
    ledgers.held(root, segment, size=61_900, verified=False, **{**common, "dag": "braze_segments_to_heap"})

    waiting = ledgers.cohort(root, "heap-vip-customers", name="Heap: VIP customers", size=5_100, **common)
    let_a_plan_wait(root, waiting, at + timedelta(minutes=2))
    # Of those two no run has said how they are, as where one died: the page reads their logs.
    unfinished = ledgers.cohort(
        root, INACTIVE, name="Heap: no session for 30 days", size=9_800, said=False, **common
    )
    leave_a_plan_open(unfinished, at + timedelta(minutes=4))
    damaged = ledgers.cohort(
        root, "heap-webinar-attendees", name="Heap: webinar attendees", size=1_240, said=False, **common
    )
    shutil.rmtree(damaged / "snapshots")
    write_source(root)
    return folders


def next_plan(folder):
    """Return the plan that would come after the newest entry of a target."""
    ledger = found_target(folder.parents[1], folder.name)
    commit = ledger.last()
    before = ledger.entry(commit.number - 1)
    held = commit.size
    wanted = held + PLANNED_CHANGE["adds"] - PLANNED_CHANGE["removes"]
    unchanged = held - PLANNED_CHANGE["removes"]
    counts = {**before.counts, "held": held, "wanted": wanted, "unchanged": unchanged, **PLANNED_CHANGE}
    unmatched = sum(counts["unmatched"].values())
    counts |= {"matched": wanted, "members": wanted + unmatched + counts["duplicates"]}
    number = commit.number + 1
    return replace(
        before,
        number=number,
        plan_id=f"{number:08d}-{0xC0FFEE:012x}",
        base=commit.snapshot,
        held=held,
        counts=counts,
        **PLANNED_CHANGE,
    )


def let_a_plan_wait(root, folder, at):
    """Write a plan that a guard stopped."""
    plan = next_plan(folder)
    plan = replace(plan, run_id=f"{DAG_ID}/scheduled__{at:%Y-%m-%d}/import", as_of=at.isoformat())
    ledgers.write(folder / plan.folder / "plan.json", {"kind": "plan", **asdict(plan)})
    keep_in_view(found_target(root, folder.name))


def leave_a_plan_open(folder, at):
    """Write a plan whose run died."""
    plan = replace(next_plan(folder), adds=96, removes=210, opened_at=at.timestamp())
    ledgers.write(folder / f"log/{plan.number:08d}.json", {"kind": "plan", **asdict(plan)})


def write_source(root):
    """Write the record of an hourly export of Currents events."""
    ledger = SourceLedger(root, ExportTarget("s3://acme-currents/dataexport.prod-01.S3.heap", "4f1c09d2a7be"))
    known = Checkpoint(ledger, window=6)
    at = datetime.now(UTC).replace(minute=22, second=0, microsecond=0) - timedelta(hours=1)
    sizes = [41_900, 44_260, 52_800, 60_140, 58_930, 55_020, 49_700, 47_310, 51_680, 56_450]
    for night, events in enumerate(sizes):
        ended = at - timedelta(hours=len(sizes) - 1 - night)
        run_id = f"braze_currents_to_heap/scheduled__{ended:%Y-%m-%dT%H}:00:00+00:00/export"
        known.claim(run_id)
        progress = Progress()
        progress.counts["events"] = events
        known.record(progress)
        lost = {"anonymous": events // 61, "duplicates": events // 240, "filtered": 0, "rejected": 3}
        report = {
            "run_id": run_id,
            "events": events,
            "sent": events - sum(lost.values()),
            **lost,
            "cut": 0,
            "files": 24,
            "filtered_by": {},
            "rejected_by": {"time": 3},
            "set_aside": [],
            "kept_aside": "s3://acme-heapbraze/ledger/aside",
            "finished_at": ended.isoformat(),
            "seconds": 212.4,
            "requests": {"requests": 57, "waits": 0, "seconds_waited": 0, "by_status": {"204": 57}},
        }
        known.commit(report=known.write_report(report))


# Airflow and its nights


@contextmanager
def airflow_in(home):
    """Run an Airflow with three cohorts and their segments, whose DAGs are paused; ``with`` gives it."""
    # What it makes is shown: not with a folder of this checkout, and not with nights before last week.
    dags = home / "dags"
    shutil.copytree(PROJECT / "dags", dags, ignore=shutil.ignore_patterns("__pycache__"))
    begin_a_week_ago(dags / f"{DAG_ID}.py")
    with SandboxServer() as sandbox:
        commands = AirflowCommands({**os.environ, **ALL_HAVE, "AIRFLOW_HOME": str(home)})
        airflow = Airflow(home, sandbox, commands)
        airflow.environment |= {
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
            "AIRFLOW__CORE__HOSTNAME_CALLABLE": "tools.pictured_world.hostname",
            "PYTHONPATH": str(PROJECT),
            "AIRFLOW_CONN_BRAZE_DEFAULT": json.dumps(sandbox.braze_connection()),
        }
        try:
            set_up(airflow)
            with airflow.standalone():
                yield airflow
        finally:
            commands.close()


def hostname():
    """Return what Airflow calls this machine."""
    return "localhost"


def begin_a_week_ago(file):
    """Let Airflow run a DAG for each of the last nights, one after the other."""
    first = last_night() - timedelta(days=NIGHTS - 1)
    begins = f"datetime({first.year}, {first.month}, {first.day}, tzinfo=UTC)"
    changes = {"datetime(2026, 1, 1, tzinfo=UTC)": begins, "catchup=False": "catchup=True"}
    text = file.read_text()
    for before, after in changes.items():
        assert before in text
        text = text.replace(before, after)
    file.write_text(text)


def set_up(airflow):
    """Give it its database, pools, connections and cohorts; the sandbox gets its people."""
    airflow.run("db", "migrate")
    airflow.run("pools", "set", "braze", "1", "Braze imports")
    airflow.run("pools", "set", "heap", "2", "Heap exports")
    file = airflow.home / "connections.json"
    file.write_text(json.dumps(CONNECTIONS))
    airflow.run("connections", "import", str(file))
    airflow.sandbox.add_users(count=60_000)
    names = {
        POWER_USERS: "Heap: power users on trial",
        CHECKOUT: "Heap: began checkout, did not buy",
        INACTIVE: "Heap: no session for 30 days",
    }
    cohorts = [
        {"cohort_id": cohort_id, "cohort_name": name, "members": segment(airflow, cohort_id).as_uri()}
        for cohort_id, name in names.items()
    ]
    airflow.cohorts.write_text(json.dumps(cohorts))


def segment(airflow, cohort_id):
    """Return the file of a cohort's segment."""
    return airflow.home / "segments" / f"{cohort_id}.csv"


def write_segment(file, numbers):
    """Write a segment as an export would: with somebody twice, and with rows that name nobody."""
    rows = [
        *([f"user-{number}", f"{number}@example.com", "", "true"] for number in numbers),
        *([f"user-{number}", f"{number}@example.com", "", "true"] for number in numbers[:40]),
        *(["", "", f"phone-{number}", "true"] for number in range(210)),
        *(["  ", "", "", "false"] for _ in range(38)),
    ]
    file.parent.mkdir(exist_ok=True)
    with file.open("w", newline="") as opened:
        csv.writer(opened).writerows([["identity", "email", "device_id", "is_identified"], *rows])


def run_the_nights(airflow):
    """Let the nights pass: one fails, and in the last one a task is killed while it delivers.

    Return the runs, oldest first.
    """
    write_segments_of(airflow, 0)
    airflow.api("PATCH", f"dags/{DAG_ID}", is_paused=False)
    for night in range(NIGHTS):
        run_id = airflow.wait_for(lambda night=night: nth_run(airflow, night))
        if night == KILLED_NIGHT:
            kill_while_it_delivers(airflow, run_id)
        of_the_run = f"FROM task_instance WHERE dag_id = '{DAG_ID}' AND run_id = '{run_id}'"
        matched = f"SELECT count(*) {of_the_run} AND task_id = 'cohort.match' AND state = 'success'"
        airflow.wait_for(lambda sql=matched: airflow.query(sql) == [(len(FIRST_SIZES),)], PATIENCE)
        # The next run begins as soon as this one ends: it waits for its members until they are there.
        let_matches_begin(airflow, 0)
        state = f"SELECT state FROM dag_run WHERE run_id = '{run_id}' AND state IN ('success', 'failed')"
        airflow.wait_for(lambda sql=state: airflow.query(sql), PATIENCE)
        print(run_id, *airflow.query(state)[0], flush=True)
        write_segments_of(airflow, night + 1)
        let_matches_begin(airflow, MATCHES_AT_ONCE)
    return [nth_run(airflow, night) for night in range(NIGHTS)]


def let_matches_begin(airflow, slots):
    """Say how many tasks outside the pool of imports may begin."""
    airflow.api("PATCH", "pools/default_pool?update_mask=slots", slots=slots)


def nth_run(airflow, night):
    """Return the run of a night; None before it is made."""
    made = airflow.query(f"SELECT run_id FROM dag_run WHERE dag_id = '{DAG_ID}' ORDER BY logical_date")
    return made[night][0] if len(made) > night else None


def write_segments_of(airflow, night):
    """Write who is in the segments on a night."""
    for place, (cohort_id, size) in enumerate(FIRST_SIZES.items()):
        # In the last night only the large one changes: what is killed is its import.
        moved = min(night, KILLED_NIGHT - 1) * (90 + 35 * place)
        first, last = moved, size + 2 * moved
        if cohort_id == POWER_USERS:
            if night == FAILED_NIGHT:
                last = size // 3
            if night >= KILLED_NIGHT:
                last += 6_400
        write_segment(segment(airflow, cohort_id), range(first, last))


def kill_while_it_delivers(airflow, run_id):
    """Kill the process of an import in the middle; Airflow tries it again after a minute."""
    sandbox = airflow.sandbox
    taken = {
        "count": TAKEN_BEFORE_IT_IS_KILLED,
        "status": 201,
        "applied": True,
        "endpoint": "cohort-users",
    }
    before = recorded_people(airflow)
    sandbox.faults(next=[taken], endpoints=["cohort-users"], rates={"423": 1})  # then it stands still
    airflow.wait_for(lambda: recorded_people(airflow) - before == 1000 * TAKEN_BEFORE_IT_IS_KILLED, PATIENCE)
    airflow.kill_task()
    killed = (
        f"SELECT state FROM task_instance WHERE run_id = '{run_id}' AND task_id = 'cohort.import' "
        "AND state = 'up_for_retry'"
    )
    airflow.wait_for(lambda: airflow.query(killed), PATIENCE)
    sandbox.faults()


def recorded_people(airflow):
    """Count what Braze has taken of the large cohort, as far as the ledger knows."""
    records = airflow.records(f"targets/cohort-{POWER_USERS}-*/plans/*/settled")
    return sum(end - start for record in records for start, end in record["acknowledged"])


def ask_for_approval(airflow):
    """Import a cohort, and wait until a plan that passes a guard is asked about."""
    write_segment(airflow.segment, range(4_812))
    airflow.api("PATCH", f"dags/{APPROVAL_DAG_ID}", is_paused=False)
    done = f"SELECT state FROM dag_run WHERE dag_id = '{APPROVAL_DAG_ID}' AND state = 'success'"
    airflow.wait_for(lambda: airflow.query(done), PATIENCE)
    write_segment(airflow.segment, range(1_420, 4_908))
    airflow.api(
        "POST", f"dags/{APPROVAL_DAG_ID}/dagRuns", dag_run_id=APPROVED_RUN_ID, logical_date=None, conf={}
    )
    asked = (
        f"SELECT state FROM task_instance WHERE run_id = '{APPROVED_RUN_ID}' AND task_id = 'approval' "
        "AND state IN ('awaiting_input', 'deferred')"
    )
    airflow.wait_for(lambda: airflow.query(asked), PATIENCE)
