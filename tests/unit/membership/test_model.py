"""Heap's segment, our ledger and Braze's cohort, with everything that goes wrong between them.

Hypothesis makes up the nights: people come and go, runs die or hang at any of their deeds, come back, take
over from each other; Braze fails in every way; files of the ledger are lost; runs are undone. After every run
that finishes, the cohort is what it must be.
"""

from __future__ import annotations

import hashlib
import json
import os
import queue
import random
import threading
import time
from collections import Counter, defaultdict
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow.parquet as pq
import pytest
import requests
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from requests.adapters import HTTPAdapter

from airflow_provider_heapbraze.clients.braze import BrazeClient, BrazeKeys, BrazeLimits, Limit
from airflow_provider_heapbraze.clients.errors import ConfigurationError, TransientError
from airflow_provider_heapbraze.clients.transport import RetryPolicy, Transport
from airflow_provider_heapbraze.ledger_folder import LedgerDamagedError, PlaceLostError
from airflow_provider_heapbraze.membership import account, delivery, sync
from airflow_provider_heapbraze.membership.batches import Batch
from airflow_provider_heapbraze.membership.damping import Damping
from airflow_provider_heapbraze.membership.entries import Commit, Plan
from airflow_provider_heapbraze.membership.errors import GuardBreachedError, StalePlanError
from airflow_provider_heapbraze.membership.guards import Guards
from airflow_provider_heapbraze.membership.planning import Request, make_plan
from airflow_provider_heapbraze.membership.restoring import find_run, match_of_run
from airflow_provider_heapbraze.membership.senders import COHORT_KINDS
from airflow_provider_heapbraze.sandbox import connections
from tests.unit.membership.conftest import ANYTHING_GOES, COHORT_ID, Nightly

EXAMPLES = int(os.environ.get("HEAPBRAZE_EXAMPLES", "0"))

# Who there is: the identifiers in Braze's words, the one that Heap chooses last.
IDENTIFIERS = {
    **{number: [("external_id", f"user-{number}", "")] for number in range(7)},
    # Known by an alias first, by an external id later; to Braze one person all the time.
    7: [("alias", "mail-7", "email"), ("external_id", "user-7", "")],
    8: [("alias", "mail-8", "email"), ("external_id", "user-8", "")],
    9: [("device_id", "phone-9", "")],
    10: [("alias", "mail-10", "email")],
    11: [("external_id", "user-11", "")],
}
PERSON = {identifier: person for person, several in IDENTIFIERS.items() for identifier in several}
GAINING = (7, 8)
SHOWN = {
    **{f"user-{number}": number for number in (*range(9), 11)},
    "device:phone-9": 9,
    "alias:email/mail-10": 10,
}
# In the cohort by somebody else's hand: never ours to remove.
STRANGERS = {"user-90", "user-91"}
REFUSED = {0, 1}
# Removals of others are not asserted again.
BY_EXTERNAL_ID = {*range(7), 11}

SHARE = 1 / 3
RUNS_TO_HEAL = 3
HARMLESS = (
    "423",
    "429-bare",
    "429-retry-after-date",
    "429-reset-epoch",
    "5xx-before",
    "5xx-after",
    "cut-before",
    "cut-after",
    "errors-before",
    "errors-after",
    "unclear-after",
)
# A 2xx that says nothing and was not applied looks like a success on these endpoints.
LOSING = ("unclear-before", "message-before")
FAULTS = st.dictionaries(st.sampled_from(HARMLESS), st.sampled_from([0.1, 0.3]), max_size=3)
CHANGE = st.sets(st.sampled_from(sorted(IDENTIFIERS)), max_size=6)
FATES = st.sampled_from(["goes well"] * 3 + ["dies before", "dies after", "hangs"])


class Killed(BaseException):
    """The process is gone: not even what is in its ``finally`` reaches the world any more."""


