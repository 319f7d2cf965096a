"""A ledger that holds somebody, and the archives of an export that shows somebody."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq

from airflow_provider_heapbraze import storage
from airflow_provider_heapbraze.membership.entries import Commit, Plan, Target
from airflow_provider_heapbraze.membership.ledger import TargetLedger
from airflow_provider_heapbraze.segments.exports import Export

BASE_URL = "https://rest.iad-01.braze.com"
COMMIT = Commit(
    number=7,
    plan_id="00000006-0123456789ab",
    run_id="run-1",
    fingerprint="f" * 32,
    snapshot=None,
    size=0,
    forced=False,
    name="Cohort",
    report="reports/7.json",
    as_of="2026-11-24",
)
EXPORT = Export(
    number=1,
    segment_id="segment-one",
    fields=["external_id", "user_aliases"],
    object_prefix="prefix-0001",
    url=None,
    started_at=1_795_500_000.0,  # 2026-11-24
    until=1_795_510_000.0,
)
DAY = "2026-11-24"


def ledger_in(folder):
    return TargetLedger(folder, Target("cohort", {"braze": BASE_URL, "cohort_id": "cohort-1"}))


def holding(folder, identifiers, **commit):
    """Return a ledger in a folder, and a commit of it that holds these identifiers."""
    ledger, identifiers = ledger_in(folder), list(identifiers)
    if not identifiers:
        return ledger, replace(COMMIT, **commit)
    local = folder / "snapshot.parquet"
    local.parent.mkdir(parents=True, exist_ok=True)
    columns = [pa.array([one[place] for one in identifiers], pa.string()) for place in range(3)]
    pq.write_table(pa.table(columns, names=["kind", "value", "label"]), local)
    storage.write_whole(ledger.path("snapshots/held.parquet"), local)
    return ledger, replace(COMMIT, snapshot="snapshots/held.parquet", size=len(identifiers), **commit)


def planned(folder, ledger, adds, removes):
    """Write down the plan of the commit, with the changes that it made."""
    rows = [*((*one, False) for one in adds), *((*one, True) for one in removes)]
    plan = Plan(
        number=COMMIT.number - 1,
        plan_id=COMMIT.plan_id,
        run_id=COMMIT.run_id,
        fingerprint=COMMIT.fingerprint,
        base=None,
        held=0,
        adds=len(adds),
        removes=len(removes),
        forced=False,
        name=None,
        name_known=False,
        counts={},
        change={},
        as_of=COMMIT.as_of,
    )
    local = folder / "changes.parquet"
    local.parent.mkdir(parents=True, exist_ok=True)
    columns = {
        name: pa.array([row[place] for row in rows], pa.bool_() if name == "remove" else pa.string())
        for place, name in enumerate(("kind", "value", "label", "remove"))
    }
    pq.write_table(pa.table(columns), local)
    storage.write_whole(ledger.path(plan.changes), local)
    ledger.draft(plan)


def external(value):
    return "external_id", value, ""


def alias(name, label="email"):
    return "alias", name, label


def device(value):
    return "device_id", value, ""


def zipped(file, *contents):
    """Pack files of lines, which are text or to become JSON."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, lines in enumerate(contents):
            texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
            archive.writestr(f"{number}.txt", "".join(f"{text}\n" for text in texts))
    return file


def archives_of(*files):
    return lambda folder: ((file, file.name) for file in files)


def findings(result):
    """Return the rows of the file that names those who differ, sorted."""
    if result["aside"] is None:
        return []
    table = pq.read_table(result["aside"].removeprefix("file://"))
    assert table.column_names == ["finding", "kind", "value", "label"]
    return sorted(tuple(row.values()) for row in table.to_pylist())
