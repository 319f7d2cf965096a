"""``heapbraze ledger check``: what a person on call reads, and what a program gets."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from upath import UPath

from airflow_provider_heapbraze.cli import main
from airflow_provider_heapbraze.events.checkpoint import Checkpoint
from airflow_provider_heapbraze.events.progress import Progress
from airflow_provider_heapbraze.events.source_ledger import ExportTarget, SourceLedger
from airflow_provider_heapbraze.ledger_check.check import check
from airflow_provider_heapbraze.membership.attempts import begin_attempt
from airflow_provider_heapbraze.membership.entries import Plan
from airflow_provider_heapbraze.membership.errors import GuardBreachedError
from airflow_provider_heapbraze.membership.guards import Guards
from airflow_provider_heapbraze.membership.planning import make_plan
from tests.unit.ledger_check.conftest import people
from tests.unit.segments_sync.pushing import Pushed, page


@pytest.fixture
def look(capsys):
    """Run the command; return its exit code and what it said."""

    def look(root, *options):
        code = main(["ledger", "check", str(root), *options])
        said = capsys.readouterr()
        assert "user-" not in said.out + said.err
        return code, said.out + said.err

    return look


def everything_in(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def make_source(root, run_id="export-1", report=True, report_more=None, hours=""):
    """Make the record of a source whose run came to its end, or did not."""
    ledger = SourceLedger(root, ExportTarget("s3://bucket/currents", "https://heap.example", hours))
    known = Checkpoint(ledger, window=6)
    known.claim(run_id)
    progress = Progress()
    progress.counts["events"] = 3
    known.record(progress)
    if report:
        known.commit(report=known.write_report({"run_id": run_id, **(report_more or {})}))
    return ledger


def make_segment_sync(folder):
    pushed = Pushed(folder)
    pushed.land(page("task-1", add=["ann", "bob"]), at=0)
    assert pushed.members() == ["ann", "bob"]
    return pushed


def test_a_healthy_ledger(nightly, tmp_path, look):
    make_source(tmp_path / "ledger")
    make_segment_sync(tmp_path)
    before = everything_in(tmp_path / "ledger")
    for options in ([], ["--deep"]):
        code, said = look(tmp_path / "ledger", *options)
        assert code == 0
        assert re.search(rf"{nightly.ledger.folder.name} +whole +30 +1 +[-0-9]+ [0-9:]+ +run-1\n", said)
        assert re.search(r"currents-currents-\w+ +whole +0 +1 .* export-1\n", said)
        assert re.search(r"1338065-\w+ +whole +2 +1 ", said)
        assert said.endswith("\nHealthy: 3 records, nothing is damaged.\n")
    assert everything_in(tmp_path / "ledger") == before, "it only reads"


def test_an_unfinished_plan(unfinished, tmp_path, look):
    code, said = look(tmp_path / "ledger")
    assert code == 0
    assert re.search(r"unfinished +30 +1 .* run-2\n", said)
    plan = unfinished.ledger.last().plan_id
    assert (
        f"Run run-2 has stopped, and left plan {plan} unfinished. 0 of 10 changes are settled. Clear its "
        "task: with the same match it goes on with the remaining 10. Any other run takes the plan over, and "
        "leaves nobody behind."
    ) in said
    assert said.endswith("\nHealthy: 1 record, nothing is damaged. 1 unfinished.\n")


def test_a_plan_that_lacks_only_its_commit(unfinished, tmp_path, look):
    plan = unfinished.ledger.last()
    attempt = begin_attempt(unfinished.ledger, plan)
    record = {"acknowledged": [[0, 9]], "rejected": [[9, "refused_400"]], "named": False, "at": 1.0}
    unfinished.ledger.write(f"{plan.folder}/settled/00000002-00000001.json", record)
    _, said = look(tmp_path / "ledger")
    assert (
        "Run run-2 may be at work now: it gave a sign of life within the last minute. 10 of 10 changes are "
        "settled (1 rejected). If it has died, clear its task: with the same match it"
    ) in said
    attempt.end()
    _, said = look(tmp_path / "ledger")
    assert "10 of 10 changes are settled (1 rejected)." in said
    assert "it sends nothing: it writes down what is held" in said


def truncate(file):
    file.write_bytes(file.read_bytes()[:40])


DAMAGE = [
    ("log/00000003.json", None, "entry 3 of the log is missing, whose plan had begun"),
    ("log/00000002.json", None, "entry 2 of the log is missing"),
    ("log/00000003.json", truncate, "log/00000003.json is missing or cannot be read"),
    ("plans/00000003-*/changes.parquet", None, "changes.parquet is missing or cannot be read"),
    ("plans/00000003-*/changes.parquet", truncate, "changes.parquet is missing or cannot be read"),
    (
        "plans/00000003-*/settled/*.json",
        truncate,
        "settled/00000001-00000001.json is missing or cannot be read",
    ),
    ("snapshots/*.parquet", truncate, "is missing or cannot be read"),
]


@pytest.mark.parametrize(("file", "damage", "said"), DAMAGE)
def test_what_stops_a_run_is_found(unfinished, tmp_path, look, file, damage, said):
    (found,) = unfinished.ledger.folder.glob(file)
    damage(found) if damage else found.unlink()
    code, output = look(tmp_path / "ledger")
    assert code == 1
    assert f"- targets/{unfinished.ledger.folder.name}: " in output
    assert f"{said}.\n  Runs stop here, and send nothing. Restore the file from a backup" in output
    assert "force_full=True" in output
    assert "BrazeCohortRestoreOperator" in output
    assert "What happens next" not in output
    assert output.endswith("\nDAMAGED: 1 finding in 1 of 1 record.\n")


def test_rows_that_are_not_as_many_as_the_log_says(nightly, tmp_path, look):
    (snapshot,) = nightly.ledger.folder.glob("snapshots/*")
    (match,) = (tmp_path / "ledger" / "matches").glob("*/others-*")
    snapshot.write_bytes(match.read_bytes())
    code, said = look(tmp_path / "ledger")
    assert code == 1
    assert f"snapshots/{snapshot.name} has 0 rows, the log says 30." in said


def test_rows_that_were_changed_are_found_by_a_deep_look(nightly, tmp_path, look):
    (snapshot,) = nightly.ledger.folder.glob("snapshots/*")
    content = snapshot.read_bytes()
    snapshot.write_bytes(content.replace(b"DUCK", b"duck", 1).replace(b"DuckDB", b"DuckDX", 1))
    assert snapshot.read_bytes() != content
    assert look(tmp_path / "ledger")[0] == 0
    code, said = look(tmp_path / "ledger", "--deep")
    assert code == 1
    assert f"snapshots/{snapshot.name} is missing or cannot be read" in said


def test_answers_for_more_than_was_planned(unfinished, tmp_path, look):
    record = {"acknowledged": [[0, 11]], "rejected": [], "named": False, "at": 1.0}
    plan = unfinished.ledger.last()
    unfinished.ledger.write(f"{plan.folder}/settled/00000002-00000001.json", record)
    code, said = look(tmp_path / "ledger")
    assert code == 1
    assert "settled has answers for 11 changes, the plan has 10." in said


@pytest.mark.parametrize("damage", [None, truncate])
@pytest.mark.parametrize("table", ["identifiers-*", "others-*", "unmatched-*", "match.json"])
def test_a_match_that_a_re_run_needs(unfinished, tmp_path, look, table, damage):
    plan = unfinished.ledger.last()
    [file] = (tmp_path / "ledger" / "matches" / plan.fingerprint).glob(table)
    damage(file) if damage else file.unlink()
    code, said = look(tmp_path / "ledger")
    assert code == 1
    assert f"matches/{plan.fingerprint}, of which run run-2 made its plan, is missing or damaged.\n" in said
    assert "Clear the match task of run run-2 before its import" in said


def test_a_report_is_needed_only_by_whoever_clears_its_run(nightly, tmp_path, look):
    (report,) = nightly.ledger.folder.glob("reports/*.json")
    report.write_bytes(b"")
    code, said = look(tmp_path / "ledger")
    assert code == 1
    assert f"reports/{report.name} is missing or cannot be read.\n  The next run does not need it." in said


def test_a_report_of_another_run(nightly, tmp_path, look):
    (report,) = nightly.ledger.folder.glob("reports/*.json")
    report.write_text(json.dumps({"format": 1, "size": 31, "plan_id": nightly.ledger.last().plan_id}))
    code, said = look(tmp_path / "ledger")
    assert code == 1
    assert f"reports/{report.name} and log/00000002.json do not say the same." in said


@pytest.mark.parametrize("content", ['{"for', '{"format": 1, "kind": "cohort", "cohort_id": "another"}'])
def test_a_description_that_is_damaged_or_anothers(nightly, tmp_path, look, content):
    nightly.ledger.path("target.json").write_text(content)
    code, said = look(tmp_path / "ledger")
    assert code == 1
    assert "target.json is" in said
    assert "Remove it: the next run writes it anew." in said


@pytest.mark.parametrize(
    "file",
    ["log/00000001.json", "plans/00000001-*/changes.parquet", "plans/00000001-*/settled/*-00000001.json"],
)
def test_what_only_a_way_back_needs_is_found_by_a_deep_look(unfinished, tmp_path, look, file):
    found = min(unfinished.ledger.folder.glob(file))
    truncate(found)
    assert look(tmp_path / "ledger")[0] == 0
    code, said = look(tmp_path / "ledger", "--deep")
    assert code == 1
    assert str(found.relative_to(unfinished.ledger.folder)) in said
    assert "The next run does not need it; to go back to what" in said


def test_a_folder_without_a_run(tmp_path, look, nightly):
    plan = nightly.ledger.folder.parent / "cohort-drafted-0123456789ab"
    plan.mkdir()
    (plan / "target.json").write_bytes(nightly.ledger.path("target.json").read_bytes())
    _, said = look(tmp_path / "ledger")
    assert "nothing was sent. The next run begins anew." in said


@pytest.mark.parametrize("folder", ["log", "progress", "states", "done"])
def test_a_damaged_source(tmp_path, look, folder):
    ledger = make_source(tmp_path)
    file = max(ledger.path(folder).iterdir())
    if folder == "progress":  # of a commit's time, which no run reads any more
        file = file.rename(file.with_name("00000002-00000001.json"))
    truncate(file)
    code, said = look(tmp_path)
    assert code == 1
    assert f"- sources/{ledger.folder.name}: {folder}/{file.name} is missing or " in said
    assert "remove the folder: the export then begins anew" in said


def test_a_source_whose_run_has_not_ended(tmp_path, look):
    make_source(tmp_path, report=False)
    code, said = look(tmp_path)
    assert code == 0
    assert "Run export-1 has not come to its end" in said


@pytest.mark.parametrize("file", ["segment.json", "log/00000001.json", "snapshots/*-members.parquet"])
def test_a_damaged_segment_sync(tmp_path, look, file):
    pushed = make_segment_sync(tmp_path)
    (found,) = pushed.ledger.glob(f"segment-syncs/*/{file}")
    truncate(found)
    code, said = look(pushed.ledger)
    assert code == 1
    assert re.search(rf"- segment-syncs/1338065-\w+: {re.escape(file.split('*')[0])}", said)


def test_json_says_the_same(unfinished, tmp_path, look):
    code, said = look(tmp_path / "ledger", "--json")
    assert code == 0
    (account,) = json.loads(said)
    assert (account["group"], account["state"], account["size"], account["runs"], account["newest_run"]) == (
        "targets",
        "unfinished",
        30,
        1,
        "run-2",
    )
    assert isinstance(unfinished.ledger.last(), Plan)


@pytest.fixture
def stopped(nightly):
    """Leave a plan that two guards stopped."""
    with pytest.raises(GuardBreachedError):
        nightly.run(people(range(3)), "run-2", Guards(max_removed_share=0.1, max_removed=20))
    return nightly


def test_a_plan_that_guards_stopped(stopped, tmp_path, look):
    (plan_id,) = stopped.ledger.drafts(after=2)
    code, said = look(tmp_path / "ledger")
    assert code == 0
    assert re.search(r" a plan waits +30 +1 +[-0-9]+ [0-9:]+ +run-2\n", said)
    assert (
        f"Plan {plan_id} of run run-2 waits: 0 to add, 27 to remove; nothing of it was sent. It was "
        "stopped, or waits for approval, for it passes max_removed_share (90 % of the people held would be "
        "removed (27 of 30); the limit is 10 %), max_removed (27 people would be removed; the limit is 20). "
    ) in said
    assert (
        "Look at the segment first. To let the plan pass once, give the operator "
        "guards=Guards(max_removed_share=0.9, max_removed=27) in the DAG, then clear its task; or have it "
        "approved. Else the next run makes a new plan."
    ) in said
    assert said.endswith("\nHealthy: 1 record, nothing is damaged. 1 with a plan that waits.\n")
    (account,) = json.loads(look(tmp_path / "ledger", "--json")[1])
    assert (account["state"], account["newest_run"], account["size"]) == ("a plan waits", "run-2", 30)
    assert plan_id in account["next"][0]
    assert [breach["guard"] for breach in account["waiting"]["breaches"]] == [
        "max_removed_share",
        "max_removed",
    ]
    stopped.run(people(range(3)), "run-3")
    assert look(tmp_path / "ledger")[1].endswith("\nHealthy: 1 record, nothing is damaged.\n")


def test_a_plan_of_which_no_guard_is_known(nightly, tmp_path, look):
    plan = make_plan(nightly.ledger, nightly.ledger.last(), nightly.request(people(range(31)), "run-2"))
    _, said = look(tmp_path / "ledger")
    assert (
        f"Plan {plan.plan_id} of run run-2 waits: 1 to add, 0 to remove; nothing of it was sent. It waits "
        "for its import or for approval, or a guard stopped it: its task's log says which. Else the next run "
        "makes a new plan."
    ) in said


def test_a_first_plan_that_waits(stopped, tmp_path, look):
    for name in ("log", "plans/00000001-*"):
        (found,) = stopped.ledger.folder.glob(name)
        found.rename(tmp_path / found.name)
    (found,) = stopped.ledger.folder.glob("plans/*")
    record = json.loads((found / "plan.json").read_text())
    record |= {"number": 1, "plan_id": found.name.replace("00000003", "00000001")}
    (found / "plan.json").write_text(json.dumps(record))
    found.rename(found.with_name(record["plan_id"]))
    _, said = look(tmp_path / "ledger")
    assert re.search(r" a plan waits +\? +0 ", said)
    assert "A plan was drafted, or a run died" not in said


@pytest.mark.parametrize("content", ["{", "{}", '{"format": 1}', '{"format": 1, "at": 7, "breaches": []}'])
def test_what_guards_found_cannot_be_read(stopped, tmp_path, look, content):
    (kept,) = stopped.ledger.folder.glob("plans/*/judgements/00000001.json")
    kept.write_text(content)
    code, said = look(tmp_path / "ledger")
    assert (code, "or a guard stopped it: its task's log says which." in said) == (0, True)


def test_when_is_what_the_record_says(stopped, tmp_path, look):
    """A copy of a ledger has the times of the copying."""
    make_source(tmp_path / "ledger", report_more={"finished_at": "2026-11-24T02:30:00+00:00"})
    make_source(tmp_path / "ledger", "export-2", report=False, hours="a-backfill")
    copied = datetime(2020, 1, 1, tzinfo=UTC).timestamp()
    for path in (tmp_path / "ledger").rglob("*"):
        os.utime(path, (copied, copied))

    def times():
        accounts = json.loads(look(tmp_path / "ledger", "--json")[1])
        return {account["newest_run"]: datetime.fromisoformat(account["at"]) for account in accounts}

    found = times()
    assert found.pop("export-1") == datetime(2026, 11, 24, 2, 30, tzinfo=UTC)
    assert found.keys() == {"run-2", "export-2"}
    assert min(found.values()) > datetime.now(UTC) - timedelta(minutes=10)
    (draft,) = stopped.ledger.folder.glob("plans/00000003-*/plan.json")
    draft.unlink()
    (report,) = stopped.ledger.folder.glob("reports/*.json")
    finished_at = json.loads(report.read_text())["finished_at"]
    assert times()["run-1"] == datetime.fromisoformat(finished_at)
    report.unlink()
    assert times()["run-1"] > datetime.now(UTC) - timedelta(minutes=10), "when its plan was opened"


def test_a_place_without_a_ledger(tmp_path, look):
    for place in (tmp_path, tmp_path / "missing", f"file://{tmp_path}"):
        code, said = look(place)
        assert code == 2
        assert f"There is no ledger at file://{tmp_path}" in said


@pytest.mark.parametrize("arguments", [[], ["ledger"], ["ledger", "check"], ["ledger", "mend", "here"]])
def test_a_command_that_is_none(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage: heapbraze" in capsys.readouterr().err


def test_airflows_ledger_is_looked_at_where_none_is_given(nightly, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("AIRFLOW__HEAPBRAZE__LEDGER", (tmp_path / "ledger").as_uri())
    assert main(["ledger", "check"]) == 0
    assert "Healthy: 1 record" in capsys.readouterr().out


NO_AIRFLOW = """
import sys
sys.modules["airflow"] = None
from airflow_provider_heapbraze.cli import main
sys.exit(main(["ledger", "check", *sys.argv[1:]]))
"""


def test_without_airflow_a_local_ledger_can_be_looked_at_and_another_cannot(nightly, tmp_path):
    def run(*uri, **environment):
        return subprocess.run(
            [sys.executable, "-c", NO_AIRFLOW, *uri],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, **environment},
        )

    assert run(str(tmp_path / "ledger")).returncode == 0
    assert run(AIRFLOW__HEAPBRAZE__LEDGER=str(tmp_path / "ledger")).returncode == 0
    nowhere = run()
    assert nowhere.returncode == 2
    assert "the following arguments are required: uri" in nowhere.stderr
    there = run("s3://aws_default@bucket/ledger")
    assert there.returncode == 2
    assert (
        "s3:// is read through Airflow's object storage, and Airflow cannot be imported here." in there.stderr
    )


def test_as_a_module(nightly, tmp_path):
    command = [
        sys.executable,
        "-m",
        "airflow_provider_heapbraze",
        "ledger",
        "check",
        str(tmp_path / "ledger"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Healthy: 1 record" in done.stdout


def test_a_ledger_in_an_object_store(nightly):
    root = UPath(f"memory://{uuid4().hex}")
    for path, content in everything_in(nightly.folder / "ledger").items():
        root.joinpath(*path.relative_to(nightly.folder / "ledger").parts).write_bytes(content)
    (account,) = check(root, deep=True)
    assert (account.state, account.size, account.runs) == ("whole", 30, 1)
