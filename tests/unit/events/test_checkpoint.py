"""What is known of a source survives everything: a run that dies, a run that takes over, a damaged file."""

from __future__ import annotations

import json
import time
from array import array
from collections import Counter
from dataclasses import dataclass, field
from uuid import uuid4

import pytest
import requests
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyroaring import BitMap
from upath import UPath

from airflow_provider_heapbraze.clients.event_budget import EventBudget, EventLimits
from airflow_provider_heapbraze.clients.heap import HeapClient
from airflow_provider_heapbraze.clients.transport import Transport
from airflow_provider_heapbraze.events.checkpoint import Checkpoint
from airflow_provider_heapbraze.events.export import Export, ExportRequest
from airflow_provider_heapbraze.events.mapping import EventMapping, MappingRules
from airflow_provider_heapbraze.events.progress import Progress
from airflow_provider_heapbraze.events.seen import id_key
from airflow_provider_heapbraze.events.source_ledger import ExportTarget, SourceLedger
from airflow_provider_heapbraze.events.sources import SourceFile
from airflow_provider_heapbraze.ledger_folder import LedgerDamagedError, PlaceLostError
from airflow_provider_heapbraze.sandbox.connections import HEAP_APP_ID

quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

SECRET = "secret-app-id-0001"
TARGET = ExportTarget("s3://bucket/currents", f"https://heap.example {SECRET}")
WINDOW = 6
ROWS = 4
FILES = [SourceFile(None, f"date=2026-11-24-{number:02d}/part.avro", 100 + number) for number in range(3)]
A, B, C = FILES


@pytest.fixture(params=["local", "object store"])
def make_ledger(request, tmp_path):
    """Make a ledger in a place of its own."""

    def make():
        name = f"ledger-{uuid4().hex}"
        root = tmp_path / name if request.param == "local" else UPath(f"memory://{name}")
        return SourceLedger(root, TARGET)

    return make


@pytest.fixture
def ledger(make_ledger):
    return make_ledger()


@pytest.fixture
def local_ledger(tmp_path):
    return SourceLedger(tmp_path / "ledger", TARGET)


class Run:
    """A run that works on a source as an export does, with no events."""

    def __init__(self, ledger, run_id="run-1", *, claim=True):
        self.run_id = run_id
        self.known = Checkpoint(ledger, window=WINDOW)
        if claim:
            self.known.claim(run_id)
        self.progress = Progress()

    def send(self, file, *rows):
        state = self.known.state(file)
        state.doubtful |= BitMap(rows)
        self.progress.of(state).sending |= BitMap(rows)
        self.known.keep(state)

    def settle(self, file, *rows):
        state = self.known.state(file)
        state.settled |= BitMap(rows)
        state.doubtful -= BitMap(rows)
        self.progress.of(state).settled |= BitMap(rows)
        self.progress.counts["events"] += len(rows)
        self.known.keep(state)

    def end(self, file, bad=""):
        """Note that a file was read to its end, or could not be."""
        state = self.known.state(file)
        state.rows, state.bad, state.bad_run = ROWS, bad, self.run_id if bad else ""
        change = self.progress.of(state)
        change.rows, change.bad = ROWS, bad
        self.known.keep(state)

    def finish(self, file):
        self.end(file)
        self.settle(file, *range(ROWS))

    def sent(self, hour, key):
        self.progress.ids[hour].append(key)
        self.known.seen.add(hour, key)

    def record(self):
        self.known.record(self.progress)
        self.progress = Progress()


def reload(ledger):
    return Checkpoint(ledger, window=WINDOW)


def about(known, file):
    """Return what is known of a file, to compare; None where it is done."""
    state = known.state(file)
    if state is None:
        return None
    return sorted(state.settled), sorted(state.doubtful), state.rows, state.bad, state.bad_run


def files_of(ledger, folder):
    path = ledger.path(folder)
    return sorted(file.name for file in path.iterdir()) if path.exists() else []


