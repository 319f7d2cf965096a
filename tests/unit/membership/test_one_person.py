"""Braze knows one person by several identifiers: removing one of them removes the person."""

from __future__ import annotations

import threading
from contextlib import suppress

import pytest

from airflow_provider_heapbraze.clients.errors import HeapBrazeError, UnclearAnswerError
from airflow_provider_heapbraze.clients.transport import RetryPolicy
from airflow_provider_heapbraze.ledger_folder import LedgerDamagedError, PlaceLostError
from airflow_provider_heapbraze.membership import delivery
from airflow_provider_heapbraze.membership.damping import Damping
from tests.unit.membership.conftest import ANYTHING_GOES

# Rows of (identity, email, device, identified).
BOTH = ["user-1", "mail-of-1", "", "true"]
ONLY_ALIAS = ["", "mail-of-1", "", "true"]
ONLY_ID = ["user-1", "", "", "true"]
OTHER = ["user-2", "", "", "true"]
DEAD = {"status": 500, "endpoint": "cohort-users"}


@pytest.fixture
def nightly(make_nightly):
    nightly = make_nightly()
    alias = {"alias_name": "mail-of-1", "alias_label": "email"}
    nightly.sandbox.add_users([{"external_id": "user-1", "aliases": [alias]}])
    nightly.nights = 0
    return nightly


def nights(nightly, *wanted, **how):
    """Run a night for each list of rows; return the last one's waterfall."""
    for rows in wanted:
        nightly.nights += 1
        run_id, as_of = f"dag/night-{nightly.nights}/import", f"2026-11-{nightly.nights:02}"
        steps = nightly.run(rows, run_id, as_of=as_of, **how)["waterfall"]
    return steps


def dies(nightly, rows, **fault):
    """Run a night whose first request fails for good."""
    usual, nightly.retry = nightly.retry, RetryPolicy(attempts=1)
    nightly.sandbox.faults(next=[{"endpoint": "cohort-users", **fault} if fault else {**DEAD, "count": 10}])
    with pytest.raises(HeapBrazeError):
        nights(nightly, rows)
    nightly.sandbox.faults()
    nightly.retry = usual


@pytest.mark.parametrize(
    "wanted",
    [
        [[ONLY_ALIAS], [BOTH], [ONLY_ID]],
        [[ONLY_ALIAS], [BOTH], [ONLY_ALIAS]],
        [[ONLY_ALIAS], [ONLY_ID]],
        [[ONLY_ID], [ONLY_ALIAS]],
        [[ONLY_ID], [BOTH], [ONLY_ALIAS]],
        [[ONLY_ALIAS], [BOTH], [ONLY_ID], [ONLY_ALIAS], [ONLY_ID], [BOTH]],
        [[ONLY_ALIAS], [BOTH], [OTHER], [ONLY_ID], [ONLY_ALIAS]],
    ],
)
@pytest.mark.parametrize("share", [0, 0.5])
def test_who_is_wanted_stays(nightly, wanted, share):
    for rows in wanted:
        nights(nightly, [*rows, OTHER], reassert_share=share)
        assert nightly.members() == {"user-2"} | ({"user-1"} if rows != [OTHER] else set())
    nights(nightly, *[[*wanted[-1], OTHER]] * 8, reassert_share=share)
    assert nightly.members() == {"user-1", "user-2"}


def test_both_identifiers_go_with_the_person(nightly):
    nights(nightly, [ONLY_ALIAS, OTHER], [BOTH, OTHER], [ONLY_ID, OTHER])
    steps = nights(nightly, [OTHER])
    assert (steps["adds"], steps["removes"]) == (0, 2)
    assert nightly.members() == {"user-2"}


def test_what_was_known_of_a_person_lasts_while_both_are_held(nightly):
    nights(nightly, [ONLY_ALIAS], [BOTH], *[[ONLY_ID]] * 3)
    assert nights(nightly, [ONLY_ID])["removes"] == 0
    assert nightly.members() == {"user-1"}


