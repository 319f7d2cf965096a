"""Heap's segment, our ledger and Braze's cohort, with everything that goes wrong between them.

Hypothesis makes up the nights: people come and go, and get other identifiers; runs die or hang at any of
their deeds, come back, take over from each other; Braze fails in every way; files of the ledger are lost;
runs are undone. After every run that finishes, the cohort is what it must be.
"""

from __future__ import annotations

import os
import time

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from airflow_provider_heapbraze.clients.errors import TransientError
from airflow_provider_heapbraze.clients.transport import RetryPolicy
from airflow_provider_heapbraze.membership import account, delivery, sync
from airflow_provider_heapbraze.membership.entries import Commit
from airflow_provider_heapbraze.membership.errors import GuardBreachedError
from airflow_provider_heapbraze.membership.guards import Guards
from tests.unit.membership.model.nights import Nights
from tests.unit.membership.model.process import OneAfterTheOther, as_deed
from tests.unit.membership.model.watch import COUNTS

EXAMPLES = int(os.environ.get("HEAPBRAZE_EXAMPLES", "0"))
SEED = int(os.environ.get("HEAPBRAZE_SEED", time.time_ns() % 1_000_000 if EXAMPLES else 2))


@pytest.mark.timeout(0 if EXAMPLES else 300)
def test_whatever_goes_wrong_the_cohort_is_exact(heapbraze_sandbox, tmp_path_factory, monkeypatch):
    monkeypatch.setattr(os, "link", as_deed(os.link))
    monkeypatch.setattr(os, "replace", as_deed(os.replace))
    monkeypatch.setattr(delivery, "ThreadPoolExecutor", OneAfterTheOther)
    monkeypatch.setitem(delivery.Delivery.__init__.__kwdefaults__, "connections", 1)
    monkeypatch.setattr(delivery, "CHECK_SECONDS", 0)  # whoever hangs, hangs for long
    monkeypatch.setattr(account, "FLUSH_BATCHES", 1)
    for module in (sync, delivery):  # nothing is under way when it hangs or is dead
        monkeypatch.setattr(module, "LOSER_STOPS_WITHIN", 0)

    print(f"HEAPBRAZE_SEED={SEED}")  # noqa: T201 - shown where it fails

    @seed(SEED)
    class Here(Nights):
        sandbox = heapbraze_sandbox

        def make_folder(self):
            return tmp_path_factory.mktemp("model")

    run_state_machine_as_test(
        Here,
        settings=settings(
            max_examples=EXAMPLES or 4,
            stateful_step_count=30 if EXAMPLES else 11,
            database=None,
            deadline=None,
            phases=[Phase.generate, Phase.shrink] if EXAMPLES else [Phase.generate],
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )
    print(f"\n{dict(sorted(COUNTS.items()))}")  # noqa: T201 - what a soak is for


# ---- what this has found


@pytest.fixture
def dies(make_nightly):
    """A night is finished; the next one, which asks for everybody, sends a batch and hears nothing of it."""
    nightly = make_nightly(users=10)
    nightly.run(["user-0"], "night-1")
    usual, nightly.retry = nightly.retry, RetryPolicy(attempts=1)
    nightly.sandbox.faults(next=[{"kind": "5xx-after", "endpoint": "cohort-users"}])
    with pytest.raises(TransientError):
        nightly.run(["user-1"], "night-2", force_full=True, name="Another name")
    nightly.retry = usual
    return nightly


def comes_back(nightly):
    nightly.run(["user-1"], "night-2", force_full=True, name="Another name")
    assert nightly.members() == {"user-1"}
    assert isinstance(nightly.ledger.last(), Commit)


def test_a_record_of_its_own_plan_is_torn_and_force_full_goes_on(dies):
    max(dies.ledger.folder.glob("plans/00000003-*/settled/*.json")).write_bytes(b"{")
    comes_back(dies)


def test_the_file_of_an_attempt_is_lost_and_what_it_recorded_is_not_in_the_way(dies):
    max(dies.ledger.folder.glob("plans/00000003-*/attempts/00000001.json")).unlink()
    comes_back(dies)


def test_the_report_of_a_finished_run_is_lost_and_force_full_goes_on(dies):
    comes_back(dies)
    max(dies.ledger.folder.glob("reports/*.json")).unlink()
    comes_back(dies)


def test_without_any_snapshot_an_empty_segment_empties_nothing(nightly):
    nightly.run(["user-0"], "night-1")
    min(nightly.ledger.folder.glob("snapshots/*.parquet")).unlink()
    with pytest.raises(GuardBreachedError, match="allow_empty"):
        nightly.run([], "night-2", force_full=True, guards=Guards())
    assert nightly.members() == {"user-0"}