class Process:
    """Something that runs, and may die or hang at one of its deeds: a name in the ledger, or a request.

    :param fate: ``goes well``, ``dies before`` or ``dies after`` the deed, or ``hangs``: before a name is
        written, or when the answer to a request has come.
    :param at: the number of the deed.
    """

    here = threading.local()

    def __init__(self, work, fate="goes well", at=0):
        self.fate, self.at = fate, at
        self.deeds = 0
        self.dead = False
        self.report = self.error = None
        self.sent = []
        self.looked_at = 0  # of what it sent
        self.acknowledged = set()
        self._told = queue.SimpleQueue()
        self._wakes = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)

    def go(self):
        """Let it run; tell whether it has ended: else it hangs."""
        if self._thread.ident is None:
            self._thread.start()
        else:
            self._wakes.set()
        ended = self._told.get(timeout=120)
        if ended:
            self._thread.join()
        return ended

    def kill(self):
        self.dead = True
        self.go()

    def do(self, deed, *, answered):
        if self.dead:
            raise Killed
        self.deeds += 1
        fate = self.fate if self.deeds == self.at else "goes well"
        self._meet(fate, "dies before", hangs=not answered)
        result = deed()
        self._meet(fate, "dies after", hangs=answered)
        return result

    def _meet(self, fate, death, *, hangs):
        if fate == death:
            self.dead = True
            raise Killed
        if fate == "hangs" and hangs:
            self._told.put(False)
            self._wakes.wait()
            if self.dead:
                raise Killed

    def _run(self, work):
        Process.here.now = self
        try:
            self.report = work(self)
        except BaseException as error:  # noqa: BLE001 - looked at by who started it
            self.error = error
        self._told.put(True)


def as_deed(real):
    """Let a process die or hang where it names a file."""

    def deed(*args, **kwargs):
        process = getattr(Process.here, "now", None)
        if process is None:
            return real(*args, **kwargs)
        return process.do(lambda: real(*args, **kwargs), answered=False)

    return deed


class Wire(HTTPAdapter):
    """The way to Braze; it keeps what was sent, and a process may die or hang on it."""

    def __init__(self, process):
        super().__init__()
        self.process = process

    def send(self, request, *args, **kwargs):
        def deed():
            self.process.sent.append(request.body)
            response = super(Wire, self).send(request, *args, **kwargs)
            assert response.content is not None  # read, so that the connection is closed with its pool
            return response

        return self.process.do(deed, answered=True)


class Timeless:
    """A clock that is there at once."""

    passed = 0.0

    def now(self):
        return time.time() + self.passed

    def monotonic(self):
        return time.monotonic() + self.passed

    def sleep(self, seconds):
        self.passed += seconds


class OneAfterTheOther:
    """A pool that sends when it is told to: the same steps give the same run."""

    def __init__(self, *_args, **_kwargs):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        pass

    def submit(self, function, *args):
        future = Future()
        try:
            future.set_result(function(*args))
        except BaseException as error:  # noqa: BLE001 - a future's business
            future.set_exception(error)
        return future

    def shutdown(self, **_how):
        pass


class Small(Nightly):
    """Two people in a request, no pace, and a client that belongs to a process."""

    @contextmanager
    def client_of(self, process, attempts):
        keys = BrazeKeys(
            rest_api_key=connections.REST_API_KEY,
            partner_api_key=connections.PARTNER_API_KEY,
            data_import_key=connections.DATA_IMPORT_KEY,
        )
        session, clock = requests.Session(), Timeless()
        session.trust_env = False
        session.mount("http://", Wire(process))
        retry = RetryPolicy(attempts=attempts)
        transport = Transport(session, self.sandbox.url, retry=retry, clock=clock)
        limits = BrazeLimits(cohort=Limit(1_000_000, 1.0))
        with BrazeClient(transport, keys, limits, clock=clock) as client:
            yield client

    def sender(self, client):
        sender = super().sender(client)
        sender.rows_per_request = 2
        return sender


