"""Braze knows one person by several identifiers: removing one of them removes the person."""

from __future__ import annotations

import pytest

from airflow_provider_heapbraze.clients.errors import HeapBrazeError
from airflow_provider_heapbraze.clients.transport import RetryPolicy
from airflow_provider_heapbraze.ledger_folder import LedgerDamagedError
from airflow_provider_heapbraze.membership.damping import Damping

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
        steps = nightly.run(rows, f"dag/night-{nightly.nights}/import", **how)["waterfall"]
    return steps


def dies(nightly, rows, **how):
    """Run a night whose changes all fail."""
    usual, nightly.retry = nightly.retry, RetryPolicy(attempts=1)
    nightly.sandbox.faults(next=[{**DEAD, "count": 10}])
    with pytest.raises(HeapBrazeError):
        nights(nightly, rows, **how)
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
    for links in nightly.ledger.path("plans").glob("*/links.parquet"):
        links.write_bytes(links.read_bytes()[:-10])
    with pytest.raises(LedgerDamagedError, match=r"links\.parquet"):
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