@pytest.mark.parametrize("back", ["night-1", "night-2"])
def test_restoring_across_the_night_in_which_somebody_got_an_external_id(nightly, back):
    nights(nightly, [ONLY_ALIAS, OTHER], [BOTH, OTHER], [ONLY_ID, OTHER])
    nightly.restore(back)
    assert nightly.members() == {"user-1", "user-2"}


def test_recovery_keeps_who_is_wanted_under_another_identifier(nightly):
    nights(nightly, [ONLY_ALIAS, OTHER], [BOTH, OTHER], [OTHER, ONLY_ID])
    for links in nightly.ledger.path("plans").glob("*/links-*"):
        links.write_bytes(links.read_bytes()[:-10])
    with pytest.raises(LedgerDamagedError, match=r"links-"):
        nights(nightly, [ONLY_ID, OTHER])
    nights(nightly, [ONLY_ID, OTHER], force_full=True)
    assert nightly.members() == {"user-1", "user-2"}


def test_a_run_that_died_between_both_identifiers(nightly):
    nights(nightly, [ONLY_ID, OTHER])
    dies(nightly, [ONLY_ALIAS, OTHER])
    nights(nightly, [ONLY_ALIAS, OTHER])
    assert nightly.members() == {"user-1", "user-2"}


def test_nobody_enters_before_all_who_leave_have_left(nightly):
    """The removal has no answer at first, while the addition of the same person would have one."""
    nights(nightly, [ONLY_ID, OTHER])
    nightly.sandbox.faults(next=[{"kind": "cut-before", "endpoint": "cohort-users"}])
    nights(nightly, [ONLY_ALIAS, OTHER])
    assert nightly.members() == {"user-1", "user-2"}


def test_removals_of_external_ids_are_not_repeated_beside_aliases(nightly):
    nights(nightly, [ONLY_ID, OTHER], [ONLY_ALIAS, OTHER])
    assert nights(nightly, [ONLY_ALIAS, OTHER], force_full=True)["removes"] == 0
    assert nightly.members() == {"user-1", "user-2"}


def test_a_leaver_whose_other_identifier_is_wanted_is_asserted_when_the_time_has_come(nightly):
    damping = Damping(runs=2)
    nights(nightly, [ONLY_ALIAS, OTHER], [BOTH, OTHER], damping=damping)
    nights(nightly, *[[ONLY_ALIAS, OTHER]] * 3, damping=damping)
    assert nightly.members() == {"user-1", "user-2"}


def test_nothing_is_repeated_while_a_leaver_is_held_by_an_alias(nightly):
    """The removal of the external id would take the person before the time, and nobody would know."""
    nights(nightly, [ONLY_ID, OTHER], [ONLY_ALIAS, OTHER])
    nights(nightly, [OTHER], damping=Damping(runs=3), reassert_share=0.5)
    assert nightly.members() == {"user-1", "user-2"}
    nights(nightly, [ONLY_ALIAS, OTHER])
    assert nightly.members() == {"user-1", "user-2"}


def test_a_leaver_goes_when_all_identifiers_have_been_absent_for_long_enough(nightly):
    damping = Damping(runs=3)
    nights(nightly, [ONLY_ALIAS, OTHER], [BOTH, OTHER], damping=damping)
    nights(nightly, [ONLY_ALIAS, OTHER], [OTHER], [OTHER], damping=damping)
    assert nightly.members() == {"user-1", "user-2"}
    assert nights(nightly, [OTHER], damping=damping)["removes"] == 2
    assert nightly.members() == {"user-2"}


def test_who_is_back_before_the_last_identifier_was_absent_for_long_enough(nightly):
    damping = Damping(runs=3)
    nights(nightly, [ONLY_ALIAS, OTHER], [BOTH, OTHER], [ONLY_ALIAS, OTHER], damping=damping)
    nights(nightly, [OTHER], [OTHER], [ONLY_ALIAS, OTHER], damping=damping)
    assert nightly.members() == {"user-1", "user-2"}