@dataclass
class Made:
    """A plan that is in the log, with the world as it was before."""

    plan: Plan
    wanted: set
    adds: set
    removes: set
    damping: Damping
    held_before: set
    sure_before: bool
    absent: dict


COUNTS: Counter = Counter()


class Nights(RuleBasedStateMachine):
    """The model; see the module."""

    sandbox: Any = None
    make_folder: Any = None

    def __init__(self):
        super().__init__()
        self.sandbox.reset()
        self.nightly = Small(self.sandbox, self.make_folder())
        self.ledger = self.nightly.ledger
        self._fill_braze()
        self.seen = len(self.sandbox.requests())
        self.segment = {0, 2, 3, 7, 9}
        self.gained = {11}
        self.name = "Cohort"
        self.night = 0
        self.runs = []  # (request, attempts) of every run, the newest last
        self.drafts = []
        self.finished = {}  # run id to the identifiers that it left, and who had an external id then
        self.hanging = []
        self.wanted_of = {}  # fingerprint to people
        self.sizes = {}  # fingerprint to identifiers
        self.made = {}  # plan id to what is known of it
        self.entries = 0
        self.ours = set()  # identifiers that a plan of ours added
        self.astray = {}  # whose last change Braze lost, with the number of plans that asserted a slice since
        self.absent = defaultdict(set)  # the times of runs in which somebody was absent, in a row
        self.strays = set()  # of whom the ledger does not know whether they are held
        self.damaged = False
        self.held = set()
        self.sound = True
        COUNTS["examples"] += 1

    def _fill_braze(self):
        users = [
            {
                "external_id": f"user-{number}",
                "aliases": [{"alias_name": f"mail-{number}", "alias_label": "email"}],
            }
            for number in (*GAINING, 11)
        ]
        users.append({"device_ids": ["phone-9"]})
        users.append(
            {"aliases": [{"alias_name": "mail-10", "alias_label": "email"}], "device_ids": ["phone-10"]}
        )
        users += [{"external_id": stranger} for stranger in STRANGERS]
        self.sandbox.add_users(users, count=7)
        process = Process(None)
        with self.nightly.client_of(process, 1) as client:
            sender = self.nightly.sender(client)
            rows = [("external_id", stranger, "", False) for stranger in sorted(STRANGERS)]
            sender.send(Batch(range(len(rows)), rows), lane=None, check=lambda: None)

    # ---- what people and Airflow do

    @rule(person=st.sampled_from(GAINING))
    def somebody_gains_an_external_id(self, person):
        self.gained.add(person)

    @rule(
        data=st.fixed_dictionaries(
            {
                "members": CHANGE,
                "name": st.sampled_from(["Cohort", "Cohort", "Another name"]),
                "force_full": st.sampled_from([False, False, False, True]),
                "share": st.sampled_from([0, SHARE, SHARE]),
                "runs": st.sampled_from([1, 1, 3]),
                "attempts": st.sampled_from([1, 2, 8]),
                "rates": FAULTS,
                "loses": st.sampled_from([None, None, *LOSING]),
                "refuses": st.sampled_from([False, False, True]),
                "seed": st.integers(0, 50),
                "fate": FATES,
                "at": st.integers(1, 24),
            }
        )
    )
    def run(self, data):
        self.segment ^= data["members"]
        self.name = data["name"]
        self._faults(data)
        request = self._request(data["force_full"], data["share"], data["runs"])
        self._start(request, data["attempts"], data["fate"], data["at"])

    @precondition(lambda self: self.runs)
    @rule(
        back=st.sampled_from([0, 0, 0, 1]),
        members=st.one_of(st.none(), CHANGE),
        rates=FAULTS,
        seed=st.integers(0, 50),
        fate=FATES,
        at=st.integers(1, 24),
    )
    def come_back(self, back, members, rates, seed, fate, at):
        """A retry, or a cleared task: with the same match, or with a new one."""
        request, attempts = self.runs[-1 - min(back, len(self.runs) - 1)]
        if members is not None:
            self.segment ^= members
            request = self._request_like(request)
        self._faults({"rates": rates, "seed": seed})
        self._start(request, attempts, fate, at)

    @rule(members=CHANGE)
    def draft(self, members):
        self.segment ^= members
        request = self._request(force_full=False, share=0, runs=1)
        try:
            self.drafts.append((make_plan(self.ledger, self.ledger.last(), request), request))
        except LedgerDamagedError:
            assert self.damaged

    @precondition(lambda self: self.drafts)
    @rule(fate=FATES, at=st.integers(1, 24))
    def apply_a_draft(self, fate, at):
        plan, request = self.drafts[-1]
        self._faults({})

        def apply(process):
            with self.nightly.client_of(process, 8) as client:
                return self.nightly.sync(client).apply(plan.plan_id, f"apply-{plan.plan_id}", ANYTHING_GOES)

        self._let(Process(apply, fate, at), replace(request, run_id=f"apply-{plan.plan_id}"))

    @precondition(lambda self: self.finished)
    @rule(which=st.integers(0, 5), fate=FATES, at=st.integers(1, 24))
    def undo(self, which, fate, at):
        request = self._restore(which)
        if request is not None:
            self._faults({})
            self._start(request, 8, fate, at)

    @precondition(lambda self: self.hanging)
    @rule(which=st.integers(0, 3))
    def one_wakes_up(self, which):
        process, request, entries, attempts = self.hanging.pop(which % len(self.hanging))
        self._faults({})
        lost = self._is_lost(request, entries, attempts)
        sent = len(process.sent)
        self._go_on(process, request)
        if lost:
            assert isinstance(process.error, PlaceLostError), process.error
            assert len(process.sent) == sent, "it must stop before its next batch"
            COUNTS["lost its place"] += 1

    @precondition(lambda self: not self.hanging and self.entries)
    @rule(
        members=CHANGE,
        which=st.integers(0, 30),
        how=st.sampled_from(["missing", "emptied", "torn", "garbage"]),
        by_force=st.booleans(),
        undone=st.integers(0, 5),
        at=st.integers(1, 24),
        again=st.one_of(st.none(), st.integers(0, 30)),
    )
    def a_file_is_damaged(self, members, which, how, by_force, undone, at, again):
        """A run stops or does not need the file; ``force_full`` and restoring end exact, even if they die."""
        self.segment ^= members
        self._damage(which, how)
        self._faults({})
        stopped = self._start(self._request(force_full=False, share=0, runs=1), 8)
        if not isinstance(stopped.error, LedgerDamagedError):
            return
        COUNTS["stopped by damage"] += 1
        request = None if by_force or not self.finished else self._restore(undone)
        request = request or self._request(force_full=True, share=0, runs=1)
        if self._start(request, 8, "dies after", at).report is None:
            if again is not None:
                self._damage(again, how)
            went_on = self._start(request, 8)
            assert went_on.report is not None, went_on.error
        COUNTS["recovered"] += 1

    def teardown(self):
        if not self.sound:  # what went wrong is to be seen, not what follows from it
            for process, *_ in self.hanging:
                process.kill()
            return
        while self.hanging:
            self.one_wakes_up(0)
        self._faults({})
        request = self._request(force_full=False, share=0, runs=1)
        if isinstance(self._start(request, 8).error, LedgerDamagedError):
            request = self._request(force_full=True, share=0, runs=1)
            assert self._start(request, 8).report is not None

    # ---- how it is done

    def _faults(self, data):
        rates = {**data.get("rates", {})}
        if data.get("loses"):
            rates[data["loses"]] = 0.1
        self.sandbox.faults(
            rates=rates,
            seed=data.get("seed", 0),
            wait=0,
            poison=[f"user-{person}" for person in REFUSED] if data.get("refuses") else [],
            endpoints=["cohort-users"] if data.get("loses") else None,
        )
        self.failing = bool(rates)

    def _rows(self):
        return [self._row(person) for person in sorted(self.segment)]

    def _row(self, person):
        if person == 9:
            return ["", "", "phone-9", ""]
        if person == 10:
            return ["", "mail-10", "phone-10", "true"]
        if person in GAINING or person == 11:
            return [f"user-{person}" if person in self.gained else "", f"mail-{person}", "", "true"]
        return f"user-{person}"

    def _request(self, force_full, share, runs, run_id=None, as_of=None):
        if run_id is None:
            self.night += 1
            run_id = f"dag/night-{self.night}/import"
            as_of = (datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=self.night)).isoformat()
        request = self.nightly.request(
            self._rows(),
            run_id,
            force_full=force_full,
            name=self.name,
            as_of=as_of,
            reassert_share=share,
            damping=Damping(runs),
        )
        self.wanted_of[request.match.fingerprint] = set(self.segment)
        self.sizes[request.match.fingerprint] = len(self.segment)
        return request

    def _request_like(self, other):
        if other.run_id.startswith("dag/undo"):
            return other
        return self._request(
            other.force_full, other.reassert_share, other.damping.runs, other.run_id, other.as_of
        )

    def _restore(self, which):
        """Ask for what an earlier run left; None where it cannot be had."""
        run_id = sorted(self.finished)[which % len(self.finished)]
        held, gained = self.finished[run_id]
        if gained != self.gained:
            return None  # nothing in the ledger tells that two identifiers are of one person
        root = self.nightly.folder / "ledger"
        try:
            commit = find_run(self.ledger, run_id)
            match = match_of_run(self.ledger, commit, root)
        except (ConfigurationError, LedgerDamagedError):
            assert self.damaged
            return None
        self.night += 1
        self.wanted_of[match.fingerprint] = people(held)
        self.sizes[match.fingerprint] = len(held)
        return Request(
            run_id=f"dag/undo-{self.night}/restore",
            match=match,
            match_folder=root / "matches" / match.fingerprint,
            kinds=COHORT_KINDS,
            name=commit.name,
            force_full=False,
            as_of=(datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=self.night)).isoformat(),
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
        self.sure_before = self._last_is_commit()
        self.done_before = self._settled_before()
        self._go_on(process, request)
        return process

    def _go_on(self, process, request):
        self.sound = False
        ended = process.go()
        self._notice(process, request)
        if not ended:
            COUNTS["hung"] += 1
            plan = self._plan_of(request)
            self.hanging.append((process, request, self.entries, self._attempts(plan) if plan else 0))
        elif process.error is None:
            COUNTS["finished"] += 1
            self._check_finished(process.report)
        else:
            self._check_stopped(process)
        self.sound = True

    def _plan_of(self, request):
        plans = [made.plan for made in self.made.values() if made.plan.run_id == request.run_id]
        return plans[-1] if plans else None

    def _attempts(self, plan):
        return sum(1 for _ in self.ledger.path(f"{plan.folder}/attempts").glob("[0-9]*[0-9].json"))

    def _is_lost(self, request, entries, attempts):
        """Tell whether others took its place over while it hung."""
        plan = self._plan_of(request)
        return self.entries > entries or (plan is not None and self._attempts(plan) > attempts)

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
            file.write_bytes(
                {
                    "emptied": b"",
                    "torn": data[: len(data) // 2],
                    "garbage": random.Random(which).randbytes(len(data)),
                }[how]
            )
        COUNTS[f"damaged: {kind}"] += 1
        self.damaged = True

    # ---- what must hold

    def _log(self):
        """Return the entries that can be read, oldest first."""
        return sorted(self.ledger.recent_entries(10**8), key=lambda entry: entry.number)

    def _last_is_commit(self):
        log = self._log()
        return bool(log) and isinstance(log[-1], Commit)

    def _settled_before(self):
        """Return the open plan with the identifiers in it that have an answer."""
        log = self._log()
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

    def _notice(self, process, request):
        """See what a process did until now."""
        held_before = self.held
        for entry in self._log():
            if entry.number > self.entries:
                if isinstance(entry, Plan):
                    self._notice_plan(entry, request, held_before)
                self.entries = entry.number
        self._notice_requests(process)
        members = set(self.sandbox.cohort(COHORT_ID)["members"])
        assert members >= STRANGERS, "nobody is removed whom we did not add"
        self.held = {SHOWN[member] for member in members - STRANGERS}

    def _notice_plan(self, plan, request, held_before):
        rows = self._changes(plan)
        adds = {identifier for identifier, remove in rows if not remove}
        removes = {identifier for identifier, remove in rows if remove}
        assert len(adds) + len(removes) == len(rows) == plan.rows
        assert not people(adds) & people(removes), "nobody is both added and removed"
        assert removes <= self.ours, "only whom we added is removed"
        self.ours |= adds
        wanted = self.wanted_of[plan.fingerprint]
        for person in IDENTIFIERS:
            if person in wanted or not request.damping or plan.recovery:
                self.absent[person] = set()
            else:
                self.absent[person] = self.absent[person] | {plan.as_of}
        for person in self.astray:
            if request.force_full or plan.recovery:
                self.astray[person] = RUNS_TO_HEAL
            elif request.reassert_share:
                self.astray[person] += 1
        self.made[plan.plan_id] = Made(
            plan, wanted, adds, removes, request.damping, held_before, self.sure_before, dict(self.absent)
        )

    def _notice_requests(self, process):
        """Hold what was sent against what was settled before, and see what Braze lost."""
        entries = self.sandbox.requests(since=self.seen)
        self.seen += len(entries)
        sent, process.looked_at = process.sent[process.looked_at :], len(process.sent)
        bodies = {hashlib.sha256(body).hexdigest(): body for body in sent}
        plan_id, done = self.done_before
        log = self._log()
        goes_on = bool(log) and log[-1].plan_id == plan_id
        for entry in entries:
            changes = json.loads(bodies[entry["body_sha256"]]).get("cohort_changes", [])
            adds, removes = named(changes, leaving=False), named(changes, leaving=True)
            both = adds | removes
            COUNTS["requests"] += 1
            assert removes <= self.ours
            assert adds <= self.ours
            assert not both & process.acknowledged, "they had been acknowledged"
            if goes_on:
                assert not both & done, "they were recorded as settled"
            accepted = entry["status"] in {200, 201} and not str(entry["fault"]).startswith("errors")
            if accepted:
                process.acknowledged |= both
            for person in people(both):
                if entry["applied"]:
                    self.astray.pop(person, None)
                    self.strays.discard(person)
                elif accepted:
                    self.astray[person] = 0
                    COUNTS["lost by Braze"] += 1

    def _check_stopped(self, process):
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
        elif not isinstance(error, PlaceLostError):
            raise error

    def _check_finished(self, report):
        commit = self._log()[-1]
        assert isinstance(commit, Commit)
        assert report["plan_id"] == commit.plan_id
        made = self.made[commit.plan_id]
        self._check_numbers(report, made, commit)
        rows = self._changes(made.plan)
        refused = people(rows[row][0] for row in self.ledger.settled(commit.plan_id).rejected)
        if not made.sure_before:
            # An earlier plan may have added them, this one could not remove them: nobody keeps that in mind.
            self.strays |= refused
        if made.plan.recovery and made.plan.recovery["lost"]:
            self.strays |= (self.held - made.wanted) & people(self.ours)
        leavers = {
            person
            for person in self.held - made.wanted
            if 0 < len(made.absent.get(person, ())) < made.damping.runs
        }
        wrong = (self.held ^ made.wanted) - leavers - refused - self.strays
        assert wrong <= self.astray.keys(), "the cohort is the segment"
        overdue = {person for person in wrong if self.astray[person] >= RUNS_TO_HEAL}
        assert not overdue & BY_EXTERNAL_ID, "what Braze lost heals within so many runs"
        for person in wrong & (made.adds | made.removes):
            self.astray[person] = 0
        self._check_leavers(made, refused)
        self._check_snapshot(commit, refused)
        if report["name"] is not None:
            assert self.sandbox.cohort(COHORT_ID)["name"] == report["name"]
        self.finished[commit.run_id] = (self._snapshot(commit), set(self.gained))

    def _check_numbers(self, report, made, commit):
        steps = report["waterfall"]
        assert steps["members"] == steps["wanted"] == self.sizes[made.plan.fingerprint]
        assert steps["wanted"] == steps["unchanged"] + steps["adds"]
        assert steps["planned"] == steps["adds"] + steps["removes"]
        assert steps["planned"] == steps["acknowledged"] + sum(steps["rejected"].values())
        assert report["size"] == commit.size == len(self._snapshot(commit))

    def _check_leavers(self, made, refused):
        """Whoever is not absent for long enough stays, where nothing is in doubt."""
        if not made.sure_before or made.plan.recovery:
            return
        for person, times in made.absent.items():
            if person in made.held_before and 0 < len(times) < made.damping.runs:
                in_doubt = self.astray.keys() | refused | self.strays | REFUSED
                assert person in self.held or person in in_doubt, "a leaver stays for a while"

    def _check_snapshot(self, commit, refused):
        differ = people(self._snapshot(commit)) ^ self.held
        assert differ <= self.astray.keys() | refused | self.strays

    def _snapshot(self, commit):
        if commit.snapshot is None:
            return []
        table = pq.read_table(self.ledger.path(commit.snapshot)).to_pylist()
        return [(row["kind"], row["value"], row["label"]) for row in table]


def people(identifiers):
    return {PERSON[identifier] for identifier in identifiers}


def named(changes, *, leaving):
    """Return the identifiers that a request names."""
    return {
        identifier
        for change in changes
        if change.get("should_remove", False) is leaving
        for identifier in (
            *(("external_id", value, "") for value in change.get("user_ids", [])),
            *(("device_id", value, "") for value in change.get("device_ids", [])),
            *(("alias", one["alias_name"], one["alias_label"]) for one in change.get("aliases", [])),
        )
    }


@pytest.mark.timeout(0 if EXAMPLES else 300)
def test_whatever_goes_wrong_the_cohort_is_exact(heapbraze_sandbox, tmp_path_factory, monkeypatch):
    monkeypatch.setattr(os, "link", as_deed(os.link))
    monkeypatch.setattr(os, "replace", as_deed(os.replace))
    monkeypatch.setattr(os, "fsync", lambda _: None)  # no power is cut here
    monkeypatch.setattr(delivery, "ThreadPoolExecutor", OneAfterTheOther)
    monkeypatch.setitem(delivery.Delivery.__init__.__kwdefaults__, "connections", 1)
    monkeypatch.setattr(delivery, "CHECK_SECONDS", 0)  # whoever hangs, hangs for long
    monkeypatch.setattr(account, "FLUSH_BATCHES", 1)
    monkeypatch.setattr(sync, "LOSER_STOPS_WITHIN", 0)  # nothing is under way when it hangs or is dead

    @seed(int(os.environ.get("HEAPBRAZE_SEED", "4")))
    class Here(Nights):
        sandbox = heapbraze_sandbox

        def make_folder(self):
            return tmp_path_factory.mktemp("model")

    run_state_machine_as_test(
        Here,
        settings=settings(
            max_examples=EXAMPLES or 6,
            stateful_step_count=30 if EXAMPLES else 15,
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
