"""When answers are recorded, and when a sender looks whether its place is still its own."""

from __future__ import annotations

from dataclasses import replace

import pytest

from airflow_provider_heapbraze.ledger_folder import PlaceLostError
from airflow_provider_heapbraze.membership.account import Account
from airflow_provider_heapbraze.membership.batches import Batch, Refusals
from airflow_provider_heapbraze.membership.delivery import Delivery
from airflow_provider_heapbraze.membership.ledger import TargetLedger
from airflow_provider_heapbraze.membership.planning import make_plan


class Time:
    """Seconds that pass when a test says so."""

    def __init__(self):
        self.seconds = 100.0

    def __call__(self):
        return self.seconds


def batch(number):
    return Batch(range(number, number + 1), [("external_id", f"user-{number}", "", False)])


def test_answers_are_due_every_hundred_batches():
    account = Account(Time(), "Braze")
    for number in range(99):
        account.acknowledge(batch(number), Refusals())
    assert not account.due()
    account.acknowledge(batch(99), Refusals())
    assert account.due()
    assert account.take().acknowledged == [(0, 100)]
    assert not account.due()


def test_answers_are_due_every_second():
    time = Time()
    account = Account(time, "Braze")
    time.seconds += 0.99
    assert not account.due()
    time.seconds += 0.01
    assert account.due()
    account.take()
    assert not account.due()


def test_rejections_wait_until_somebody_is_accepted():
    account = Account(Time(), "Braze")
    account.reject({0: "refused_400"})
    assert account.take().rejected == {}
    account.acknowledge(batch(1), Refusals())
    assert account.take().rejected == {0: "refused_400"}


def test_a_sender_looks_every_five_seconds_whether_the_place_is_its_own(nightly):
    """A process that was frozen between two looks sends nothing when it wakes up."""
    request = nightly.request(["user-1"], "run-first")
    ledger: TargetLedger = nightly.ledger
    plan = make_plan(ledger, None, request)
    ledger.append(plan)
    time = Time()
    with nightly.client() as client:
        delivery = Delivery(ledger, plan, nightly.sender(client), monotonic=time)
        ledger.append(replace(plan, number=2, run_id="run-second"))
        time.seconds += 4.9
        delivery._check()
        time.seconds += 0.1
        with pytest.raises(PlaceLostError, match="run-second"):
            delivery._check()
    assert nightly.sent() == []
