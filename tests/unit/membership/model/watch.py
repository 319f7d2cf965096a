"""What must hold: it sees what each process did, and holds it against what it may do."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from dataclasses import dataclass, replace

import pyarrow.parquet as pq

from airflow_provider_heapbraze.clients.errors import TransientError
from airflow_provider_heapbraze.ledger_folder import LedgerDamagedError, PlaceLostError
from airflow_provider_heapbraze.membership.entries import Commit, Plan
from airflow_provider_heapbraze.membership.errors import StalePlanError
from tests.unit.membership.conftest import COHORT_ID
from tests.unit.membership.model.people import (
    BY_EXTERNAL_ID,
    IDENTIFIERS,
    MOVING,
    REFUSED,
    SHOWN,
    STEADY,
    STRANGERS,
    named,
    people,
)
from tests.unit.membership.model.process import Killed

SHARE = 1 / 3
RUNS_TO_HEAL = 3
REMOVALS_REMEMBERED = 30
COUNTS: Counter = Counter()


@dataclass(frozen=True)
class Given:
    """What a match gives.

    :param wanted: the chosen identifiers.
    :param pairs: of whom it gives two identifiers.
    """

    wanted: set
    pairs: set


@dataclass(frozen=True)
class Lost:
    """A change that Braze accepted and lost.

    :param plan: the place in the log of the plan that it was in.
    :param repeat: whether that plan repeated a removal.
    :param slices: how many plans in a row since then wanted the person and asserted a slice.
    """

    plan: int
    repeat: bool
    slices: int = 0


@dataclass(frozen=True)
class Made:
    """A plan that is in the log, with the world as it was before."""

    plan: Plan
    request: object
    wanted: set  # people, as the rest
    adds: set
    removes: set
    repeated: set
    before: int  # the place of the plan before it
    only_external_ids: bool
    held_before: set
    sure_before: bool
    absent: dict


class Watch:
    """What is known of the world, beside what the ledger says."""

    def __init__(self, nightly):
        self.sandbox = nightly.sandbox
        self.ledger = nightly.ledger
        self.seen = len(self.sandbox.requests())
        self.given = {}  # fingerprint to what its match gives
        self.made = {}  # plan id to what is known of it
        self.entries = 0  # place of the newest entry
        self.plan = 0  # place of the newest plan
        self.finished = set()  # ids of runs
        self.ours = set()  # identifiers that a plan of ours added
        self.held = set()
        self.lost = {}  # people whose last change Braze lost
        self.absent = defaultdict(set)  # the times of runs in which somebody was absent, in a row
        self.together = set()  # people of whom the ledger must know that two identifiers are theirs
        self.apart = set()  # people taken by a removal of one identifier, of whom nobody could know it
        self.unsure = set()  # people whose removal was refused: they count as held
        self.strays = set()  # people of whom the ledger does not know whether they are held
        self.damaged = self.failing = self.pruned = False

    def begins(self):
        """See the world before a process does anything."""
        log = self.log()
        self._sure_before = bool(log) and isinstance(log[-1], Commit)
        self._done_before = self._settled_before(log)

    def notice(self, process, request):
        """See what a process did until now."""
        held_before = self.held
        for entry in self.log():
            if isinstance(entry, Plan) and entry.plan_id not in self.made:
                self._notice_plan(entry, request, held_before)
            self.entries = entry.number
        self._notice_requests(process)
        members = set(self.sandbox.cohort(COHORT_ID)["members"])
        assert members >= STRANGERS, "nobody is removed whom we did not add"
        self.held = {SHOWN[member] for member in members - STRANGERS}

    def log(self):
        """Return the entries that can be read, oldest first."""
        return sorted(self.ledger.recent_entries(10**8), key=lambda entry: entry.number)

    def plan_of(self, request):
        """Return the newest plan of a run."""
        plans = [made.plan for made in self.made.values() if made.plan.run_id == request.run_id]
        return plans[-1] if plans else None

    def attempts(self, plan):
        """Return how many processes worked on a plan."""
        return sum(1 for _ in self.ledger.path(f"{plan.folder}/attempts").glob("[0-9]*[0-9].json"))

    def _settled_before(self, log):
        """Return the open plan with the identifiers in it that have an answer."""
        if not log or not isinstance(log[-1], Plan) or log[-1].plan_id not in self.made:
            return None, set()
        try:
            settled = self.ledger.settled(log[-1].plan_id)
            rows = self._changes(log[-1])
        except (LedgerDamagedError, OSError, ValueError):
            return None, set()
        done = {rows[row][0] for start, end in settled.acknowledged for row in range(start, end)}
        return log[-1].plan_id, done | {rows[row][0] for row in settled.rejected}

    def _changes(self, plan):
        table = pq.read_table(self.ledger.path(plan.changes)).to_pylist()
        return [((row["kind"], row["value"], row["label"]), row["remove"]) for row in table]

    def snapshot(self, name):
        """Return the identifiers in a snapshot of the ledger."""
        table = pq.read_table(self.ledger.path(name)).to_pylist() if name else []
        return {(row["kind"], row["value"], row["label"]) for row in table}

    # ---- plans

    def _notice_plan(self, plan, request, held_before):
        rows = self._changes(plan)
        removes = {identifier for identifier, remove in rows[: plan.removes] if remove}
        adds = {identifier for identifier, remove in rows[plan.removes :] if not remove}
        assert len(adds) + len(removes) == len(rows) == plan.rows, "removals come first, each once"
        assert not adds & removes, "never both"
        assert removes <= self.ours, "only whom we added is removed"
        self.ours |= adds
        given, base = self.given[plan.fingerprint], self.snapshot(plan.base)
        self._notice_pairs(plan, given, base, adds, removes)
        wanted = people(given.wanted)
        self._notice_absent(plan, request, wanted)
        for who, lost in self.lost.items():
            slices = lost.slices + bool(request.reassert_share) if who in wanted else 0
            self.lost[who] = replace(lost, slices=slices)
        self.made[plan.plan_id] = Made(
            plan=plan,
            request=request,
            wanted=wanted,
            adds=people(adds),
            removes=people(removes),
            repeated=people(
                identifier for identifier, _ in rows[plan.removes - plan.repeated : plan.removes]
            ),
            before=self.plan,
            only_external_ids=all(kind == "external_id" for kind, *_ in given.wanted | base | adds | removes),
            held_before=held_before,
            sure_before=self._sure_before,
            absent=dict(self.absent),
        )
        self.plan = plan.number

    def _notice_pairs(self, plan, given, base, adds, removes):
        """A removal by one identifier takes people who are held under another."""
        together = given.pairs | (set() if plan.recovery else self.together)
        taken = (people(removes) & people(base - removes)) - people(adds)
        assert not taken & together, f"who is one person is known, but for {taken & together}"
        self.apart |= taken
        # It is remembered for as long as the other identifier may be held.
        self.together = {who for who in together if IDENTIFIERS[who][0] in base | given.wanted}

    def _notice_absent(self, plan, request, wanted):
        for person in IDENTIFIERS:
            if person in wanted or not request.damping or plan.recovery:
                self.absent[person] = set()
            else:
                self.absent[person] = self.absent[person] | {plan.as_of}

    # ---- requests

    def _notice_requests(self, process):
        """Hold what was sent against what was settled before, and see what Braze lost."""
        entries = self.sandbox.requests(since=self.seen)
        self.seen += len(entries)
        sent, process.looked_at = process.sent[process.looked_at :], len(process.sent)
        bodies = {hashlib.sha256(body).hexdigest(): body for body in sent}
        plan_id, done = self._done_before
        log = self.log()
        goes_on = bool(log) and log[-1].plan_id == plan_id
        for entry in entries:
            changes = json.loads(bodies[entry["body_sha256"]]).get("cohort_changes", [])
            adds, removes = named(changes, leaving=False), named(changes, leaving=True)
            both = adds | removes
            COUNTS["requests"] += 1
            assert both <= self.ours, "nothing is sent that is in no plan"
            assert not both & process.acknowledged, "they had been acknowledged"
            if goes_on:
                assert not both & done, "they were recorded as settled"
            accepted = entry["status"] in {200, 201} and not str(entry["fault"]).startswith("errors")
            if accepted:
                process.acknowledged |= both
            if entry["status"] == 400 and len(both) == 1:
                self.unsure |= people(removes)
            if entry["applied"]:
                self._notice_applied(adds, removes)
            elif accepted and both:
                made = self.made[log[-1].plan_id]
                for person in people(both):
                    self.lost[person] = Lost(made.plan.number, person in made.repeated)
                    COUNTS["lost by Braze"] += 1

    def _notice_applied(self, adds, removes):
        for person in people(adds | removes):
            self.lost.pop(person, None)
            self.unsure.discard(person)
            self.strays.discard(person)
        self.apart -= people(adds)

    # ---- ends

    def check_stopped(self, process):
        """Look into the error of a run that did not finish."""
        error = process.error
        if isinstance(error, Killed):
            COUNTS["died"] += 1
        elif isinstance(error, TransientError):
            assert self.failing
            COUNTS["gave up"] += 1
        elif isinstance(error, LedgerDamagedError):
            assert self.damaged
            assert not process.sent, "nothing is sent on its word"
        elif isinstance(error, StalePlanError):
            assert not process.sent
            COUNTS["stale"] += 1
        elif isinstance(error, FileNotFoundError):
            assert self.pruned, "what it slept over is gone, with its temporary file"
        elif not isinstance(error, PlaceLostError):
            raise error

    def check_finished(self, report):
        """After a run that finished the cohort is the segment, and the numbers add up."""
        COUNTS["finished"] += 1
        commit = self.log()[-1]
        assert isinstance(commit, Commit)
        assert report["plan_id"] == commit.plan_id
        made, snapshot = self.made[commit.plan_id], self.snapshot(commit.snapshot)
        rows = self._changes(made.plan)
        refused = people(rows[row][0] for row in self.ledger.settled(commit.plan_id).rejected)
        self._check_numbers(report, made, commit, snapshot)
        if made.plan.recovery and made.plan.recovery["lost"]:
            self.strays |= (self.held - made.wanted) & people(self.ours)
        leavers = {who for who in self.held - made.wanted if self._may_be_back(who, made)}
        wrong = (self.held ^ made.wanted) - leavers - refused - self.strays
        assert not wrong - self.lost.keys() - self.apart, f"the cohort is the segment, but for {wrong}"
        overdue = {who for who in wrong & self.lost.keys() if self._is_overdue(who, made)}
        assert not overdue, f"what Braze lost heals, but for {overdue}"
        self._check_leavers(made, refused)
        in_doubt = self.lost.keys() | refused | self.unsure | self.strays | self.apart
        differ = (people(snapshot) ^ self.held) - in_doubt
        assert not differ, f"the snapshot is the cohort, but for {differ}"
        self.apart &= people(snapshot)
        if report["name"] is not None:
            assert self.sandbox.cohort(COHORT_ID)["name"] == report["name"]
        self.finished.add(commit.run_id)

    def _check_numbers(self, report, made, commit, snapshot):
        steps = report["waterfall"]
        assert steps["members"] == steps["wanted"] == len(self.given[made.plan.fingerprint].wanted)
        assert steps["wanted"] == steps["unchanged"] + steps["adds"]
        assert steps["planned"] == steps["adds"] + steps["removes"]
        assert steps["planned"] == steps["acknowledged"] + sum(steps["rejected"].values())
        assert report["size"] == commit.size == len(snapshot)

    def _may_be_back(self, person, made):
        return 0 < len(made.absent.get(person, ())) < made.request.damping.runs

    def _is_overdue(self, person, made):
        """Tell whether a change that Braze lost should have been sent again by now."""
        lost = self.lost[person]
        if lost.plan == made.plan.number:
            return False  # it was, and Braze lost it again
        everybody = made.request.force_full or made.plan.recovery
        if person in made.wanted:
            # Each identifier has its slice.
            return everybody or (person in STEADY and lost.slices >= RUNS_TO_HEAL)
        if self.damaged or person not in BY_EXTERNAL_ID or not made.only_external_ids:
            return False
        if everybody:
            return made.plan.number - lost.plan < REMOVALS_REMEMBERED
        return made.request.reassert_share and made.before == lost.plan and not lost.repeat

    def _check_leavers(self, made, refused):
        """Whoever is not absent for long enough stays, where nothing is in doubt."""
        if not made.sure_before or made.plan.recovery:
            return
        in_doubt = self.lost.keys() | refused | self.strays | REFUSED | MOVING
        early = {who for who in made.held_before - self.held if self._may_be_back(who, made)}
        assert not early - in_doubt, f"a leaver stays for a while, but for {early - in_doubt}"
