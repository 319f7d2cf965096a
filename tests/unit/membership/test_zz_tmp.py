import pytest
from airflow_provider_heapbraze.clients.errors import TransientError
from airflow_provider_heapbraze.clients.transport import RetryPolicy
from airflow_provider_heapbraze.membership.entries import Commit
from tests.unit.membership.test_recovery import restore
from airflow_provider_heapbraze.membership.guards import Guards
from airflow_provider_heapbraze.clients.errors import HeapBrazeError


def test_rejected_and_unsure(nightly):
    usual, nightly.retry = nightly.retry, RetryPolicy(attempts=1)
    nightly.sandbox.faults(next=[{"kind": "5xx-after", "endpoint": "cohort-users"}])
    with pytest.raises(TransientError):
        nightly.run(["user-0"], "night-1")
    nightly.retry = usual
    assert nightly.members() == {"user-0"}
    nightly.sandbox.faults(poison=["user-0"])
    nightly.run(["user-0", "user-2"], "night-2")
    nightly.sandbox.faults()
    nightly.run(["user-2"], "night-3")
    assert nightly.members() == {"user-2"}


def test_rejected_removal_of_unsure(nightly):
    usual, nightly.retry = nightly.retry, RetryPolicy(attempts=1)
    nightly.sandbox.faults(next=[{"kind": "5xx-after", "endpoint": "cohort-users"}])
    with pytest.raises(TransientError):
        nightly.run(["user-0"], "night-1")
    nightly.retry = usual
    nightly.sandbox.faults(poison=["user-0"])
    nightly.run(["user-2"], "night-2")
    nightly.sandbox.faults()
    nightly.run(["user-2"], "night-3")
    assert nightly.members() == {"user-2"}


def test_changed_alias(make_nightly):
    nightly = make_nightly(users=0)
    user = lambda *names: {"external_id": "user-1", "aliases": [{"alias_name": n, "alias_label": "email"} for n in names]}
    nightly.sandbox.add_users([user("old", "new"), {"external_id": "user-2"}])
    nightly.run([["", "old", "", "true"], "user-2"], "n1")
    nightly.run([["user-1", "old", "", "true"], "user-2"], "n2")
    nightly.run([["user-1", "new", "", "true"], "user-2"], "n3")
    assert nightly.members() == {"user-1", "user-2"}


def test_restore_before_gain(make_nightly):
    nightly = make_nightly(users=0)
    nightly.sandbox.add_users(count=3, alias_label="email", alias_prefix="mail-")
    nightly.run([["", "mail-1", "", "true"]], "dag/night-1/import")
    nightly.run([["user-1", "mail-1", "", "true"]], "dag/night-2/import")
    restore(nightly, "night-1")
    assert nightly.members() == {"user-1"}


def test_size_counts_people(make_nightly):
    nightly = make_nightly(users=0)
    nightly.sandbox.add_users(count=3, alias_label="email", alias_prefix="mail-")
    nightly.run([["", "mail-1", "", "true"]], "n1")
    assert nightly.run([["user-1", "mail-1", "", "true"]], "n2")["size"] == 1


def test_attempt_file_lost(nightly):
    usual, nightly.retry = nightly.retry, RetryPolicy(attempts=1)
    nightly.sandbox.faults(next=[{"kind": "5xx-after", "endpoint": "cohort-users"}])
    with pytest.raises(TransientError):
        nightly.run(["user-0"], "night-1")
    nightly.retry = usual
    min(nightly.ledger.folder.glob("plans/*/attempts/00000001.json")).unlink()
    nightly.run(["user-0"], "night-1")
    assert isinstance(nightly.ledger.last(), Commit)


@pytest.mark.parametrize("what", ["changes.parquet", "settled/*.json"])
def test_forced_own_plan_damaged(nightly, what):
    nightly.run(["user-0"], "night-0")
    usual, nightly.retry = nightly.retry, RetryPolicy(attempts=1)
    nightly.sandbox.faults(next=[{"kind": "5xx-after", "endpoint": "cohort-users"}])
    with pytest.raises(TransientError):
        nightly.run(["user-1"], "night-1", force_full=True, name="Other")
    nightly.retry = usual
    max(nightly.ledger.folder.glob("plans/00000003*/" + what)).write_bytes(b"")
    nightly.run(["user-1"], "night-1", force_full=True, name="Other")
    assert nightly.members() == {"user-1"}


def test_forced_own_plan_base_damaged(nightly):
    nightly.run(["user-0"], "night-0")
    usual, nightly.retry = nightly.retry, RetryPolicy(attempts=1)
    nightly.sandbox.faults(next=[{"kind": "5xx-after", "endpoint": "cohort-users"}])
    with pytest.raises(TransientError):
        nightly.run(["user-1"], "night-1", force_full=True)
    nightly.retry = usual
    max(nightly.ledger.folder.glob("snapshots/*")).write_bytes(b"")
    nightly.run(["user-1"], "night-1", force_full=True)
    assert nightly.members() == {"user-1"}


def test_forced_done_report_lost(nightly):
    nightly.run(["user-0"], "night-0", force_full=True)
    min(nightly.ledger.folder.glob("reports/*")).unlink()
    nightly.run(["user-0"], "night-0", force_full=True)


def test_empty_guard_without_snapshots(nightly):
    nightly.run(["user-0"], "night-0")
    min(nightly.ledger.folder.glob("snapshots/*")).unlink()
    with pytest.raises(HeapBrazeError):
        nightly.run([], "night-1", force_full=True, guards=Guards())


def test_own_plan_damaged_normal_sends_nothing(nightly):
    usual, nightly.retry = nightly.retry, RetryPolicy(attempts=1)
    nightly.sandbox.faults(next=[{"kind": "5xx-after", "endpoint": "cohort"}])
    with pytest.raises(TransientError):
        nightly.run(["user-0"], "night-1")
    nightly.retry = usual
    n = len(nightly.sent())
    min(nightly.ledger.folder.glob("plans/*/changes.parquet")).write_bytes(b"")
    with pytest.raises(HeapBrazeError) as e:
        nightly.run(["user-0"], "night-1")
    assert len(nightly.sent()) == n


def test_lost_name_heals_with_force_full(nightly):
    nightly.sandbox.faults(next=[{"kind": "message-before", "endpoint": "cohort"}])
    nightly.run(["user-0"], "n0")
    nightly.run(["user-0"], "n1", force_full=True)
    assert nightly.sandbox.cohort("cohort-under-test")["name"] == "Cohort"
