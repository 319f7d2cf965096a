"""Every kind of file of a target's ledger, damaged in every way: the next run stops, or did not need it."""

from __future__ import annotations

import random
import re

import pytest

from airflow_provider_heapbraze.clients.errors import TransientError
from airflow_provider_heapbraze.clients.transport import RetryPolicy
from airflow_provider_heapbraze.ledger_folder import LedgerDamagedError
from airflow_provider_heapbraze.membership import delivery, sync
from airflow_provider_heapbraze.membership.entries import Commit, Plan
from airflow_provider_heapbraze.membership.planning import make_plan
from tests.unit.membership.conftest import ANYTHING_GOES, Nightly


def people(*ranges):
    return [f"user-{number}" for numbers in ranges for number in numbers]


FIRST, SECOND, THIRD = people(range(30)), people(range(5, 35)), people(range(10, 40))


def missing(file):
    file.unlink()


def emptied(file):
    file.write_bytes(b"")


def truncated(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def damaged_within(file):
    """Leave the end of a Parquet file, which says what is in it."""
    content = file.read_bytes()
    rows = content.index(b"PAR1") + 4, int.from_bytes(content[-8:-4], "little") + 8
    spoilt = random.Random(1).randbytes(len(content) - sum(rows))
    file.write_bytes(content[: rows[0]] + spoilt + content[-rows[1] :])


def garbage(file):
    file.write_bytes(random.Random(1).randbytes(file.stat().st_size))


MISSING, UNREADABLE = [missing], [emptied, truncated, garbage]
BOTH = MISSING + UNREADABLE

# What makes a run stop: of a ledger with a finished run and an unfinished one …
STOPS = {
    "log/00000003.json": BOTH,
    "log/00000002.json": MISSING,
    "plans/00000003-*/changes.parquet": BOTH,
    "plans/00000003-*/settled/*-00000001.json": UNREADABLE,
    "snapshots/00000001-*.parquet": [*BOTH, damaged_within],
}
# … and what no run needs, in whatever way it is damaged.
NOT_NEEDED = [
    "log/00000001.json",
    "plans/00000003-*/plan.json",
    "plans/00000003-*/attempts/00000001-ended.json",
    "plans/00000001-*/changes.parquet",
    "plans/00000001-*/plan.json",
    "plans/00000001-*/settled/*-00000001.json",
    "plans/00000001-*/attempts/00000001.json",
    "reports/00000002-*.json",
    "target.json",
]
# With nothing unfinished, the last snapshot and the last entry are all that a run needs.
STOPS_WITH_NOTHING_UNFINISHED = {
    "log/00000002.json": UNREADABLE,
    "snapshots/00000001-*.parquet": [*BOTH, damaged_within],
}


class SmallBatches(Nightly):
    def sender(self, client):
        sender = super().sender(client)
        sender.rows_per_request = 2
        return sender


@pytest.fixture
def nightly(heapbraze_sandbox, tmp_path, monkeypatch):
    for module in (sync, delivery):  # nobody is at work here, whatever an attempt says
        monkeypatch.setattr(module, "LOSER_STOPS_WITHIN", 0.1)
    heapbraze_sandbox.reset()
    heapbraze_sandbox.add_users(count=60)
    nightly = SmallBatches(heapbraze_sandbox, tmp_path)
    nightly.run(FIRST, "run-1")
    assert isinstance(nightly.ledger.last(), Commit)
    return nightly


@pytest.fixture
def unfinished(nightly):
    """Leave a second run whose name and some of whose changes were accepted, and some were not."""
    retry, nightly.retry = nightly.retry, RetryPolicy(attempts=1)
    nightly.sandbox.faults(next=[{"count": 3, "status": 500, "endpoint": "cohort-users"}])
    with pytest.raises(TransientError):
        nightly.run(SECOND, "run-2", name="Another name")
    nightly.sandbox.faults()
    nightly.retry = retry
    assert isinstance(nightly.ledger.last(), Plan)
    return nightly


def assert_stops(nightly, rows, pattern, damages, **how):
    """Damage a file in every way, one after the other; nothing is sent, and nothing changes."""
    (file, *_) = sorted(nightly.ledger.folder.glob(pattern))
    name, whole, sent = str(file.relative_to(nightly.ledger.folder)), file.read_bytes(), nightly.sent()
    number = re.search(r"log/0*(\d+)\.json", name)
    for damage in damages:
        damage(file)
        with pytest.raises(LedgerDamagedError) as caught:
            nightly.run(rows, **how)
        assert nightly.sent() == sent, f"{damage.__name__}: nothing may be sent on its word"
        said = str(caught.value)
        assert name in said or (number and f"entry {number[1]} of the log" in said)
        assert "force_full=True" in said
        assert "BrazeCohortRestoreOperator" in said
        assert "user-" not in said
        file.write_bytes(whole)
    assert_exact(nightly, rows, **how)


def assert_exact(nightly, rows, **how):
    nightly.run(rows, **how)
    assert nightly.members() == set(rows)
    assert isinstance(nightly.ledger.last(), Commit)


def damage_all(nightly, patterns, damage):
    for pattern in patterns:
        for file in nightly.ledger.folder.glob(pattern):
            damage(file)


@pytest.mark.parametrize("file", STOPS)
def test_what_a_later_run_needs_of_an_unfinished_one(unfinished, file):
    assert_stops(unfinished, THIRD, file, STOPS[file], run_id="run-3")


@pytest.mark.parametrize("file", STOPS)
def test_what_an_unfinished_run_needs_that_comes_back(unfinished, file):
    assert_stops(unfinished, SECOND, file, STOPS[file], run_id="run-2", name="Another name")


@pytest.mark.parametrize("how", [{"run_id": "run-3"}, {"run_id": "run-2", "name": "Another name"}])
def test_a_change_set_that_is_damaged_within(unfinished, how):
    rows = THIRD if how["run_id"] == "run-3" else SECOND
    assert_stops(unfinished, rows, "plans/00000003-*/changes.parquet", [damaged_within], **how)


@pytest.mark.parametrize("file", STOPS_WITH_NOTHING_UNFINISHED)
def test_what_a_run_needs_of_a_finished_one(nightly, file):
    assert_stops(nightly, THIRD, file, STOPS_WITH_NOTHING_UNFINISHED[file], run_id="run-3")


@pytest.mark.parametrize("damage", BOTH)
def test_what_a_later_run_does_not_need_of_an_unfinished_one(unfinished, damage):
    damage_all(unfinished, NOT_NEEDED, damage)
    assert_exact(unfinished, THIRD, run_id="run-3")


@pytest.mark.parametrize("damage", BOTH)
def test_what_an_unfinished_run_does_not_need_that_comes_back(unfinished, damage):
    damage_all(unfinished, NOT_NEEDED, damage)
    assert_exact(unfinished, SECOND, run_id="run-2", name="Another name")


@pytest.mark.parametrize("damage", BOTH)
def test_what_a_run_does_not_need_of_a_finished_one(nightly, damage):
    damage_all(nightly, NOT_NEEDED, damage)
    assert_exact(nightly, THIRD, run_id="run-3")


def test_answers_that_are_lost_are_asked_for_again(unfinished):
    """A missing record is nobody's loss: what it settled is sent once more."""
    damage_all(unfinished, ["plans/00000003-*/settled/*.json"], missing)
    assert_exact(unfinished, THIRD, run_id="run-3")


@pytest.mark.parametrize("damage", BOTH)
def test_a_finished_run_that_is_cleared_needs_its_report(nightly, damage):
    assert_stops(nightly, FIRST, "reports/00000002-*.json", [damage], run_id="run-1")


@pytest.mark.parametrize("damage", BOTH)
def test_an_approved_plan_that_is_damaged(nightly, damage):
    with nightly.client() as client:
        plan = make_plan(nightly.ledger, nightly.ledger.last(), nightly.request(SECOND, "run-2"))
        damage(nightly.ledger.path(f"{plan.folder}/plan.json"))
        sent = nightly.sent()
        with pytest.raises(LedgerDamagedError, match=r"plan\.json"):
            nightly.sync(client).apply(plan.plan_id, "run-2", ANYTHING_GOES)
        assert nightly.sent() == sent
    assert_exact(nightly, SECOND, run_id="run-2")


@pytest.mark.parametrize("table", ["identifiers-*", "others-*", "match.json"])
@pytest.mark.parametrize("damage", [missing, emptied, truncated])
def test_a_damaged_match_is_made_again_by_its_task(nightly, table, damage):
    request = nightly.request(SECOND, "run-2")
    [file] = request.match_folder.glob(table)
    damage(file)
    again = nightly.request(SECOND, "run-2")
    assert again.match == request.match
    nightly.run(SECOND, "run-2")
    assert nightly.members() == set(SECOND)
