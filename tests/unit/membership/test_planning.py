"""The change set is what the design's formulas say, whatever an unfinished plan left behind."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from uuid import NAMESPACE_OID, uuid4, uuid5

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from upath import UPath

from airflow_provider_heapbraze.ledger_folder import LedgerDamagedError, PlaceLostError
from airflow_provider_heapbraze.membership.attempts import begin_attempt
from airflow_provider_heapbraze.membership.holding import write_rejected, write_snapshot
from airflow_provider_heapbraze.membership.ledger import Commit, Settled, Target, TargetLedger
from airflow_provider_heapbraze.membership.matching import MatchResult
from airflow_provider_heapbraze.membership.planning import Request, make_plan

TARGET = Target("cohort", {"braze": "https://rest.test", "partner": "heap", "cohort_id": "cohort 1/ä"})


def write_match(folder, people):
    folder.mkdir(parents=True, exist_ok=True)
    people = sorted(people)
    rows = [who if isinstance(who, tuple) else ("external_id", who, "") for who in people]
    columns = {name: [row[n] for row in rows] for n, name in enumerate(("kind", "value", "label"))}
    pq.write_table(_texts(columns), folder / "identifiers-.parquet")
    owners = dict.fromkeys(("kind", "value", "label", "of_kind", "of_value", "of_label"), ())
    pq.write_table(_texts(owners), folder / "others-.parquet")
    counts = {"members": len(people), "matched": len(people), "unmatched": {}, "duplicates": 0}
    digests = {"identifiers-.parquet": "", "others-.parquet": ""}
    taken_at = datetime(2026, 11, 24, tzinfo=UTC)
    return MatchResult("", uuid5(NAMESPACE_OID, repr(people)).hex, counts, taken_at, digests), folder


def _texts(columns):
    return pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})


KINDS = ("external_id", "alias", "device_id")


def request(
    tmp_path,
    people,
    run_id="run-1",
    *,
    force_full=False,
    name="Cohort",
    as_of="2026-11-24",
    kinds=KINDS,
    share=0,
):
    match, folder = write_match(tmp_path / "match" / str(abs(hash(frozenset(people)))), people)
    return Request(
        run_id=run_id,
        match=match,
        match_folder=folder,
        kinds=kinds,
        name=name,
        force_full=force_full,
        as_of=as_of,
        reassert_share=share,
    )


def changes(ledger, plan):
    rows = duckdb.sql(f"SELECT value, remove FROM read_parquet('{ledger.path(plan.changes)}')").fetchall()
    assert len(rows) == plan.rows
    return [value for value, remove in rows if not remove], [value for value, remove in rows if remove]


def commit(ledger, plan, settled=None):
    settled = settled or Settled(acknowledged=[(0, plan.rows)] if plan.rows else [], named=True)
    snapshot, size = write_snapshot(ledger, plan, settled)
    ledger.append(
        Commit(
            number=plan.number + 1,
            plan_id=plan.plan_id,
            run_id=plan.run_id,
            fingerprint=plan.fingerprint,
            snapshot=snapshot,
            size=size,
            forced=plan.forced,
            name=plan.name,
            report="reports/x.json",
            as_of=plan.as_of,
            memory=plan.handed_on,
        )
    )
    return set() if snapshot is None else held(ledger, snapshot, size)


def held(ledger, snapshot, size):
    rows = duckdb.sql(f"SELECT value FROM read_parquet('{ledger.path(snapshot)}')").fetchall()
    assert len(rows) == size
    return {value for (value,) in rows}


def planned(ledger, wanted, tmp_path, **how):
    plan = make_plan(ledger, ledger.last(), request(tmp_path, wanted, **how))
    ledger.append(plan)
    return plan


def test_first_import_adds_everybody(tmp_path):
    ledger = TargetLedger(tmp_path / "ledger", TARGET)
    plan = planned(ledger, {"ann", "bob"}, tmp_path)
    assert changes(ledger, plan) == (["ann", "bob"], [])
    assert not plan.name_known
    assert commit(ledger, plan) == {"ann", "bob"}


def test_next_day_sends_changes_only(tmp_path):
    ledger = TargetLedger(tmp_path / "ledger", TARGET)
    commit(ledger, planned(ledger, {"ann", "bob"}, tmp_path))
    plan = planned(ledger, {"bob", "cid"}, tmp_path, run_id="run-2")
    assert changes(ledger, plan) == (["cid"], ["ann"])
    assert plan.name_known
    assert commit(ledger, plan) == {"bob", "cid"}


def test_no_change_reuses_the_snapshot(tmp_path):
    ledger = TargetLedger(tmp_path / "ledger", TARGET)
    first = planned(ledger, {"ann"}, tmp_path)
    commit(ledger, first)
    before = ledger.last()
    plan = planned(ledger, {"ann"}, tmp_path, run_id="run-2")
    assert plan.rows == 0
    commit(ledger, plan)
    assert ledger.last().snapshot == before.snapshot


def test_added_by_a_run_that_died_and_gone_since_is_removed(tmp_path):
    """The write-ahead case: nobody knows whether ``bob`` reached the other side, so he is removed."""
    ledger = TargetLedger(tmp_path / "ledger", TARGET)
    commit(ledger, planned(ledger, {"ann"}, tmp_path))
    planned(ledger, {"ann", "bob"}, tmp_path, run_id="dies")
    plan = planned(ledger, {"ann"}, tmp_path, run_id="next")
    assert changes(ledger, plan) == ([], ["bob"])


def test_removed_by_a_run_that_died_and_back_again_is_added(tmp_path):
    ledger = TargetLedger(tmp_path / "ledger", TARGET)
    commit(ledger, planned(ledger, {"ann", "bob"}, tmp_path))
    planned(ledger, {"ann"}, tmp_path, run_id="dies")
    plan = planned(ledger, {"ann", "bob"}, tmp_path, run_id="next")
    assert changes(ledger, plan) == (["bob"], [])


def test_a_removal_that_died_is_asserted_again(tmp_path):
    """``bob`` is in no snapshot: one run may have added him, the next may not have removed him."""
    ledger = TargetLedger(tmp_path / "ledger", TARGET)
    planned(ledger, {"bob"}, tmp_path, run_id="dies")
    planned(ledger, set(), tmp_path, run_id="dies, too")
    plan = planned(ledger, set(), tmp_path, run_id="next")
    assert changes(ledger, plan) == ([], ["bob"])


def test_who_may_be_held_stays_so_where_the_removal_is_refused(tmp_path):
    """The addition had no answer: forgotten, ``bob`` would stay on the other side for ever."""
    ledger = TargetLedger(tmp_path / "ledger", TARGET)
    planned(ledger, {"bob"}, tmp_path, run_id="dies")
    plan = planned(ledger, set(), tmp_path, run_id="next")
    assert commit(ledger, plan, Settled(rejected={0: "refused_400"}, named=True)) == {"bob"}
    assert changes(ledger, planned(ledger, set(), tmp_path, run_id="last")) == ([], ["bob"])


@pytest.mark.parametrize("finished", [True, False])
def test_who_may_be_held_is_not_forgotten_where_the_addition_is_refused(tmp_path, finished):
    """``bob`` may have been added by the run that died: he is wanted again, and removed once he is not."""
    ledger = TargetLedger(tmp_path / "ledger", TARGET)
    planned(ledger, {"bob"}, tmp_path, run_id="dies")
    for run_id in ("refused", "refused again"):
        plan = planned(ledger, {"bob"}, tmp_path, run_id=run_id)
        assert changes(ledger, plan) == (["bob"], [])
        refused = Settled(rejected={0: "refused_400"}, named=True)
        if finished:
            assert commit(ledger, plan, refused) == set()
        else:
            begin_attempt(ledger, plan).record(refused)
    assert changes(ledger, planned(ledger, set(), tmp_path, run_id="next")) == ([], ["bob"])


@pytest.mark.parametrize("finished", [True, False])
def test_who_stays_where_the_removal_is_refused_is_added_when_wanted_again(tmp_path, finished):
    """The addition may never have arrived."""
    ledger = TargetLedger(tmp_path / "ledger", TARGET)
    planned(ledger, {"bob"}, tmp_path, run_id="dies")
    plan = planned(ledger, set(), tmp_path, run_id="refused")
    refused = Settled(rejected={0: "refused_400"}, named=True)
    if finished:
        commit(ledger, plan, refused)
    else:
        begin_attempt(ledger, plan).record(refused)
    assert changes(ledger, planned(ledger, {"bob"}, tmp_path, run_id="next")) == (["bob"], [])


def test_a_refused_removal_of_an_unfinished_plan_is_not_forgotten(tmp_path):
    ledger = TargetLedger(tmp_path / "ledger", TARGET)
    planned(ledger, {"ann", "bob"}, tmp_path, run_id="dies")
    plan = planned(ledger, set(), tmp_path, run_id="dies, too")
    begin_attempt(ledger, plan).record(Settled(rejected={0: "refused_400"}))
    _, removed = changes(ledger, planned(ledger, set(), tmp_path, run_id="next"))
    assert sorted(removed) == ["ann", "bob"]


def test_force_full_asserts_everybody_and_removes_only_ours(tmp_path):
    ledger = TargetLedger(tmp_path / "ledger", TARGET)
    commit(ledger, planned(ledger, {"ann", "bob"}, tmp_path))
    plan = planned(ledger, {"bob", "cid"}, tmp_path, run_id="run-2", force_full=True)
    assert changes(ledger, plan) == (["bob", "cid"], ["ann"])
    assert commit(ledger, plan) == {"bob", "cid"}


def test_unknown_name_is_sent_again(tmp_path):
    ledger = TargetLedger(tmp_path / "ledger", TARGET)
    commit(ledger, planned(ledger, {"ann"}, tmp_path, name="Old"))
    assert not planned(ledger, {"ann"}, tmp_path, run_id="dies", name="New").name_known
    assert not planned(ledger, {"ann"}, tmp_path, run_id="next", name="Old").name_known


def test_nothing_is_made_for_nobody(tmp_path):
    ledger = TargetLedger(tmp_path / "ledger", TARGET)
    assert planned(ledger, set(), tmp_path).name is None


def test_the_ledger_in_an_object_store(tmp_path):
    root = UPath(f"memory://ledger-{uuid4().hex}")
    ledger = TargetLedger(root, TARGET)
    assert ledger.last() is None
    plan = planned(ledger, {"ann", "bob"}, tmp_path)
    begin_attempt(ledger, plan).record(
        Settled(acknowledged=[(0, 1)], rejected={1: "refused_400"}, named=True)
    )
    settled = ledger.settled(plan.plan_id)
    snapshot, size = write_snapshot(ledger, plan, settled)
    assert (size, ledger.path(snapshot).exists()) == (1, True)
    assert write_rejected(ledger, plan, settled)
    again = TargetLedger(root, TARGET)
    assert again.last() == plan
    assert make_plan(again, again.last(), request(tmp_path, {"bob"}, "run-2")).removes == 1
    again.append(plan)  # a store's client that repeats a request meets its own entry
    with pytest.raises(PlaceLostError):
        again.append(replace(plan, run_id="another run"))


def test_a_later_attempt_at_a_plan_stops_the_earlier_one(tmp_path):
    ledger = TargetLedger(tmp_path / "ledger", TARGET)
    plan = planned(ledger, {"ann"}, tmp_path)
    first = begin_attempt(ledger, plan)
    first.check()
    begin_attempt(ledger, plan).check()
    with pytest.raises(PlaceLostError, match="later attempt of run run-1"):
        first.check()


def test_two_runs_cannot_take_one_place(tmp_path):
    ledger = TargetLedger(tmp_path / "ledger", TARGET)
    one = make_plan(ledger, ledger.last(), request(tmp_path, {"ann"}, "run-one"))
    two = make_plan(ledger, ledger.last(), request(tmp_path, {"bob"}, "run-two"))
    ledger.append(one)
    with pytest.raises(PlaceLostError, match="run-one"):
        ledger.append(two)


@pytest.mark.parametrize("damage", ["snapshot", "truncated", "log entry", "log gap"])
def test_damage_is_said_and_nothing_is_planned(tmp_path, damage):
    ledger = TargetLedger(tmp_path / "ledger", TARGET)
    commit(ledger, planned(ledger, {"ann", "bob"}, tmp_path))
    snapshot = ledger.path(ledger.last().snapshot)
    if damage == "snapshot":
        snapshot.unlink()
    elif damage == "truncated":
        snapshot.write_bytes(snapshot.read_bytes()[:50])
    elif damage == "log entry":
        ledger.path("log/00000002.json").write_text('{"kind": ')
    else:
        commit(ledger, planned(ledger, {"ann"}, tmp_path))
        ledger.path("log/00000002.json").unlink()
    with pytest.raises(LedgerDamagedError, match="Nothing was sent"):
        make_plan(ledger, ledger.last(), request(tmp_path, {"ann"}))


NAMES = [f"p{n}" for n in range(6)]
RUN = st.fixed_dictionaries(
    {
        "wanted": st.sets(st.sampled_from(NAMES)),
        "force": st.booleans(),
        # what became of a person's change before the run ended; of an open one nobody knows
        "fates": st.fixed_dictionaries(
            {name: st.sampled_from(["acknowledged", "open, applied", "open, lost"]) for name in NAMES}
        ),
    }
)


@settings(max_examples=12, deadline=None)
@given(runs=st.lists(RUN, min_size=1, max_size=4), refused=st.sets(st.sampled_from(NAMES), max_size=2))
def test_chains_of_unfinished_plans_lose_nobody(tmp_path_factory, runs, refused):
    """After a run that finishes, the other side is exact, whatever the runs before it left behind."""
    tmp_path = tmp_path_factory.mktemp("chain")
    ledger = TargetLedger(tmp_path / "ledger", TARGET)
    other_side: set[str] = set()
    ours: set[str] = set()
    runs = [*runs, {**runs[-1], "force": False, "fates": dict.fromkeys(NAMES, "acknowledged")}]
    for number, run in enumerate(runs):
        plan = planned(ledger, run["wanted"], tmp_path, run_id=f"run-{number}", force_full=run["force"])
        adds, removes = changes(ledger, plan)
        assert not set(adds) & set(removes), "never both"
        assert set(removes) <= ours, "only what we added is removed"
        assert set(adds) <= run["wanted"]
        assert not set(removes) & run["wanted"]
        ours |= set(adds)
        settled = Settled(named=True)
        for row, person in enumerate([*removes, *adds]):
            fate = run["fates"][person]
            if person in refused:
                if fate == "acknowledged":
                    settled.rejected[row] = "refused_400"
                continue
            if fate != "open, lost":
                (other_side.add if person in adds else other_side.discard)(person)
            if fate == "acknowledged":
                settled.merge(Settled(acknowledged=[(row, row + 1)]))
        if settled.rows == plan.rows:
            # Whose removal is refused stays held: an addition of theirs may have passed.
            assert commit(ledger, plan, settled) - refused == other_side == run["wanted"] - refused
        else:
            begin_attempt(ledger, plan).record(settled)
    assert isinstance(ledger.last(), Commit)


ALL_KINDS = (*KINDS, "identity")
NAME = st.sampled_from(["ann", "bob", "ämilie"])
PEOPLE = st.sets(
    st.tuples(st.just("alias"), NAME, st.sampled_from(["crm", "erp"]))
    | st.tuples(st.sampled_from(["external_id", "device_id", "identity"]), NAME, st.just(""))
)


@settings(max_examples=50, deadline=None)
@given(
    before=PEOPLE,
    now=PEOPLE,
    kinds=st.sets(st.sampled_from(ALL_KINDS)),
    share=st.sampled_from([0, 1 / 3, 1]),
)
def test_an_identifier_is_its_kind_its_value_and_its_label(tmp_path_factory, before, now, kinds, share):
    tmp_path = tmp_path_factory.mktemp("planning")
    ledger = TargetLedger(tmp_path / "ledger", TARGET)
    commit(ledger, planned(ledger, before, tmp_path, kinds=ALL_KINDS))
    asked = request(tmp_path, now, "run-2", kinds=sorted(kinds), share=share)
    plan = make_plan(ledger, ledger.last(), asked)
    rows = duckdb.sql(f"SELECT kind, value, label, remove FROM '{ledger.path(plan.changes)}'").fetchall()
    adds, removes = ({tuple(who) for *who, remove in rows if remove is way} for way in (False, True))
    wanted = {who for who in now if who[0] in kinds}
    assert len(rows) == len(adds) + len(removes)
    assert removes == before - wanted
    assert wanted - before <= adds <= wanted
    assert share == 1 / 3 or adds == (wanted if share else wanted - before)
