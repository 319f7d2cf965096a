"""Ledgers of any size, as many nights of imports would leave them; no night was sent anywhere."""

from __future__ import annotations

import json
import os
import random
from dataclasses import asdict
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq

from airflow_provider_heapbraze.membership.entries import Commit, Memory, Plan, Target
from airflow_provider_heapbraze.membership.ledger import found_target
from airflow_provider_heapbraze.overview.keeping import keep_in_view

LAST_NIGHT = datetime(2026, 11, 24, 2, 30, tzinfo=UTC)
HOST = "https://rest.iad-01.braze.com"


def write(path, record):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"format": 1, **record}))


def cohort(root, cohort_id, **how):
    """Write a cohort as :func:`held` does; return its folder."""
    return held(root, Target("cohort", {"braze": HOST, "partner": "heap", "cohort_id": cohort_id}), **how)


def held(
    root,
    target,
    *,
    name="",
    nights=1,
    last_night=LAST_NIGHT,
    dag="heap_cohorts",
    size=1000,
    verified=True,
    full=True,
    said=True,
):
    """Write a target with so many nights, each a plan and a commit; return its folder.

    :param said: whether the last night said how the cohort is, as runs do.
    :param full: whether each night has records of its own; else all old nights are links to one.
    """
    folder = root / "targets" / target.folder
    key = list(target.place.values())[-1]
    for part in ("log", "reports", "verifications", "snapshots"):
        (folder / part).mkdir(parents=True)
    write(folder / "target.json", {"kind": target.kind, **target.place})
    chance = random.Random(key)
    past = []
    for night in range(nights):
        adds, removes = chance.randrange(size // 10 + 1), chance.randrange(size // 12 + 1)
        size += adds - removes
        past = [*past, [float(size), 0.95]][-10:]
        if full or night == nights - 1 or not night:
            about = (name or key, dag, size, adds, removes, past, verified)
            at = last_night - timedelta(days=nights - 1 - night)
            _write_night(folder, target, night, at, about)
            if night == nights - 1:
                _write_snapshot(folder, night, size)
        else:
            _link_night(folder, night, verified)
    if said:
        keep_in_view(found_target(root, folder.name))
    return folder


def _write_night(folder, target, night, at, about):
    name, dag, size, adds, removes, past, verified = about
    number, run_id = 2 * night + 1, f"{dag}/scheduled__{at:%Y-%m-%d}/import"
    plan_id = _plan_id(night)
    counts = {
        "members": size + size // 20 + 7,
        "unmatched": {"identified_without_id": size // 20, "too_long": 3},
        "duplicates": 4,
        "matched": size,
        "undeliverable": 0,
        "wanted": size,
        "held": size - adds + removes,
        "unchanged": size - adds,
        "adds": adds,
        "removes": removes,
        "asserted_again": 0,
        "leaving": 0,
    }
    plan = Plan(
        number=number, plan_id=plan_id, run_id=run_id, fingerprint="f" * 12, base=None, held=counts["held"],
        adds=adds, removes=removes, forced=False, name=name, name_known=True, counts=counts,
        change={"adds": adds, "removes": removes, "match_rate": 0.95}, as_of=at.isoformat(),
        opened_at=at.timestamp(),
    )  # fmt: skip
    report = {
        "run_id": run_id,
        "plan_id": plan_id,
        "target": {"kind": target.kind, **target.place},
        "name": name,
        "waterfall": {**counts, "planned": adds + removes, "acknowledged": adds + removes, "rejected": {}},
        "size": size,
        "settled_by_earlier_attempts": 0,
        "rejected_rows": None,
        "requests": {"requests": 90, "waits": 1, "seconds_waited": 0.5, "by_status": {"201": 89, "429": 1}},
        "seconds": 12.5,
        "report_uri": f"file:///ledger/reports/{number + 1:08d}.json",
        "finished_at": at.isoformat(),
    }
    name_of_report = f"reports/{number + 1:08d}-{night:08x}.json"
    snapshot = _snapshot(night)
    commit = Commit(
        number=number + 1, plan_id=plan_id, run_id=run_id, fingerprint="f" * 12, snapshot=snapshot, size=size,
        forced=False, name=name, report=name_of_report, as_of=at.isoformat(), memory=Memory(past=past),
    )  # fmt: skip
    write(folder / f"log/{number:08d}.json", {"kind": "plan", **asdict(plan)})
    write(folder / f"log/{number + 1:08d}.json", {"kind": "commit", **asdict(commit)})
    write(folder / name_of_report, report)
    if verified:
        found = {"check": "existence", "sample": 600, "unknown": 0, "not_checkable": 0, "claim": "All exist."}
        write(
            folder / f"verifications/{number + 1:08d}-{night:08x}.json",
            {"verified_run_id": run_id, **found, "verified_at": at.isoformat()},
        )


def _write_snapshot(folder, night, size):
    values = [f"{number}" for number in range(size)]
    everybody = {"kind": ["external_id"] * size, "value": values, "label": [""] * size}
    pq.write_table(pa.table(everybody), folder / _snapshot(night))


def _plan_id(night):
    return f"{2 * night + 1:08d}-{night:012x}"


def _snapshot(night):
    return f"snapshots/{_plan_id(night)}-d1ce.parquet"


def _link_night(folder, night, verified):
    first, second = 2 * night + 1, 2 * night + 2
    os.link(folder / "log/00000001.json", folder / f"log/{first:08d}.json")
    os.link(folder / "log/00000002.json", folder / f"log/{second:08d}.json")
    os.link(folder / "reports/00000002-00000000.json", folder / f"reports/{second:08d}-{night:08x}.json")
    if verified:
        old = folder / "verifications/00000002-00000000.json"
        os.link(old, folder / f"verifications/{second:08d}-{night:08x}.json")
