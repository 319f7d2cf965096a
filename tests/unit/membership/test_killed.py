"""The importing process is killed, again and again, night after night; in the end the cohort is exact."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import time
from collections import Counter
from datetime import date, timedelta

import pyarrow.parquet as pq

from airflow_provider_heapbraze.membership.entries import Commit, Plan
from tests.unit.membership.importing import (
    COHORT_ID,
    FAULTS,
    Place,
    number_of,
    person,
    run_in_a_process,
    watched_sandbox,
)

LONG = "HEAPBRAZE_KILLS" in os.environ
KILLS = int(os.environ.get("HEAPBRAZE_KILLS", "6"))
SEED = int(os.environ.get("HEAPBRAZE_SEED", time.time_ns() % 1_000_000))
# A night wants half of the people, and half of them change places with the others from night to night.
MEMBERS = 200_000 if LONG else 20_000
PEOPLE = 2 * MEMBERS
BATCHES = MEMBERS // 1000
REQUESTS_PER_SECOND = 120 if LONG else 16
# Braze refuses this one, whoever comes in the same request.
REFUSED = 0
AIMS = (
    "anywhere",
    "before the first request",
    "between two records",
    "sending",
    "recording",
    "committing",
)


class Nights:
    """Imports that are killed; what was sent is held against what the ledger knew at that moment."""

    def __init__(self, place, sandbox, watch):
        self.place = place
        self.ledger = place.ledger
        self.sandbox = sandbox
        self.watch = watch
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(["tests.unit.membership.importing", "duckdb", "pyarrow.parquet"])
        self.moments = random.Random(SEED)
        self.attempt = self.night = 0
        self.killed = Counter()  # by the phase that the ledger shows
        self.counts = Counter()
        self.ours = set()  # everybody whom a plan of ours added
        self.plans = {}  # of the attempts that worked on one
        self.rows = {}  # people of the last two plans, in the order of their change sets
        self.next_night()

    def next_night(self):
        """Let another run want other people."""
        self.night += 1
        self.want_others()

    def want_others(self):
        """Let others be wanted, and other things go wrong."""
        self.wanted = set(self.moments.sample(range(1, PEOPLE), MEMBERS))
        if self.moments.random() < 0.25:
            self.wanted.add(REFUSED)
        self.sandbox.faults(
            **FAULTS,
            seed=self.moments.randrange(1000),
            poison=[person(REFUSED)],
            lock_overlapping=self.moments.random() < 0.25,
        )
        as_of = (date(2026, 1, 1) + timedelta(days=self.night)).isoformat()
        self.request = self.place.request(self.wanted, f"run-{self.night}", as_of)

    def run_and_kill(self):
        """Run the night's import and kill it; tell whether the night is finished."""
        self.attempt += 1
        before, left_behind = self.ledger.last(), self.cut_off()
        settled = self.settled(before)
        self.place.scratch.mkdir()
        process = self.start()
        self.wait_for(AIMS[self.attempt % len(AIMS)], process, before)
        process.kill()
        process.join()
        shutil.rmtree(self.place.scratch)
        assert process.exitcode in {0, -9}
        entry = self.ledger.last()
        if process.exitcode:
            self.killed[self.phase(before, entry, left_behind)] += 1
        self.check(before, entry, settled)
        if settled and before.plan_id == entry.plan_id and self.watch.arrived[self.attempt]:
            self.counts["gone on with, in part"] += 1
        return isinstance(entry, Commit) and self.is_wanted(entry)

    def run_to_the_end(self):
        """Run the night's import in this process, with nothing going wrong any more."""
        self.sandbox.faults()
        self.attempt += 1
        before = self.ledger.last()
        settled = self.settled(before)
        self.place.run(self.request, self.attempt)
        self.check(before, self.ledger.last(), settled)
        assert self.members() == self.wanted

    def start(self):
        told, began = self.context.Pipe(duplex=False)
        process = self.context.Process(
            target=run_in_a_process, args=(self.place, self.request, self.attempt, began)
        )
        process.start()
        assert told.recv()
        return process

    def wait_for(self, aim, process, before):
        """Wait for the moment; at times the end of the process comes first."""
        own = isinstance(before, Plan) and self.is_wanted(before)
        number = before.number if own else before.number + 1 if before else 1
        enough = self.moments.randint(1, BATCHES // 2)
        signs = {
            "before the first request": lambda: self.count(
                f"log/{number:08d}.json", f"plans/{number:08d}-*/attempts/*"
            ),
            "sending": lambda: self.watch.arrived[self.attempt] >= enough,
            "between two records": lambda: self.count(f"plans/{number:08d}-*/settled/[0-9]*"),
            "recording": lambda: self.count(f"plans/{number:08d}-*/settled/*"),
            "committing": lambda: self.count(f"plans/{number:08d}-*/attempts/*-ended.json"),
        }
        if aim == "anywhere":
            process.join(self.moments.uniform(0, 1.5 * BATCHES / REQUESTS_PER_SECOND))
            return
        longest = {"recording": 0.003, "committing": 0.5 if LONG else 0.1}.get(aim, 0.03)
        at_first = signs[aim]()
        while process.is_alive() and signs[aim]() == at_first:
            time.sleep(0.002)
        time.sleep(self.moments.uniform(0, longest))

    def phase(self, before, entry, left_behind):
        """Tell from the ledger, and from whether requests came, where the process was killed."""
        if entry == before and not (isinstance(entry, Plan) and self.is_wanted(entry)):
            return "planning"
        if isinstance(entry, Commit):
            return "after the commit"
        if self.cut_off() > left_behind:
            return "recording"
        if self.settled(entry) == entry.rows:
            return "committing"
        return "sending" if self.watch.arrived[self.attempt] else "before the first request"

    def check(self, before, entry, settled):
        """Hold what was planned, sent, recorded and reported against each other."""
        if entry is not None:
            plan = self.ledger.read_draft(entry.plan_id)
            self.look_into(plan)
            if self.is_wanted(entry):
                self.plans[self.attempt] = plan
        self.check_requests()
        if entry != before and isinstance(entry, Commit):
            self.check_report(entry, settled if before and before.plan_id == entry.plan_id else 0)

    def look_into(self, plan):
        """Read a plan that is new in the log; it removes nobody whom none before it added."""
        if plan.plan_id in self.rows:
            return
        people = pq.read_table(self.ledger.path(plan.changes), columns=["value"])["value"].to_pylist()
        rows = list(map(number_of, people))
        assert self.ours.issuperset(rows[: plan.removes])
        self.ours.update(rows[plan.removes :])
        self.rows = {**dict(list(self.rows.items())[-1:]), plan.plan_id: rows}
        self.counts["plans"] += 1

    def check_requests(self):
        """Nothing was sent that is in no plan, and nothing again that was recorded."""
        by_attempt = {}
        for sent in self.watch.take():
            by_attempt.setdefault(sent.attempt, []).append(sent)
        for attempt, requests in by_attempt.items():
            plan = self.plans[attempt]
            rows, records, recorded = self.rows[plan.plan_id], self.records(plan), set()
            adds, removes = set(rows[plan.removes :]), set(rows[: plan.removes])
            for sent in requests:
                while records and records[0][0] < sent.at:
                    recorded.update(*(rows[start:end] for start, end in records.pop(0)[1]))
                assert sent.adds <= adds
                assert sent.removes <= removes
                assert recorded.isdisjoint(sent.adds | sent.removes), "they were recorded as settled"
                self.counts["requests"] += 1
                self.counts["people in requests"] += len(sent.adds) + len(sent.removes)

    def records(self, plan):
        """Return which rows of a plan have an answer, as (when it was recorded, ranges), oldest first."""
        folder = f"{plan.folder}/settled"
        names = [path.name for path in self.ledger.path(folder).glob("[0-9]*.json")]
        records = [self.ledger.read(f"{folder}/{name}") for name in names]
        return sorted(
            (record["at"], [*record["acknowledged"], *([row, row + 1] for row, _ in record["rejected"])])
            for record in records
        )

    def check_report(self, commit, settled):
        """A finished night is exact, and its numbers add up."""
        report = self.ledger.read_report(commit.report)
        steps = report["waterfall"]
        assert steps["members"] == steps["wanted"] == len(self.wanted)
        assert steps["wanted"] == steps["unchanged"] + steps["adds"]
        assert steps["planned"] == steps["adds"] + steps["removes"]
        assert steps["planned"] == steps["acknowledged"] + sum(steps["rejected"].values())
        assert report["settled_by_earlier_attempts"] == settled
        held = self.members()
        assert held == self.wanted - (set() if REFUSED in held else {REFUSED})
        snapshot = pq.read_table(self.ledger.path(commit.snapshot), columns=["value"])["value"]
        kept = set(map(number_of, snapshot.to_pylist()))
        assert report["size"] == commit.size == len(kept)
        assert kept - {REFUSED} == held - {REFUSED}, "whose removal is refused stays held"
        self.counts["nights finished"] += 1
        self.counts["people acknowledged"] += steps["acknowledged"]
        self.counts["people rejected"] += sum(steps["rejected"].values())

    def members(self):
        return set(map(number_of, self.sandbox.cohort(COHORT_ID)["members"]))

    def is_wanted(self, entry):
        return entry.fingerprint == self.request.match.fingerprint

    def settled(self, entry):
        return self.ledger.settled(entry.plan_id).rows if entry else 0

    def cut_off(self):
        """Count records whose writing was cut off."""
        return self.count("plans/*/settled/.*")

    def count(self, *patterns):
        return sum(1 for pattern in patterns for _ in self.ledger.folder.glob(pattern))


def test_killed_at_random_moments(tmp_path):
    print(f"HEAPBRAZE_SEED={SEED}")  # noqa: T201 - shown where it fails
    with watched_sandbox() as (sandbox, watch):
        sandbox.add_users(count=PEOPLE)
        nights = Nights(Place(sandbox.url, tmp_path, REQUESTS_PER_SECOND), sandbox, watch)
        while (
            nights.killed.total() < KILLS
            or not nights.killed["sending"]
            or not nights.counts["gone on with, in part"]
        ):
            finished = nights.run_and_kill()
            chance = nights.moments.random()
            if finished and chance < 0.8:
                watch.wait_until_quiet()  # a day lies between
                nights.next_night()
            elif chance < 0.25:
                nights.counts["taken over by another run"] += 1
                nights.next_night()
            elif chance < 0.4:
                nights.counts["taken over by the same run with another match"] += 1
                nights.want_others()
            else:
                nights.counts["gone on with"] += 1
        nights.next_night()  # whom Braze refused until now is wanted again by another run only
        nights.run_to_the_end()
    print(f"killed: {dict(nights.killed)}\nin all: {dict(nights.counts)}")  # noqa: T201 - what a soak is for
