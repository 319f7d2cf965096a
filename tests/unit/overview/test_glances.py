"""What is said of a record in one folder: right whoever dies and whenever, and few requests."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import asdict
from itertools import combinations
from pathlib import PurePosixPath
from uuid import uuid4

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from upath import UPath

from airflow_provider_heapbraze import glances
from airflow_provider_heapbraze.clients.errors import TransientError
from airflow_provider_heapbraze.membership.ledger import found_target
from airflow_provider_heapbraze.overview import index as overview_index
from airflow_provider_heapbraze.overview.index import Index
from airflow_provider_heapbraze.overview.keeping import keep_in_view, kept_in_view
from airflow_provider_heapbraze.overview.records import summarise
from airflow_provider_heapbraze.overview.summary import UNFINISHED, Summary
from airflow_provider_heapbraze.segments.verification import last_commit, write_verification
from tests.unit.overview import ledgers
from tests.unit.overview.conftest import people

VERIFIED = {"check": "existence", "sample": 5, "unknown": 0, "not_checkable": 0, "claim": "All exist."}
KEY = ("targets", "cohort-a")


@pytest.fixture
def asked(monkeypatch):
    """Count what a store is asked, by the kind of request and the folder of the ledger."""
    counts = Counter()

    def counting(kind, method):
        def ask(self, path, *args, **how):
            inside = PurePosixPath(str(path)).parts
            counts[kind, inside[inside.index("ledger") + 1] if "ledger" in inside[:-1] else ""] += 1
            return method(self, path, *args, **how)

        return ask

    for kind, name in (("list", "ls"), ("look", "info"), ("read", "_open"), ("read", "cat_file")):
        monkeypatch.setattr(MemoryFileSystem, name, counting(kind, getattr(MemoryFileSystem, name)))
    return counts


@pytest.fixture
def ended(nightly):
    """Give a target whose last run said how it is."""
    keep_in_view(nightly.ledger)
    return nightly


def only(index):
    (summary,) = index.summaries()
    return summary


def newest(nightly):
    (name,) = glances.newest(nightly.folder / "ledger").values()
    return name


def from_the_log(nightly):
    return summarise(nightly.folder / "ledger", "targets", nightly.ledger.folder.name)


def test_what_was_said_is_what_the_log_has(ended):
    write_verification(ended.ledger, last_commit(ended.ledger), VERIFIED)
    keep_in_view(ended.ledger)
    record = glances.read(ended.folder / "ledger", newest(ended))
    assert Summary.of(record) == from_the_log(ended)
    assert only(Index(ended.folder / "ledger")) == from_the_log(ended)


def test_of_a_record_the_newest_alone_is_kept(ended):
    ended.run(people(range(5, 33)), "cohorts/run-2/import")
    keep_in_view(ended.ledger)
    assert len(list((ended.folder / "ledger" / "glances").iterdir())) == 1


def test_nobody_is_named_in_it(ended):
    assert "user-" not in json.dumps(glances.read(ended.folder / "ledger", newest(ended)))


@pytest.mark.usefixtures("at_once")
def test_a_run_that_was_killed_before_it_could_say_so(ended, leave_unfinished):
    index = Index(ended.folder / "ledger")
    assert only(index).state == "whole"
    leave_unfinished()
    for seen in (index, Index(ended.folder / "ledger")):
        assert (only(seen).state, only(seen).run_id) == ("unfinished", "cohorts/run-2/import")
    ended.run(people(range(5, 35)), "cohorts/run-2/import", name="Another name")
    for seen in (index, Index(ended.folder / "ledger")):
        assert (only(seen).state, only(seen).adds) == ("whole", 5)


@pytest.mark.usefixtures("at_once")
def test_a_verification_that_was_killed_before_it_could_say_so(ended):
    index = Index(ended.folder / "ledger")
    assert only(index).verified is None
    write_verification(ended.ledger, last_commit(ended.ledger), VERIFIED)
    assert only(index).verified.checked == only(Index(ended.folder / "ledger")).verified.checked == 5


def test_of_an_unfinished_run_nothing_is_said(ended, leave_unfinished):
    leave_unfinished()
    with pytest.raises(TransientError), kept_in_view(ended.ledger):
        raise TransientError("Braze does not answer.")
    assert not glances.is_known(newest(ended))


def test_what_cannot_be_said_fails_no_run(nightly, caplog):
    folder = nightly.folder / "ledger" / "glances"
    shutil.rmtree(folder)
    folder.write_text("in the way")
    with kept_in_view(nightly.ledger):
        pass
    assert "nothing else is missing" in caplog.text
    assert only(Index(nightly.folder / "ledger")).size == 30


@pytest.mark.parametrize(
    "said", [b"{", b'{"format": 1}', b'{"format": 1, "group": "targets"}', b'{"format": 2}']
)
def test_what_another_version_said_is_not_believed(ended, said):
    (ended.folder / "ledger" / "glances" / newest(ended)).write_bytes(said)
    assert only(Index(ended.folder / "ledger")) == from_the_log(ended)


@pytest.mark.usefixtures("at_once")
def test_what_came_without_a_word_is_found_by_a_closer_look(ended, leave_unfinished, monkeypatch):
    """An older version wrote to the log, or it is one from a backup."""
    index = Index(ended.folder / "ledger")
    said = newest(ended)
    leave_unfinished()
    for path in (ended.folder / "ledger" / "glances").iterdir():
        if path.name != said:
            path.unlink()
    assert only(index).state == "whole"
    monkeypatch.setattr(overview_index, "PAUSE_SECONDS", 0.0)
    index.read_logs()
    assert only(index).state == "unfinished"
    ended.run(people(range(5, 35)), "cohorts/run-2/import", name="Another name")
    assert only(index).state == "whole"


@pytest.mark.usefixtures("at_once")
def test_every_log_is_read_now_and_then(ended, monkeypatch):
    """Nobody has to ask for it; what was lost meanwhile is seen."""
    monkeypatch.setattr(overview_index, "PAUSE_SECONDS", 0.0)
    next(ended.ledger.path("snapshots").iterdir()).unlink()
    index = Index(ended.folder / "ledger")
    while only(index).state != "damaged":
        pass


def orders():
    """Give every order of the steps of two runs of one target, as which of the two is next."""
    for rest in combinations(range(1, 10), 4):
        yield [0 if place in {0, *rest} else 1 for place in range(10)]


class Steps:
    """A run of a target that only has a log, step by step; it may stop for good after each."""

    def __init__(self, ledger, name):
        self.ledger, self.name = ledger, name
        self.steps = iter((self.announce, self.plan, self.commit, self.look, self.say))

    def go_on(self):
        if (step := next(self.steps, None)) is not None and step() is False:
            self.steps = iter(())

    def announce(self):
        self.number = max((int(path.name[:8]) for path in self.log()), default=0) + 1
        glances.announce(self.ledger.folder, self.number)

    def plan(self):
        return self.take(self.number, {"kind": "plan", "run_id": self.name, "held": 0})

    def commit(self):
        entry = {"kind": "commit", "run_id": self.name, "snapshot": None, "report": "none", "size": 1}
        return self.take(self.number + 1, entry)

    def look(self):
        self.at, self.seen = glances.now(), look(self.ledger)

    def say(self):
        if self.seen.state != UNFINISHED:
            glances.keep(self.ledger.folder, self.seen.number, self.at, asdict(self.seen))

    def take(self, number, entry):
        try:
            self.ledger.take_place(number, {**entry, "number": number})
        except FileExistsError:
            return False

    def log(self):
        folder = self.ledger.path("log")
        return list(folder.iterdir()) if folder.exists() else []


def look(ledger):
    return summarise(ledger.folder.parent.parent, "targets", ledger.folder.name)


def test_what_was_said_is_right_in_every_order_of_two_runs_at_every_moment():
    """At each moment everybody may be killed: what is there then is what the next look finds."""
    for order in orders():
        ledger = found_target(UPath(f"memory://{uuid4().hex}/ledger"), "cohort-a")
        runs = [Steps(ledger, "dag/a/import"), Steps(ledger, "dag/b/import")]
        for which in order:
            runs[which].go_on()
            root = ledger.folder.parent.parent
            said = glances.read(root, glances.newest(root).get(KEY, ""))
            assert said is None or Summary.of(said) == look(ledger), order


@pytest.mark.usefixtures("at_once")
def test_a_look_lists_three_folders_and_reads_what_is_new(asked, tmp_path):
    """However many runs there were; and a further look reads nothing."""
    root = UPath(f"memory://{uuid4().hex}/ledger")
    for number in range(20):
        ledgers.cohort(tmp_path, f"cohort-{number}", nights=3)
    copy(tmp_path, root)
    asked.clear()
    index = Index(root)
    assert len(index.summaries()) == 20
    assert count(asked, "read") == {"glances": 20}
    assert count(asked, "list") == {"glances": 1, "targets": 1}, "there is no folder of sources"
    first = index.summaries()
    asked.clear()
    assert index.summaries() == first
    assert count(asked, "read") == {}
    assert sum(asked.values()) <= 6


def copy(folder, root):
    for path in folder.rglob("*.*"):
        if path.is_file():
            (root / path.relative_to(folder)).write_bytes(path.read_bytes())


def count(asked, kind):
    return {where: number for (what, where), number in asked.items() if what == kind}