def test_a_leaver_one_of_whose_identifiers_may_be_removed_already_goes(nightly):
    nights(nightly, [ONLY_ALIAS, OTHER], [BOTH, OTHER])
    nightly.sandbox.faults(next=[{**DEAD, "applied": True}])
    usual, nightly.retry = nightly.retry, RetryPolicy(attempts=1)
    with pytest.raises(HeapBrazeError):
        nights(nightly, [ONLY_ALIAS, OTHER])
    nightly.retry = usual
    assert nights(nightly, [OTHER], damping=Damping(runs=3))["leaving"] == 0
    nights(nightly, [ONLY_ALIAS, OTHER])
    assert nightly.members() == {"user-1", "user-2"}


def test_restoring_knows_what_was_carried_on(nightly):
    """The night's own match gave one identifier; that both are of one person is known of an earlier one."""
    nights(nightly, [ONLY_ALIAS, OTHER], [BOTH, OTHER], [ONLY_ID, OTHER], [OTHER], [OTHER])
    nightly.restore("night-3", as_of="2026-11-05")
    nights(nightly, [ONLY_ID, OTHER], damping=Damping())
    assert nightly.members() == {"user-1", "user-2"}


def test_restoring_a_night_whose_match_is_damaged(nightly, caplog):
    nights(nightly, [ONLY_ALIAS, OTHER], [BOTH, OTHER])
    fingerprint = nightly.ledger.last().fingerprint
    [others] = (nightly.folder / "ledger" / "matches" / fingerprint).glob("others-*")
    others.write_bytes(b"junk")
    nights(nightly, [OTHER], [OTHER])
    nightly.restore("night-2", as_of="2026-11-04")
    assert "damaged" in caplog.text
    nights(nightly, [ONLY_ID, OTHER])
    assert nightly.members() == {"user-1", "user-2"}


def test_what_the_last_match_said_counts_when_a_damped_removal_is_due(nightly):
    nights(nightly, [BOTH, OTHER], *[[ONLY_ALIAS, OTHER]] * 3, damping=Damping(runs=2))
    assert nightly.members() == {"user-1", "user-2"}


def test_a_person_who_was_away_between_both_identifiers(nightly):
    nights(nightly, [BOTH, OTHER], [OTHER], *[[ONLY_ALIAS, OTHER]] * 3, damping=Damping(runs=3))
    assert nightly.members() == {"user-1", "user-2"}


def test_two_people_had_one_alias(nightly):
    nightly.sandbox.add_users([{"external_id": "user-3"}])
    both_of_3 = ["user-3", "mail-of-1", "", "true"]
    nights(nightly, [ONLY_ALIAS, OTHER], [BOTH, OTHER], [ONLY_ID, both_of_3, OTHER], [ONLY_ID, OTHER])
    assert nightly.members() == {"user-1", "user-2"}


def test_a_removal_without_an_answer_takes_nobody_who_is_wanted(nightly):
    nights(nightly, [ONLY_ALIAS, ONLY_ID, OTHER])
    dies(nightly, [ONLY_ID, OTHER], kind="cut-after")
    nights(nightly, [BOTH, OTHER])
    assert nightly.members() == {"user-1", "user-2"}


def two_profiles(make_nightly):
    """An alias that Heap has for a person is of another profile in Braze."""
    nightly = make_nightly()
    alias = {"alias_name": "mail-of-1", "alias_label": "email"}
    nightly.sandbox.add_users([{"external_id": "user-1"}, {"external_id": "elsewhere", "aliases": [alias]}])
    nightly.nights = 0
    return nightly


def test_an_addition_without_an_answer_is_not_left_in(make_nightly):
    nightly = two_profiles(make_nightly)
    nights(nightly, [OTHER])
    dies(nightly, [ONLY_ALIAS, OTHER], kind="cut-after")
    nights(nightly, [BOTH, OTHER], [OTHER])
    assert nightly.members() == {"user-2"}


