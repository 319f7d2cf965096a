"""The demo's world: 50,000 people in a local Braze, a Heap segment in a file, its own Airflow home."""

from __future__ import annotations

import csv
import gzip
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

from airflow_provider_heapbraze.sandbox.client import Sandbox

PROJECT = Path(__file__).resolve().parent.parent
HOME = PROJECT / ".demo"
SEGMENT = HOME / "trial_power_users.csv"
CURRENTS = HOME / "currents"
LEDGER = HOME / "ledger"
COHORT_ID = "heap-trial-power-users"
DAG_ID = "heap_cohorts_to_braze"
EVENTS_DAG_ID = "braze_currents_to_heap"
SEGMENTS_DAG_ID = "braze_segments_to_heap"
# The segment that somebody built on the cohort in Braze, and the property in Heap that it becomes.
SEGMENT_ID = "segment-of-trial-power-users"
PROPERTY = "braze_segment_trial_power_users"

# Braze knows people by number: the first by external id, the next by alias only, the last by device only.
EXTERNAL_IDS, ALIASES, DEVICES = range(45_000), range(45_000, 48_000), range(48_000, 50_000)
SEED: list[dict[str, Any]] = [
    {
        "count": len(EXTERNAL_IDS),
        "alias_label": "email",
        "alias_prefix": "mail-",
        "device_prefix": "phone-",
    },
    {
        "count": len(ALIASES),
        "first": ALIASES.start,
        "prefix": None,
        "alias_label": "email",
        "alias_prefix": "mail-",
    },
    {"count": len(DEVICES), "first": DEVICES.start, "prefix": None, "device_prefix": "phone-"},
]
# What a real export holds, too: people Braze never saw, and rows that name nobody whom it could know.
STRANGERS = range(50_000, 50_150)
ODD_ROWS = [
    *(["", "", f"phone-{n}", "true"] for n in range(20)),  # identified, and only a device to know them by
    *(["  ", "", "", "false"] for _ in range(10)),
    *(["x" * 988, "", "", "true"] for _ in range(3)),
    *([f"user-{n}", "", "", "true"] for n in range(0, 60, 2)),  # once more
]


def tonight() -> list[int]:
    """Return the numbers of those who are in the segment on the first night."""
    return [*range(0, 40_000, 2), *ALIASES[::3], *DEVICES[::4], *STRANGERS]


def tomorrow() -> list[int]:
    """Return who is in it a day later: some are gone, some are new."""
    return [n for n in tonight() if n % 26 or n < 60] + [*range(1, 5_000, 2), *ALIASES[1::30]]


def write_segment(numbers: Iterable[int]) -> None:
    """Write the segment as an export would: a file in the place of the last one."""
    SEGMENT.parent.mkdir(parents=True, exist_ok=True)
    with SEGMENT.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["identity", "email", "device_id", "is_identified"])
        rows.writerows(_row(number) for number in numbers)
        rows.writerows(ODD_ROWS)


def write_events() -> int:
    """Write an hour of Braze's events as Currents leaves them in storage; return how many Heap must get.

    One in fifty comes twice, as Currents may do, and one in forty is of somebody without an external id.
    """
    folder = CURRENTS / "event_type=users.messages.email.Open" / "date=2026-11-24-10"
    folder.mkdir(parents=True, exist_ok=True)
    events = [_email_open(number) for number in range(4_000)]
    batches = [events[start : start + 100] for start in range(0, len(events), 100)]
    batches.append(events[::50])
    with gzip.open(folder / "part-0.json.gz", "wt") as file:
        file.writelines(json.dumps({"events": batch}) + "\n" for batch in batches)
    return sum("external_user_id" in event["user"] for event in events)


def expected_in_braze(numbers: Iterable[int]) -> set[str]:
    """Return whom the cohort must hold: the segment's people whom Braze knows, under the names it shows."""
    return {_shown_in_braze(number) for number in numbers if number not in STRANGERS}


def expected_in_heap(numbers: Iterable[int]) -> set[str]:
    """Return who must have the property: those of the cohort who have an external id, Heap's identity."""
    return {shown for shown in expected_in_braze(numbers) if ":" not in shown}


def environment(sandbox: Sandbox) -> dict[str, str]:
    """Return the environment of an Airflow that has the example DAG, the connections and nothing else."""
    cohorts = HOME / "heap_cohorts.yaml"
    cohort = {"cohort_id": COHORT_ID, "cohort_name": "Heap: power users", "segment_id": SEGMENT_ID}
    cohorts.write_text(json.dumps([{**cohort, "members": SEGMENT.as_uri()}]))
    segments = HOME / "braze_segments.yaml"
    segments.write_text(json.dumps([{"segment_id": SEGMENT_ID, "property_name": PROPERTY}]))
    return {
        **os.environ,
        **sandbox.environment(),
        "AIRFLOW_HOME": str(HOME / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(PROJECT / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__HEAPBRAZE__LEDGER": LEDGER.as_uri(),
        "HEAP_COHORTS_FILE": str(cohorts),
        "BRAZE_SEGMENTS_FILE": str(segments),
        "BRAZE_CURRENTS_SOURCE": CURRENTS.as_uri(),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
    }


@contextmanager
def local_braze() -> Iterator[Sandbox]:
    """Run the sandbox with its people for as long as the context lasts."""
    port = _free_port()
    command = [sys.executable, "-m", "airflow_provider_heapbraze.sandbox", "--port", str(port)]
    with (
        (HOME / "sandbox.log").open("w") as log,
        subprocess.Popen(command, stdout=log, stderr=log) as process,
    ):
        try:
            sandbox = Sandbox(f"http://127.0.0.1:{port}")
            _wait_until_up(sandbox, process)
            for people in SEED:
                sandbox.add_users(**people)
            sandbox.settings(export_delay=2.0)
            sandbox.add_segments([{"id": SEGMENT_ID, "name": "Trial power users", "cohort_id": COHORT_ID}])
            yield sandbox
        finally:
            process.terminate()


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def _wait_until_up(sandbox: Sandbox, process: subprocess.Popen[bytes]) -> None:
    for _ in range(100):
        if process.poll() is not None:
            break
        try:
            sandbox.health()
        except requests.ConnectionError:
            time.sleep(0.2)
        else:
            return
    raise SystemExit(f"The sandbox did not start at {sandbox.url}. Its log is {HOME / 'sandbox.log'}.")


def _email_open(number: int) -> dict[str, Any]:
    user = {"user_id": f"{number:024x}", "timezone": "Europe/Berlin"}
    if number % 40:
        user["external_user_id"] = f"user-{number % 1_500}"
    return {
        "event_type": "users.messages.email.Open",
        "id": f"demo-event-{number:06}",
        "time": 1_795_514_400 + number % 3_600,
        "user": user,
        "properties": {"email_address": f"{number}@example.com", "campaign_name": "Welcome", "is_amp": False},
    }


def _row(number: int) -> list[str]:
    if number in ALIASES:
        return ["", f"mail-{number}", "", "true"]
    if number in DEVICES:
        return ["", "", f"phone-{number}", "false"]
    return [f"user-{number}", f"mail-{number}", f"phone-{number}", "true"]


def _shown_in_braze(number: int) -> str:
    if number in ALIASES:
        return f"alias:email/mail-{number}"
    if number in DEVICES:
        return f"device:phone-{number}"
    return f"user-{number}"
