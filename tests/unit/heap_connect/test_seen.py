"""Which run takes which dump."""

from __future__ import annotations

import json

import pytest

from airflow_provider_heapbraze.clients.errors import TransientError
from airflow_provider_heapbraze.heap_connect.seen import Dump, Look, SeenDumps, newest_dump, take_dump
from airflow_provider_heapbraze.ledger_folder import LedgerDamagedError


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "dumps"
    (folder / "manifests").mkdir(parents=True)
    return folder


@pytest.fixture
def seen(tmp_path, root):
    return record(tmp_path, root)


def record(tmp_path, root, task="heap/wait/-1"):
    return SeenDumps(tmp_path / "ledger", str(root), task)


def put(root, dump_id, *tables):
    held = [{"name": name, "files": [], "incremental": False} for name in tables or ("users",)]
    manifest = {"dump_id": dump_id, "tables": held}
    (root / "manifests" / f"sync_{dump_id}.json").write_text(json.dumps(manifest))


def taken(root, seen, run_id, table=None):
    dump = take_dump(root, table, seen, run_id).dump
    return dump and dump.dump_id


def test_the_first_run_takes_the_newest_by_number(root, seen):
    put(root, 9)
    put(root, 10, "users", "purchase")
    assert take_dump(root, None, seen, "run-1") == Look(Dump(10, 2), 10)


def test_every_run_takes_a_newer_one_than_those_before(root, seen):
    put(root, 9)
    assert taken(root, seen, "run-1") == 9
    assert taken(root, seen, "run-2") is None
    put(root, 10)
    put(root, 100)
    assert taken(root, seen, "run-2") == 100, "of several, the newest"
    assert taken(root, seen, "run-3") is None, "10 is older than what run-2 took"


def test_a_run_that_comes_again_gets_its_own(root, tmp_path, seen):
    for dump_id, run in ((8, "run-1"), (9, "run-2"), (10, "run-3")):
        put(root, dump_id)
        assert taken(root, seen, run) == dump_id
    put(root, 11)
    later = record(tmp_path, root)
    assert [taken(root, later, f"run-{n}") for n in (1, 2, 3)] == [8, 9, 10]


def test_a_run_that_waited_while_others_took_dumps_waits_on(root, seen):
    put(root, 9)
    assert taken(root, seen, "slow", table="purchase") is None
    assert taken(root, seen, "quick") == 9
    put(root, 10, "purchase")
    assert taken(root, seen, "quicker") == 10
    assert taken(root, seen, "slow", table="purchase") is None
    put(root, 11, "purchase")
    assert taken(root, seen, "slow", table="purchase") == 11
    assert taken(root, seen, "slow", table="purchase") == 11


def test_two_runs_that_look_at_the_same_moment_do_not_take_the_same(root, tmp_path):
    put(root, 9)

    class Faster(SeenDumps):
        def take(self, run_id, dump):
            assert super().take("the other run", dump)
            return super().take(run_id, dump)

    slower = Faster(tmp_path / "ledger", str(root), "heap/wait/-1")
    assert take_dump(root, None, slower, "run-1") == Look(None, 9)


def test_a_try_that_died_after_taking_is_gone_on_with(root, seen):
    put(root, 9)
    seen.begin("run-1")
    assert seen.take("run-1", Dump(9, 4))
    assert seen.take("run-1", Dump(9, 4)), "a repeat whose answer was lost"
    put(root, 10)
    assert take_dump(root, None, seen, "run-1").dump == Dump(9, 4)


def test_tasks_and_sources_have_records_of_their_own(root, tmp_path):
    put(root, 9)
    assert taken(root, record(tmp_path, root), "run-1") == 9
    assert taken(root, record(tmp_path, root, "heap/wait/0"), "run-1") == 9
    assert taken(root, record(tmp_path, f"{root}/"), "run-2") is None, "the same source"
    assert len(list((tmp_path / "ledger" / "dump-sensors").iterdir())) == 2


def test_only_a_dump_with_the_table_counts(root):
    put(root, 9, "users", "Purchase")
    put(root, 10, "users", "_event_metadata")
    assert newest_dump(root, "purchase", -1) == Look(Dump(9, 2), 10)
    assert newest_dump(root, "purchase", 9) == Look(None, 10)
    assert newest_dump(root, "_event_metadata", 9) == Look(None, 10), "is none of Heap's tables"


def test_nothing_there_is_nothing_new(root):
    assert newest_dump(root, None, -1) == Look(None, -1)
    (root / "manifests").rmdir()
    assert newest_dump(root, None, -1) == Look(None, -1)


def test_other_files_beside_the_manifests_are_none(root):
    put(root, 9)
    for name in ("sync_10.json.tmp", "sync_x.json", "notes.txt"):
        (root / "manifests" / name).write_text("no manifest")
    assert newest_dump(root, None, 8).dump == Dump(9, 1)


def test_a_newest_manifest_that_cannot_be_read_is_no_reason_to_take_an_older_one(root, seen):
    put(root, 9)
    (root / "manifests" / "sync_10.json").write_text('{"dump_id": 10, "tab')
    with pytest.raises(TransientError, match=r"sync_10\.json is no manifest"):
        take_dump(root, None, seen, "run-1")
    put(root, 10)
    assert taken(root, seen, "run-1") == 10


@pytest.mark.parametrize("folder", ["runs", "dumps"])
def test_a_damaged_record_is_told_from_none(root, tmp_path, seen, folder):
    put(root, 9)
    assert taken(root, seen, "run-1") == 9
    (file,) = seen.path(folder).iterdir()
    file.write_text("{")
    with pytest.raises(LedgerDamagedError, match=rf"{folder}/\w+\.json is missing or cannot be read"):
        take_dump(root, None, seen, "run-1")


def test_the_record_says_whom_it_is_about_and_is_small(root, seen):
    put(root, 9)
    taken(root, seen, "run-1")
    taken(root, seen, "run-1")
    assert seen.read("task.json") == {"source": str(root), "task": "heap/wait/-1"}
    assert seen.read("dumps/9.json") == {"run_id": "run-1", "tables": 1}
    assert len([file for file in seen.folder.rglob("*") if file.is_file()]) == 3