def everything_in(ledger):
    """Return name and content of every file of the ledger."""
    return {
        path.path if hasattr(path, "fs") else str(path): path.read_bytes() for path in below(ledger.folder)
    }


def below(folder):
    for path in folder.iterdir():
        if path.is_dir():
            yield from below(path)
        else:
            yield path


def test_nothing_is_known_of_a_new_source(ledger):
    known = reload(ledger)
    assert about(known, A) == ([], [], None, "", "")
    assert (known.bad_files(), known.counts) == ([], {})


def test_what_was_sent_without_an_answer_is_in_doubt(ledger):
    run = Run(ledger)
    run.send(A, 0, 1, 2)
    run.record()
    run.settle(A, 1)
    run.record()
    for known in (run.known, reload(ledger)):
        assert about(known, A) == ([1], [0, 2], None, "", "")
    run.settle(A, 0, 2)
    run.record()
    assert about(reload(ledger), A) == ([0, 1, 2], [], None, "", "")


def test_what_was_not_recorded_is_not_known(ledger):
    run = Run(ledger)
    run.send(A, 0)
    assert about(reload(ledger), A) == ([], [], None, "", "")


def test_a_file_is_done_when_it_was_read_to_its_end_and_all_is_settled(ledger):
    run = Run(ledger)
    run.settle(A, *range(ROWS))
    run.end(B)
    run.finish(C)
    run.record()
    assert [about(reload(ledger), file) is None for file in FILES] == [False, False, True]
    run.end(A)
    run.record()
    assert [about(reload(ledger), file) is None for file in FILES] == [True, False, True]


def test_a_file_of_the_same_name_and_another_size_is_another(ledger):
    run = Run(ledger)
    run.finish(A)
    run.record()
    assert about(reload(ledger), SourceFile(None, A.name, A.size + 1)) == ([], [], None, "", "")


def test_a_bad_file_is_known_with_its_reason_until_it_can_be_read(ledger):
    run = Run(ledger)
    run.settle(A, *range(ROWS))
    run.end(A, bad="it is cut off")
    run.record()
    for commit in (lambda: None, run.known.commit):
        commit()
        known = reload(ledger)
        assert about(known, A) == ([0, 1, 2, 3], [], ROWS, "it is cut off", "run-1")
        assert [state.name for state in known.bad_files()] == [A.name]
    run.end(A)
    run.record()
    assert about(reload(ledger), A) is None
    assert reload(ledger).bad_files() == []


def test_a_run_that_comes_back_goes_on_with_its_numbers(ledger):
    run = Run(ledger)
    for commit in (False, True):
        run.settle(A, int(commit))
        run.record()
        if commit:
            run.known.commit()
    run.settle(A, 2)
    run.record()
    assert Run(ledger, "run-2").known.counts == {}
    assert Run(ledger, "run-1").known.counts == {"events": 3}


def test_a_run_that_came_to_its_end_begins_anew(ledger):
    run = Run(ledger)
    run.settle(A, 0)
    run.record()
    run.known.commit(report=run.known.write_report({"run_id": "run-1"}))
    assert Run(ledger).known.counts == {}
    assert about(reload(ledger), A) == ([0], [], None, "", "")


def test_reports_and_what_is_kept_aside_stay(ledger):
    run = Run(ledger)
    aside = run.known.keep_aside([b'{"row": 1}', b'{"row": 2}'])
    report = run.known.write_report({"run_id": "run-1", "events": 2})
    for _ in range(4):
        run.known.commit(report=report)
    assert ledger.path(aside).read_bytes() == b'{"row": 1}\n{"row": 2}\n'
    assert json.loads(ledger.path(report).read_bytes())["events"] == 2


def test_files_that_are_gone_are_forgotten(ledger):
    run = Run(ledger)
    run.finish(A)
    run.finish(B)
    run.settle(C, 1)
    run.record()
    run.known.commit(listed=array("q", [B.key]))
    for known in (run.known, reload(ledger)):
        assert about(known, A) == ([], [], None, "", "")
        assert about(known, B) is None
        assert about(known, C) == ([], [], None, "", "")