def test_nobody_is_left_in_by_a_recovery(make_nightly):
    nightly = two_profiles(make_nightly)
    nights(nightly, [ONLY_ALIAS, OTHER], [BOTH, OTHER])
    max(nightly.ledger.path("snapshots").iterdir()).unlink()
    nights(nightly, [BOTH, OTHER], force_full=True)
    nights(nightly, [OTHER])
    assert nightly.members() == {"user-2"}


@pytest.fixture
def by_attribute(make_nightly):
    nightly = make_nightly("attribute")
    alias = {"alias_name": "mail-of-1", "alias_label": "email"}
    nightly.sandbox.add_users([{"external_id": "user-1", "aliases": [alias]}])
    nightly.nights = 0
    return nightly


@pytest.mark.parametrize("run_id", ["the same", "another"])
def test_nobody_enters_while_a_removal_is_open(by_attribute, run_id):
    """Its answer says nothing, time after time: it will be sent once more, after what was acknowledged."""
    nights(by_attribute, [BOTH, OTHER])
    body = {"message": "success", "errors": [{"type": "something new"}]}
    unclear = {"status": 201, "body": body, "endpoint": "users-track", "applied": False, "count": 5}
    by_attribute.sandbox.faults(next=[unclear])
    with pytest.raises(UnclearAnswerError):
        by_attribute.run([ONLY_ALIAS, OTHER], "the same")
    by_attribute.sandbox.faults()
    by_attribute.run([ONLY_ALIAS, OTHER], run_id)
    assert by_attribute.members() == {"user-1", "user-2"}


def test_a_removal_that_is_refused_once_and_accepted_the_night_after(by_attribute):
    nights(by_attribute, [BOTH, OTHER])
    by_attribute.sandbox.faults(poison=["user-1"])
    nights(by_attribute, [ONLY_ALIAS, OTHER])
    by_attribute.sandbox.faults()
    nights(by_attribute, [ONLY_ALIAS, OTHER])
    assert by_attribute.members() == {"user-1", "user-2"}


def test_a_repeated_removal_that_is_refused_holds_nobody(by_attribute):
    nights(by_attribute, [ONLY_ID, OTHER], [OTHER])
    usual, by_attribute.retry = by_attribute.retry, RetryPolicy(attempts=1)
    by_attribute.sandbox.faults(next=[{"status": 500, "endpoint": "users-track"}])
    with pytest.raises(HeapBrazeError):
        nights(by_attribute, [OTHER], force_full=True)
    by_attribute.retry = usual
    by_attribute.sandbox.faults(poison=["user-1"])
    nights(by_attribute, [OTHER])
    by_attribute.sandbox.faults()
    nights(by_attribute, [ONLY_ID, OTHER])
    assert by_attribute.members() == {"user-1", "user-2"}


def test_an_earlier_attempt_has_a_removal_under_way(nightly, monkeypatch):
    """It was killed, and the network has its removal still: nobody enters before that has arrived."""
    nights(nightly, [ONLY_ID, OTHER])
    monkeypatch.setattr(delivery, "LOSER_STOPS_WITHIN", 2.0)
    began, goes_on = threading.Event(), threading.Event()

    def hang():
        with nightly.client() as client:
            send = client._transport._adapter.send

            def late(*arguments, **options):
                began.set()
                goes_on.wait(30)
                return send(*arguments, **options)

            client._transport._adapter.send = late
            with suppress(PlaceLostError):
                nightly.sync(client).run(nightly.request([ONLY_ALIAS, OTHER], "same"), ANYTHING_GOES)

    hangs = threading.Thread(target=hang)
    hangs.start()
    assert began.wait(30)
    threading.Timer(1.0, goes_on.set).start()
    nightly.run([ONLY_ALIAS, OTHER], "same")
    hangs.join()
    assert nightly.members() == {"user-1", "user-2"}
