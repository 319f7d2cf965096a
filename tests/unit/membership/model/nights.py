"""The nights that are made up: who is wanted, who runs, who dies, and what is broken meanwhile."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from airflow_provider_heapbraze.clients.errors import ConfigurationError, TransientError
from airflow_provider_heapbraze.ledger_folder import LedgerDamagedError, PlaceLostError
from airflow_provider_heapbraze.membership.batches import Batch
from airflow_provider_heapbraze.membership.damping import Damping
from airflow_provider_heapbraze.membership.planning import Request, make_plan
from airflow_provider_heapbraze.membership.pruning import prune
from airflow_provider_heapbraze.membership.restoring import find_run, match_of_run
from airflow_provider_heapbraze.membership.senders import COHORT_KINDS
from airflow_provider_heapbraze.sandbox.models import FaultKind
from tests.unit.membership.conftest import ANYTHING_GOES
from tests.unit.membership.model.people import (
    FORMS,
    IDENTIFIERS,
    MOVING,
    REFUSED,
    STRANGERS,
    USERS,
    given,
    row,
)
from tests.unit.membership.model.process import Process, Small
from tests.unit.membership.model.watch import COUNTS, SHARE, Given, Watch

# A 2xx that says nothing and was not applied looks like a success on these endpoints.
LOSING = ("unclear-before", "message-before")
HARMLESS = tuple(kind for kind in get_args(FaultKind) if kind not in LOSING)
FAULTS = st.dictionaries(st.sampled_from(HARMLESS), st.sampled_from([0.1, 0.3]), max_size=3)
COME_AND_GO = st.sets(st.sampled_from(sorted(IDENTIFIERS)), max_size=6)
MOVE = st.dictionaries(st.sampled_from(sorted(MOVING)), st.sampled_from(sorted(FORMS)), max_size=2)
CHANGE = st.tuples(COME_AND_GO, MOVE)
FATES = st.sampled_from(["goes well"] * 3 + ["dies before", "dies after", "hangs"])
DEEDS = st.integers(1, 24)
# Runs that may come back, with their match: nobody keeps less.
LATELY = 3


class Nights(RuleBasedStateMachine):
    """Heap's segment, and the runs that carry it over."""

    sandbox: Any = None
    make_folder: Any = None

    def __init__(self):
        super().__init__()
        self.sandbox.reset()
        self.nightly = Small(self.sandbox, self.make_folder())
        self.ledger = self.nightly.ledger
        self._fill_braze()
        self.watch = Watch(self.nightly)
        self.segment = {0, 2, 3, 7, 9}
        self.forms = dict.fromkeys(MOVING, "first")
        self.name = "Cohort"
        self.night = 0
        self.runs = []  # (request, attempts) of every run, the newest last
        self.drafts = []
        self.moments = []  # before each request
        self.hanging = []
        self.sound = True
        COUNTS["examples"] += 1

    def _fill_braze(self):
        self.sandbox.add_users(USERS, count=7)
        with self.nightly.client_of(Process(None), 1) as client:
            sender = self.nightly.sender(client)
            rows = [("external_id", stranger, "", False) for stranger in sorted(STRANGERS)]
            sender.send(Batch(range(len(rows)), rows), lane=None, check=lambda: None)

    # ---- what people and Airflow do

    @rule(
        change=CHANGE,
        name=st.sampled_from(["Cohort", "Cohort", "Another name"]),
        how=st.fixed_dictionaries(
            {
                "force_full": st.sampled_from([False, False, False, True]),
                "share": st.sampled_from([0, SHARE, SHARE]),
                "runs": st.sampled_from([1, 1, 3]),
            }
        ),
        faults=st.fixed_dictionaries(
            {
                "rates": FAULTS,
                "loses": st.sampled_from([None, None, *LOSING]),
                "refuses": st.sampled_from([False, False, True]),
                "seed": st.integers(0, 50),
            }
        ),
        attempts=st.sampled_from([1, 2, 8]),
        fate=FATES,
        at=DEEDS,
    )
    def run(self, change, name, how, faults, attempts, fate, at):
        self._change(change)
        self.name = name
        self._faults(**faults)
        self._start(self._request(**how), attempts, fate, at)

    @precondition(lambda self: self.runs)
    @rule(
        back=st.sampled_from([0, 0, 0, 1]),
        change=st.one_of(st.none(), CHANGE),
        rates=FAULTS,
        seed=st.integers(0, 50),
        fate=FATES,
        at=DEEDS,
    )
    def come_back(self, back, change, rates, seed, fate, at):
        """A retry, or a cleared task: with the same match, or with a new one."""
        request, attempts = self.runs[-1 - min(back, len(self.runs) - 1)]
        if change is not None:
            self._change(change)
            request = self._request_like(request)
        self._faults(rates=rates, seed=seed)
        self._start(request, attempts, fate, at)

    @rule(change=CHANGE)
    def draft(self, change):
        self._change(change)
        request = self._request()
        try:
            self.drafts.append((make_plan(self.ledger, self.ledger.last(), request), request))
        except LedgerDamagedError:
            assert self.watch.damaged

    @precondition(lambda self: self.drafts)
    @rule(fate=FATES, at=DEEDS)
    def apply_a_draft(self, fate, at):
        plan, request = self.drafts[-1]
        run_id = f"apply-{plan.plan_id}"
        self._faults()

        def apply(process):
            with self.nightly.client_of(process, 8) as client:
                return self.nightly.sync(client).apply(plan.plan_id, run_id, ANYTHING_GOES)

        self._let(Process(apply, fate, at), replace(request, run_id=run_id))

    @precondition(lambda self: self.watch.finished)
    @rule(which=st.integers(0, 5), fate=FATES, at=DEEDS)
    def undo(self, which, fate, at):
        request = self._restore(which)
        if request is not None:
            self._faults()
            self._start(request, 8, fate, at)

    @precondition(lambda self: self.hanging)
    @rule(which=st.integers(0, 3))
    def one_wakes_up(self, which):
        process, request, entries, attempts = self.hanging.pop(which % len(self.hanging))
        self._faults()
        self.watch.failing = True  # it wakes up with the answer that came before
        lost = self._is_lost(request, entries, attempts)
        sent = len(process.sent)
        self._go_on(process, request)
        if lost:
            assert isinstance(process.error, PlaceLostError | TransientError), process.error
            assert len(process.sent) == sent, "it must stop before its next batch"
            COUNTS["lost its place"] += 1

    @precondition(lambda self: not self.hanging and self.watch.entries)
    @rule(
        change=CHANGE,
        which=st.integers(0, 30),
        how=st.sampled_from(["missing", "emptied", "torn", "garbage"]),
        by_force=st.booleans(),
        undone=st.integers(0, 5),
        at=DEEDS,
        again=st.one_of(st.none(), st.integers(0, 30)),
    )
    def a_file_is_damaged(self, change, which, how, by_force, undone, at, again):
        """A run stops or does not need the file; ``force_full`` and restoring end exact, even if they die."""
        self._change(change)
        self._damage(which, how)
        self._faults()
        stopped = self._start(self._request(), 8)
        if not isinstance(stopped.error, LedgerDamagedError):
            return
        COUNTS["stopped by damage"] += 1
        request = None if by_force or not self.watch.finished else self._restore(undone)
        request = request or self._request(force_full=True)
        if self._start(request, 8, "dies after", at).report is None:
            if again is not None:
                self._damage(again, how)
            went_on = self._start(request, 8)
            assert went_on.report is not None, went_on.error
        COUNTS["recovered"] += 1

    @precondition(lambda self: len(self.moments) > LATELY)
    @rule(back=st.integers(LATELY, LATELY + 5))
    def what_is_old_is_pruned(self, back):
        """Runs go on as if it were there, also those that hang; only undoing it is over."""
        before = files_in(self.ledger.folder)
        prune(self.nightly.folder / "ledger", self.moments[-min(back, len(self.moments))], None)
        if before - files_in(self.ledger.folder):
            COUNTS["pruned"] += 1
            self.watch.pruned = True

    def teardown(self):
        if not self.sound:  # what went wrong is to be seen, not what follows from it
            for process, *_ in self.hanging:
                process.kill()
            return
        while self.hanging:
            self.one_wakes_up(0)
        self._faults()
        if isinstance(self._start(self._request(), 8).error, LedgerDamagedError):
            assert self._start(self._request(force_full=True), 8).report is not None

    # ---- how it is done

    def _change(self, change):
        come_and_go, forms = change
        self.segment ^= come_and_go
        self.forms.update(forms)

    def _faults(self, rates=None, seed=0, *, loses=None, refuses=False):
        rates = {**(rates or {}), **({loses: 0.1} if loses else {})}
        self.sandbox.faults(
            rates=rates,
            seed=seed,
            wait=0,
            poison=[f"user-{person}" for person in sorted(REFUSED)] if refuses else [],
            endpoints=["cohort-users"] if loses else None,
        )
        self.watch.failing = bool(rates)

    def _request(self, run_id=None, as_of=None, *, force_full=False, share=0, runs=1):
        self.moments.append(datetime.now(UTC))
        if run_id is None:
            self.night += 1
            run_id, as_of = f"dag/night-{self.night}/import", self._time()
        rows = {person: given(person, self.forms.get(person)) for person in sorted(self.segment)}
        request = self.nightly.request(
            list(map(row, rows.values())),
            run_id,
            force_full=force_full,
            name=self.name,
            as_of=as_of,
            reassert_share=share,
            damping=Damping(runs),
        )
        pairs = {person for person, identifiers in rows.items() if len(identifiers) > 1}
        self.watch.given[request.match.fingerprint] = Given({known[-1] for known in rows.values()}, pairs)
        return request

    def _request_like(self, other):
        if other.run_id.startswith("dag/undo"):
            return other
        how = {"share": other.reassert_share, "runs": other.damping.runs}
        return self._request(other.run_id, other.as_of, force_full=other.force_full, **how)

    def _time(self):
        return (datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=self.night)).isoformat()

    def _restore(self, which):
        """Ask for what an earlier run left; None where it cannot be had."""
        run_id = sorted(self.watch.finished)[which % len(self.watch.finished)]
        root = self.nightly.folder / "ledger"
        try:
            commit = find_run(self.ledger, run_id)
            match = match_of_run(self.ledger, commit, root)
        except ConfigurationError:
            assert self.watch.damaged or self.watch.pruned
            return None
        except LedgerDamagedError:
            assert self.watch.damaged
            return None
        pairs = self.watch.given[commit.fingerprint].pairs
        self.watch.given[match.fingerprint] = Given(self.watch.snapshot(commit.snapshot), pairs)
        self.night += 1
        return Request(
            run_id=f"dag/undo-{self.night}/restore",
            match=match,
            match_folder=root / "matches" / match.fingerprint,
            kinds=COHORT_KINDS,
            name=commit.name,
            force_full=False,
            as_of=self._time(),
            goes_on=True,
        )

    def _start(self, request, attempts, fate="goes well", at=0):
        self.runs.append((request, attempts))

        def run(process):
            with self.nightly.client_of(process, attempts) as client:
                return self.nightly.sync(client).run(request, ANYTHING_GOES)

        return self._let(Process(run, fate, at), request)

    def _let(self, process, request):
        COUNTS["runs"] += 1
        self.watch.begins()
        self._go_on(process, request)
        return process

    def _go_on(self, process, request):
        self.sound = False
        ended = process.go()
        self.watch.notice(process, request)
        if not ended:
            COUNTS["hung"] += 1
            plan = self.watch.plan_of(request)
            attempts = self.watch.attempts(plan) if plan else 0
            self.hanging.append((process, request, self.watch.entries, attempts))
        elif process.error is None:
            self.watch.check_finished(process.report)
        else:
            self.watch.check_stopped(process)
        self.sound = True

    def _is_lost(self, request, entries, attempts):
        """Tell whether others took its place over while it hung."""
        plan = self.watch.plan_of(request)
        return self.watch.entries > entries or (plan is not None and self.watch.attempts(plan) > attempts)

    def _damage(self, which, how):
        kinds = defaultdict(list)
        for path in sorted(path for path in self.ledger.folder.rglob("*") if path.is_file()):
            parts = path.relative_to(self.ledger.folder).parts
            kinds[parts[2].partition("-")[0] if parts[0] == "plans" else parts[0]].append(path)
        kind = sorted(kinds)[which % len(kinds)]
        file = kinds[kind][-1 - which // len(kinds) % len(kinds[kind])]  # the newest first
        data = file.read_bytes()
        if how == "missing":
            file.unlink()
        else:
            damaged = {
                "emptied": b"",
                "torn": data[: len(data) // 2],
                "garbage": random.Random(which).randbytes(len(data)),
            }
            file.write_bytes(damaged[how])
        COUNTS[f"damaged: {kind}"] += 1
        self.watch.damaged = True


def files_in(folder):
    return {path for path in folder.rglob("*") if path.is_file()}