def test_a_run_that_takes_over_stops_the_other(ledger):
    first = Run(ledger, "run-first")
    first.send(A, 0, 1)
    first.settle(A, 0)
    first.record()
    second = Run(ledger, "run-second")
    assert about(second.known, A) == ([0], [1], None, "", "")
    before = everything_in(ledger)
    first.settle(A, 1)
    for stopped in (first.record, first.known.check, first.known.commit):
        with pytest.raises(PlaceLostError, match="run-second") as caught:
            stopped()
        assert "this run stops" in str(caught.value)
    assert everything_in(ledger) == before
    second.settle(A, 2)
    second.record()
    second.known.commit()
    with pytest.raises(PlaceLostError, match="run-second"):
        first.record()
    assert about(reload(ledger), A) == ([0, 2], [1], None, "", "")


def test_of_two_that_come_at_the_same_moment_one_gets_the_source(ledger):
    first, second = Run(ledger, "run-first", claim=False), Run(ledger, "run-second", claim=False)
    first.known.claim("run-first")
    with pytest.raises(PlaceLostError, match="run-first"):
        second.known.claim("run-second")
    first.settle(A, 0)
    first.record()
    assert about(reload(ledger), A) == ([0], [], None, "", "")


def test_a_run_that_is_taken_over_while_it_comes_stops(ledger, monkeypatch):
    """Between its claim and its first look, another run claims."""
    claim = SourceLedger.claim

    def claim_and_lose(self, number, run_id):
        claim(self, number, run_id)
        if run_id == "run-first":
            others.append(Run(ledger, "run-second"))

    others = []
    monkeypatch.setattr(SourceLedger, "claim", claim_and_lose)
    with pytest.raises(PlaceLostError, match="run-second"):
        Run(ledger, "run-first").known.check()
    (second,) = others
    second.settle(A, 0)
    second.record()
    assert about(reload(ledger), A) == ([0], [], None, "", "")


def test_a_run_that_commits_meanwhile_does_not_turn_another_away(ledger):
    first = Run(ledger, "run-first")
    second = Run(ledger, "run-second", claim=False)
    for row in range(7):
        first.settle(A, row)
        first.record()
        first.known.commit()
    second.known.claim("run-second")
    assert about(second.known, A) == (list(range(7)), [], None, "", "")
    with pytest.raises(PlaceLostError, match="run-second"):
        first.known.check()
    second.known.check()


def test_what_a_run_recorded_until_it_was_taken_over_is_known(ledger):
    """The other goes on until the claim, and its last rows must not be taken for new ones."""
    first = Run(ledger, "run-first")
    second = Run(ledger, "run-second", claim=False)
    first.send(A, 0, 1)
    first.settle(A, 0)
    first.record()
    second.known.claim("run-second")
    assert about(second.known, A) == ([0], [1], None, "", "")


def test_ids_are_known_for_the_window(ledger):
    run = Run(ledger)
    for hour in range(100, 110):
        run.sent(hour, hour)
    run.record()
    assert all((hour, hour) in reload(ledger).seen for hour in range(100, 110))
    run.known.commit()
    known = reload(ledger)
    assert [hour for hour in range(100, 110) if (hour, hour) in known.seen] == list(range(104, 110))


def test_an_hour_that_is_to_come_does_not_move_the_window(ledger):
    present = int(time.time()) // 3600
    run = Run(ledger)
    run.sent(present, 1)
    run.sent(present + 1_000, 1)
    run.record()
    run.known.commit()
    assert (present, 1) in reload(ledger).seen


