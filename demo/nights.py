"""Two nights of the cohort DAG, the segment back in Heap, an hour of events: ``make demo``, all local."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterable
from typing import Any

import world

from airflow_provider_heapbraze.events.report import as_table as events_as_table
from airflow_provider_heapbraze.membership.report import as_table
from airflow_provider_heapbraze.sandbox.client import Sandbox
from airflow_provider_heapbraze.segments.verification import describe

NIGHTS = [
    ("The first night: the whole segment is imported", "2026-11-23", world.tonight),
    ("A day later: only what changed is sent", "2026-11-24", world.tomorrow),
]


def main() -> int:
    """Run both nights; return 1 where Braze's cohort is not what the segment says."""
    shutil.rmtree(world.HOME, ignore_errors=True)
    world.HOME.mkdir()
    with world.local_braze() as sandbox:
        environment = world.environment(sandbox)
        print("Setting up Airflow ...", flush=True)
        _airflow(environment, "db", "migrate")
        for title, date, members in NIGHTS:
            numbers = members()
            world.write_segment(numbers)
            print(f"\n{title}", flush=True)
            _airflow(environment, "dags", "test", world.DAG_ID, date)
            _show(_newest("targets/cohort-*/reports"))
            print(f"  Verified: {describe(_newest('targets/cohort-*/verifications'))}")
            if not _braze_agrees(sandbox, numbers):
                return 1
        print("\nThe cohort's segment in Braze becomes a property in Heap", flush=True)
        _airflow(environment, "dags", "test", world.SEGMENTS_DAG_ID, "2026-11-24")
        _show(_newest("targets/property-*/reports"))
        print("  (blank: no external id, Heap's identity; these have an alias or a device)")
        if not _property_agrees(sandbox, numbers):
            return 1
        expected = world.write_events()
        print("\nAn hour of Braze's events: each goes to Heap once", flush=True)
        _airflow(environment, "dags", "test", world.EVENTS_DAG_ID, "2026-11-24T10:00:00")
        _show_events(_newest("sources/*/reports"))
        if not _heap_agrees(sandbox, expected):
            return 1
    print(f"\nEvery run's report and plan: {world.LEDGER}")
    print("See it in Airflow's UI:      make ui")
    return 0


def _airflow(environment: dict[str, str], *command: str) -> None:
    log = world.HOME / "airflow.log"
    with log.open("a") as output:
        try:
            done = subprocess.run(
                ["airflow", *command], env=environment, stdout=output, stderr=output, check=False, timeout=300
            )
        except subprocess.TimeoutExpired:
            raise SystemExit(f"`airflow {' '.join(command)}` does not end. Its log is {log}.") from None
    if done.returncode:
        raise SystemExit(f"`airflow {' '.join(command)}` failed. Its log is {log}.")


def _newest(folder: str) -> dict[str, Any]:
    reports = sorted(world.LEDGER.glob(f"{folder}/*.json"))
    if not reports:
        raise SystemExit(f"The DAG left no report. Its log is {world.HOME / 'airflow.log'}.")
    report: dict[str, Any] = json.loads(reports[-1].read_text())
    return report


def _show(report: dict[str, Any]) -> None:
    for line in as_table(report["waterfall"]).splitlines():
        print(f"  {line}")
    requests = report["requests"]
    print(f"  in {requests['requests']:,} requests and {report['seconds']:.1f} s, {requests['waits']} waits")


def _show_events(report: dict[str, Any]) -> None:
    for line in events_as_table(report).splitlines():
        print(f"  {line}")
    print(f"  in {report['requests']['requests']:,} requests and {report['seconds']:.1f} s")


def _heap_agrees(sandbox: Sandbox, expected: int) -> bool:
    held, sends = sandbox.state()["heap"]["events"], sandbox.heap_sends()
    if held == expected and set(sends) == {1}:
        print(f"  Heap holds {held:,} events: exactly those of people whom it can know, each sent once.")
        return True
    print(f"  Heap differs: it holds {held:,} events of {expected:,}; sent by number of times: {sends}.")
    return False


def _property_agrees(sandbox: Sandbox, numbers: Iterable[int]) -> bool:
    held = {
        user["identity"] for user in sandbox.heap_users() if user["properties"].get(world.PROPERTY) == "true"
    }
    expected = world.expected_in_heap(numbers)
    if held == expected:
        print(f"  Heap has {len(held):,} people with the property: those of the cohort whom it can know.")
        return True
    print(f"  Heap differs: {len(expected - held):,} missing, {len(held - expected):,} too many.")
    return False


def _braze_agrees(sandbox: Sandbox, numbers: Iterable[int]) -> bool:
    held = set(sandbox.cohort(world.COHORT_ID)["members"])
    expected = world.expected_in_braze(numbers)
    if held == expected:
        print(f"  Braze's cohort holds {len(held):,} people: exactly those of the segment whom Braze knows.")
        return True
    print(f"  Braze's cohort differs: {len(expected - held):,} missing, {len(held - expected):,} too many.")
    return False


if __name__ == "__main__":
    sys.exit(main())