def test_what_later_commits_summed_up_is_removed(ledger):
    run, before, last = Run(ledger), 0, 0
    for number in range(5):
        file = SourceFile(None, f"file-{number}", number)
        run.finish(file)
        run.send(A, number)
        run.sent(100 + number // 2, number)
        run.record()
        run.known.commit()
        before, last = last, ledger.entries()[0].number
        assert_nothing_superfluous(ledger, before)
        known = reload(ledger)
        assert [about(known, SourceFile(None, f"file-{n}", n)) for n in range(number + 1)] == [None] * (
            number + 1
        )
        assert about(known, A) == ([], list(range(number + 1)), None, "", "")
        assert all((100 + n // 2, n) in known.seen for n in range(number + 1))
    assert len(files_of(ledger, "states")) == len(files_of(ledger, "done")) == 2
    assert len(files_of(ledger, "log")) == last


def assert_nothing_superfluous(ledger, before):
    for folder in ("progress", "states", "done"):
        assert [name for name in files_of(ledger, folder) if int(name[:8]) < before] == []
    kept = {name.removeprefix("ids/") for name in ledger.entries()[0].ids.values()}
    there = set(files_of(ledger, "ids"))
    assert kept <= there
    assert [name for name in there - kept if int(name[:8]) < before] == []


def test_a_strangers_file_stops_nothing(ledger):
    run = Run(ledger)
    for folder in ("log", "progress", "states", "done", "ids"):
        path = ledger.path(f"{folder}/notes.txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"Ann was here")
    for number in range(3):
        run.settle(A, number)
        run.record()
        run.known.commit()
    assert about(reload(ledger), A) == ([0, 1, 2], [], None, "", "")
    assert ledger.path("states/notes.txt").exists()


# Damage


@pytest.fixture
def used(local_ledger):
    """Give a ledger with a claim, a commit, and progress after it."""
    run = Run(local_ledger)
    run.finish(B)
    run.settle(A, 0)
    run.sent(100, 7)
    run.record()
    run.known.commit()
    run.settle(A, 1)
    run.record()
    return local_ledger


def use(ledger):
    known = reload(ledger)
    return (100, 7) in known.seen


DAMAGES = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "garbage": lambda path: path.write_bytes(b"\x00\xff garbage " * 50),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-20]),
}
JSON_DAMAGES = {
    **DAMAGES,
    "a list": lambda path: path.write_bytes(b"[]"),
    "without a format": lambda path: path.write_bytes(b"{}"),
    "of another format": lambda path: path.write_bytes(
        path.read_bytes().replace(b'"format": 1', b'"format": 2')
    ),
    "of something else": lambda path: path.write_bytes(b'{"format": 1}'),
}


def assert_told(ledger, name):
    with pytest.raises(LedgerDamagedError) as caught:
        use(ledger)
    assert name in str(caught.value)
    assert "Restore the file from a backup" in str(caught.value)
    assert "remove the folder" in str(caught.value)


def newest(ledger, folder):
    return ledger.path(f"{folder}/{files_of(ledger, folder)[-1]}")


def test_what_is_not_damaged_is_read(used):
    assert use(used)
    assert [files_of(used, folder) for folder in ("log", "progress")] == [
        ["00000001.json", "00000002.json"],
        ["00000001-00000001.json", "00000002-00000001.json"],
    ]


@pytest.mark.parametrize("damage", [name for name in JSON_DAMAGES if name != "missing"])
@pytest.mark.parametrize("folder", ["log", "states", "progress"])
def test_a_damaged_record_is_told(used, folder, damage):
    path = newest(used, folder)
    JSON_DAMAGES[damage](path)
    assert_told(used, f"{folder}/{path.name}")


def test_a_missing_sum_is_told(used):
    path = newest(used, "states")
    path.unlink()
    assert_told(used, f"states/{path.name}")


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("folder", ["done", "ids"])
def test_damaged_keys_are_told(used, folder, damage):
    path = newest(used, folder)
    DAMAGES[damage](path)
    assert_told(used, f"{folder}/{path.name}")


@pytest.mark.parametrize("rows", ["AAAA", "!", "", "z" * 30])
def test_rows_that_cannot_be_read_are_told(used, rows):
    path = newest(used, "states")
    record = json.loads(path.read_bytes())
    record["files"][0]["settled"] = rows
    path.write_text(json.dumps(record))
    assert_told(used, f"states/{path.name}")


def test_an_entry_that_is_missing_in_the_middle_is_told(local_ledger):
    for _ in range(3):
        Run(local_ledger)
    local_ledger.path("log/00000002.json").unlink()
    assert_told(local_ledger, "entry 2 of the log is missing")


def test_a_first_entry_that_is_missing_is_told(local_ledger):
    for _ in range(3):
        Run(local_ledger)
    local_ledger.path("log/00000001.json").unlink()
    assert_told(local_ledger, "log/00000001.json")


def test_first_entries_that_a_commit_summed_up_are_not_needed(used):
    used.path("log/00000001.json").unlink()
    assert use(used)


@pytest.mark.parametrize("entries", [1, 2])
def test_a_last_entry_that_is_missing_is_told_where_something_happened_under_it(local_ledger, entries):
    for number in range(entries):
        run = Run(local_ledger)
        run.settle(A, number)
        run.record()
    newest(local_ledger, "log").unlink()
    assert_told(local_ledger, f"entry {entries} of the log is missing")


@pytest.mark.parametrize("error", [TimeoutError("no route"), PermissionError("expired token")])
def test_a_store_that_cannot_be_read_now_is_not_damaged(monkeypatch, error):
    """Whoever is told to remove the record loses what a later try would find."""
    ledger = SourceLedger(UPath(f"memory://{uuid4().hex}"), TARGET)
    run = Run(ledger)
    run.finish(A)
    run.record()
    run.known.commit()

    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(MemoryFileSystem, "get_file", fail)
    with pytest.raises(type(error)):
        use(ledger)


# What is not in it


def test_the_environment_is_not_readable_in_any_file(ledger):
    run = Run(ledger)
    for number in range(3):
        run.settle(A, number)
        run.send(B, number)
        run.sent(100, id_key("event-id-0001-private"))
        run.record()
        run.known.commit(report=run.known.write_report({"run_id": "run-1"}))
    found = everything_in(ledger)
    assert len(found) > 10
    for name, content in found.items():
        for secret in (SECRET, "heap.example", "event-id-0001-private"):
            assert secret not in name
            assert secret.encode() not in content


def test_targets_that_differ_have_folders_that_differ():
    targets = [
        TARGET,
        ExportTarget("s3://bucket/another/currents", TARGET.environment),
        ExportTarget(TARGET.source, "another"),
        ExportTarget(TARGET.source, TARGET.environment, "2026-01-01-00/2026-02-01-00"),
    ]
    assert len({target.folder for target in targets}) == 4
    assert ExportTarget("s3://bucket/currents/", TARGET.environment).folder == TARGET.folder


def test_no_identity_is_in_any_file_once_its_events_are_sent(heapbraze_sandbox, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    identities = [f"person-identity-{number:04d}" for number in range(20)]
    events = [
        {
            "event_type": "users.behaviors.CustomEvent",
            "id": f"event-id-{identity}",
            "external_user_id": identity,
            "user_id": "braze-id-0001",
            "time": 1_764_002_590,
            "name": "Bought",
        }
        for identity in identities
    ]
    (source / "events.json").write_text("\n".join(map(json.dumps, events)))
    with requests.Session() as session:
        session.trust_env = False
        client = HeapClient(Transport(session, heapbraze_sandbox.url), HEAP_APP_ID)
        ledger = SourceLedger(tmp_path / "ledger", ExportTarget(str(source), client.environment))
        budget = EventBudget(client.environment, EventLimits())
        for run_id in ("run-1", "run-2"):
            Export(ExportRequest(source, run_id), ledger, EventMapping(MappingRules()), client, budget).run()
        budget.close()
    assert len(heapbraze_sandbox.heap_events()) == 20
    kept = everything_in(ledger)
    assert len(kept) > 5
    for name, content in kept.items():
        for secret in (HEAP_APP_ID, *identities):
            assert secret not in name
            assert secret.encode() not in content


# Any history


@dataclass
class Known:
    """What a reader must find."""

    settled: set = field(default_factory=set)
    doubtful: set = field(default_factory=set)
    rows: int | None = None
    bad: str = ""
    bad_run: str = ""

    def as_told(self):
        if self.rows is not None and len(self.settled) >= self.rows and not self.bad:
            return None
        return sorted(self.settled), sorted(self.doubtful), self.rows, self.bad, self.bad_run


class Model:
    """What is known of a source, without files: rows, ids and counts, and who works on it."""

    def __init__(self, ledger):
        self.ledger = ledger
        self.files = {file.key: Known() for file in FILES}
        self.ids = set()
        self.counts = {}
        self.come("run-1")

    def come(self, run_id):
        """Let a run take the source, and look at all that it finds."""
        self.run = Run(self.ledger, run_id)
        known = self.run.known
        assert [about(known, file) for file in FILES] == [self.files[file.key].as_told() for file in FILES]
        bad = {key for key, file in self.files.items() if file.bad}
        assert {state.key for state in known.bad_files()} == bad
        assert {
            (hour, key) for hour in range(100, 112) for key in range(4) if (hour, key) in known.seen
        } == self.ids
        assert known.counts == self.counts.get(run_id, Counter())

    def record(self, changes, ids):
        for number, sending, settled, end in changes:
            file = FILES[number]
            if self.files[file.key].as_told() is not None:
                self._change(file, sending, settled, end)
        for hour, key in ids:
            self.run.sent(hour, key)
            self.ids.add((hour, key))
        self.counts.setdefault(self.run.run_id, Counter()).update(self.run.progress.counts)
        self.run.record()

    def _change(self, file, sending, settled, end):
        expected = self.files[file.key]
        sending, settled = sending - expected.settled, settled - expected.settled
        self.run.send(file, *sending)
        expected.doubtful |= sending
        if end is not None:
            self.run.end(file, end)
            expected.rows, expected.bad = ROWS, end
            expected.bad_run = self.run.run_id if end else ""
        if expected.as_told() is not None:
            self.run.settle(file, *settled)
            expected.settled |= settled
            expected.doubtful -= settled

    def commit(self, at_end, listed):
        run, known = self.run.run_id, self.run.known
        report = known.write_report({"run_id": run}) if at_end else ""
        if listed is None:
            known.commit(report=report)
        else:
            keys = sorted(FILES[number].key for number in listed)
            known.commit(report=report, listed=array("q", keys))
            self.files = {key: file if key in keys else Known() for key, file in self.files.items()}
        first = max((hour for hour, _ in self.ids), default=0) - WINDOW
        self.ids = {(hour, key) for hour, key in self.ids if hour > first}
        if at_end:
            self.counts.pop(run, None)
            self.come(run)


numbers = st.integers(0, len(FILES) - 1)
some_rows = st.sets(st.integers(0, ROWS - 1))
changes = st.tuples(numbers, some_rows, some_rows, st.sampled_from([None, None, "", "", "it is cut off"]))
records = st.tuples(
    st.just(Model.record),
    st.lists(changes, max_size=3),
    st.lists(st.tuples(st.integers(100, 111), st.integers(0, 3)), max_size=3),
)
commits = st.tuples(st.just(Model.commit), st.booleans(), st.none() | st.sets(numbers))
comings = st.tuples(st.just(Model.come), st.sampled_from(["run-1", "run-2"]))


@quick
@given(st.lists(st.one_of(records, records, commits, comings), max_size=14))
def test_any_history_is_read_as_it_was_written(make_ledger, steps):
    model = Model(make_ledger())
    for step, *arguments in steps:
        step(model, *arguments)
    for run_id in ("run-2", "run-1"):
        model.come(run_id)
